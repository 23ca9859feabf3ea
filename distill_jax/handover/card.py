"""The model card of an export: README.md with results, settings, data, commit and licence."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import distill_jax
from distill_jax.data.chat import ChatSettings
from distill_jax.data.sources import PUBLISHED
from distill_jax.models import hf_io
from distill_jax.report import markdown, run_data, run_facts, tables
from distill_jax.report.run_data import RunData
from distill_jax.report.sections import Block, Bullets, Facts, Report, Section, Text
from distill_jax.report.view import RunView

FILE = "README.md"
# Of `run_facts.machine`: the command line may hold paths and names of its author.
_MACHINE = ("commit", "devices", "versions")
_FENCE = "---\n"


class Exported(NamedTuple):
    """What a card says of its model.

    Attributes:
        name: of the directory.
        subject: name of the model in the run: base, a stage, STAGE_step_N.
        weights: digests of its parts, as results name them.
        form: one sentence on the files.
        adapter: whether it is one, for PEFT.
        base: hub id or directory of the pretrained model; "" where the run made it.
        chat: how a question becomes a prompt.
        end: text of the token that ends an answer.
        max_new_tokens: longest answer in training and evaluation.
        tokens_differ: how AutoTokenizer's tokens differ from the run's; "" where they do not.
    """

    name: str
    subject: str
    weights: Mapping[str, str]
    form: str
    adapter: bool
    base: str
    chat: ChatSettings
    end: str
    max_new_tokens: int
    tokens_differ: str = ""


def write(model: Exported, workdir: Path) -> str:
    """The card's text.

    Raises:
        DataError: no stage has begun in this directory, or a record is damaged.
        CheckpointError: a JSON file of it is damaged.
    """
    data = _of_model(run_data.read(workdir), model.subject)
    license, source = licence(model.base)
    lead = (
        f"{data.view.label(model.subject).capitalize()}, of a run with preset "
        f"`{data.config.get('preset', '?')}` of distill_jax {distill_jax.__version__}. {model.form}"
    )
    sections = [
        *_results(data, model),
        Section("use", "Use", [Text(_usage(model))]),
        Section("made", "How it was made", [Facts(_made(data, model))]),
        Section("licence", "Licence", [Text(_licence_text(model, license, source))]),
    ]
    body = markdown.text(Report(model.name, lead, sections), workdir, workdir)
    return _front(data, model, license) + _without_paths(body, data, model)


def licence(base: str) -> tuple[str, str]:
    """The licence that a base model's README.md names, and where it was read; "" for none."""
    if not base:
        return "", ""
    directory = hf_io.model_dir(base)
    try:
        text = (directory / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    if not text.startswith(_FENCE):
        return "", ""
    try:
        front = yaml.safe_load(text.removeprefix(_FENCE).partition(f"\n{_FENCE}")[0])
    except yaml.YAMLError:
        return "", ""
    found = front.get("license") if isinstance(front, dict) else None
    return (found, FILE) if isinstance(found, str) else ("", "")


def _of_model(data: RunData, subject: str) -> RunData:
    """The part of a run that a model came from, and the stages that evaluate."""
    stage = (data.view.checkpoint(subject) or (subject, 0))[0]
    chain = {one.name for one in data.view.chain(stage)}
    kept = [s for s in data.view.stages if s.name in chain or s.makes in ("models", "results")]
    names = {one.name for one in kept}
    stages = [one for one in data.stages if one.name in names]
    return dataclasses.replace(
        data,
        view=RunView(tuple(kept)),
        stages=stages,
        results=_known(data.results, chain, subject, data.view),
        others={s: _known(r, chain, subject, data.view) for s, r in data.others.items()},
    )


def _known(
    results: Mapping[str, Any], chain: set[str], subject: str, view: RunView
) -> dict[str, Any]:
    shown = {*chain, *view.subjects.keys() - {s.name for s in view.students}, subject}
    return {name: result for name, result in results.items() if name in shown}


def _results(data: RunData, model: Exported) -> Iterator[Section]:
    """Accuracies of this model and of those it came from; only if they are of these weights."""
    every = [("results", "Results", data.results)]
    every += [(stage, f"Results ({stage})", found) for stage, found in data.others.items()]
    shown = False
    for id, title, results in every:
        source = results.get(model.subject, {}).get("made_from", {})
        if any(source.get(part) != digest for part, digest in model.weights.items()):
            continue
        shown = True
        blocks: list[Block] = [tables.accuracy(results, data.view)]
        blocks += [Text(note)] if (note := tables.few_problems(results)) else []
        blocks += filter(None, [tables.samples(results, data.view)])
        lines = tables.difference_lines(results, data.view)
        blocks += [Bullets(lines)] if lines else []
        said = f"This model is *{data.view.label(model.subject)}*."
        yield Section(id, title, blocks, said)
    if not shown:
        yield Section("results", "Results", [Text("These weights were not evaluated.")])


def _usage(model: Exported) -> str:
    content = f"QUESTION\n{model.chat.instruction}" if model.chat.instruction else "QUESTION"
    messages = [{"role": "user", "content": content}]
    if model.chat.system_prompt is not None:
        messages.insert(0, {"role": "system", "content": model.chat.system_prompt})
    thinking = ", enable_thinking=True" if model.chat.enable_thinking else ""
    loader = "AutoPeftModelForCausalLM" if model.adapter else "AutoModelForCausalLM"
    package = "peft" if model.adapter else "transformers"
    tokenizer = "PreTrainedTokenizerFast" if model.tokens_differ else "AutoTokenizer"
    imports = [f"from {package} import {loader}", f"from transformers import {tokenizer}"]
    if not model.adapter:
        imports = [f"from transformers import AutoModelForCausalLM, {tokenizer}"]
    code = [
        *imports,
        "",
        f'tokenizer = {tokenizer}.from_pretrained("PATH")',
        f'model = {loader}.from_pretrained("PATH")',
        f"messages = {json.dumps(messages, ensure_ascii=False)}",
        "prompt = tokenizer.apply_chat_template(",
        f"    messages, tokenize=False, add_generation_prompt=True{thinking}",
        ")",
        'inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")',
        f"out = model.generate(inputs.input_ids, max_new_tokens={model.max_new_tokens})",
        "print(tokenizer.decode(out[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))",
    ]
    ends = f"An answer ends with `{model.end}`"
    if not model.adapter:
        ends += ", which `generation_config.json` names; decoding is greedy unless you ask for more"
    if model.chat.shots:
        ends += ". The worked examples that stood before each question are omitted here"
    if model.tokens_differ:
        ends += f". {model.tokens_differ}: load it as above, also in tools that take a tokenizer"
    return "```python\n" + "\n".join(code) + f"\n```\n\n{ends}."


def _made(data: RunData, model: Exported) -> list[tuple[str, str]]:
    machine = [pair for pair in run_facts.machine(data.stages) if pair[0] in _MACHINE]
    return [*run_facts.settings(data), *machine]


def _licence_text(model: Exported, license: str, source: str) -> str:
    if not model.base:
        return "The run made the weights from nothing: no other model's licence applies to them."
    named = f"`{model.base}`"
    if license:
        return f"The base model {named} is under `{license}`, as its {source} says."
    return f"The licence of the base model {named} is not known here: its README.md names none."


def _front(data: RunData, model: Exported, license: str) -> str:
    """The card's metadata, as the hub reads it."""
    front: dict[str, Any] = {
        "library_name": "peft" if model.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distill_jax"],
    }
    if license:
        front["license"] = license
    if hf_io.is_hub_id(model.base):
        front["base_model"] = model.base
    source = data.config.get("data", {}).get("source", "")
    if source in PUBLISHED:
        front["datasets"] = [PUBLISHED[source].repository]
    return _FENCE + yaml.safe_dump(front, sort_keys=True) + _FENCE + "\n"


def _without_paths(text: str, data: RunData, model: Exported) -> str:
    """The text with local paths cut to their last part: a card is read by others."""
    for path in sorted(_paths({**data.config, "": model.base}), key=len, reverse=True):
        if _is_local(path):
            text = text.replace(path, Path(path).name)
    return text


def _is_local(text: str) -> bool:
    """Whether a setting's text is a path of this machine, or was one."""
    if "/" not in text or not Path(text).name or "\n" in text:
        return False
    if text.startswith(("/", "~")) and len(Path(text).parts) > 2:
        return True
    try:
        return Path(text).exists()
    except OSError:  # too long for a name: it is none
        return False


def _paths(values: Mapping[str, Any] | Sequence[Any]) -> Iterator[str]:
    for value in values.values() if isinstance(values, Mapping) else values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping | list | tuple):
            yield from _paths(value)
