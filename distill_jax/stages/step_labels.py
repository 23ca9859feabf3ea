"""Stage kind step_labels: how often completions of each step of given solutions end right.

A row: {"id", "sample", "question", "steps", "step_tokens", "mc", "root", "trace_right", "sampled",
"completer", "source", "step_split"}. "mc" holds {"right", "wrong", "undecided"} for each step, or
null where no completion was drawn; "root" holds the counts of the bare prompt.
`reasoning/step_labels.labels` derives labels from these counts. A completion is judged together
with what was written before it, under task program as one program.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.data import trace_rows
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.data.trace_rows import Trace
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.inference import generate, monte_carlo
from distill_jax.inference.monte_carlo import TRUNCATED_AS, Completer, Prefix, SolutionCounts
from distill_jax.inference.store import AnswerStore
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.reasoning import step_labels, steps
from distill_jax.reasoning.step_labels import LABELS, Counts
from distill_jax.rollout.sampler import Rollout, SamplingSettings
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.settings import Shared
from distill_jax.stages import traces
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.traces import WriterSettings
from distill_jax.training.progress import Progress

# Not completions.jsonl: the report reads that of every stage as what training drew.
STORE_FILE = "prefixes.jsonl"


@dataclass(frozen=True)
class StepLabelSettings(WriterSettings, kind="step_labels", makes="rows"):
    """Monte-Carlo counts of the steps of solutions, for process reward models."""

    data: str = setting("traces", "Solutions: a stage of kind traces, or its file.", ref="rows")
    step_split: str = steps.split_setting()
    separator: str = setting("\n", "Text between the steps of a solution; of split=text.")
    n: int = setting(8, "Completions of each prefix.", low=1)
    temperature: float = setting(0.7, "Temperature of the completions.", above=0.0)
    top_p: float = setting(0.95, "Nucleus mass of the completions.", above=0.0, high=1.0)
    truncated_as: str = setting(
        "undecided", "Verdict on a completion without EOS.", choices=TRUNCATED_AS
    )
    skip_sure: bool = setting(
        False,
        "Draw nothing for right solutions of problems that every completion of the bare prompt "
        "solves: all their steps count as right.",
    )
    max_prompt_tokens: int = setting(
        0,
        "Most tokens of a prompt with the steps before; longer ones are counted and not "
        "labelled. 0: what the completer's positions leave.",
        low=0,
    )
    batch: int = setting(256, "Completions decoded at a time.", low=1, affects="rounding")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.how.check()
        if not self.data:
            raise ConfigError("data is empty", wanted="a stage of kind traces, or a file of rows")

    @property
    def how(self) -> steps.Format:
        """How a solution is cut into steps."""
        return steps.Format(self.step_split, self.separator)

    def check_with(self, shared: Shared, name: str) -> None:
        """See StageSettings."""
        self.how.check_task(shared.task, f"{name}.step_split")


class Source(NamedTuple):
    """The solutions with at least one step, their steps, and how many others were dropped."""

    rows: list[Trace]
    steps: list[list[steps.Step]]
    empty: int


def _prepare(run: Run, stage: Stage[StepLabelSettings]) -> list[Trace] | None:
    """The rows; None where a stage of this run has to make them first."""
    data = stage.settings.data
    return trace_rows.read(run.rows(data)) if run.is_there(data) else None


def _run(
    run: Run, stage: Stage[StepLabelSettings], directory: Path, rows: list[Trace] | None
) -> dict[str, Any]:
    s = stage.settings
    rows = trace_rows.read(run.rows(s.data)) if rows is None else rows
    source = split_rows(run, rows, s.data, s.how)
    sampling = dataclasses.replace(run.config.sampling.whole(s.temperature), top_p=s.top_p)
    found, tokens = _label(run, stage, directory / STORE_FILE, source, sampling)
    completer = {
        "model": "teacher" if s.teacher else s.model,
        "temperature": s.temperature,
        "top_p": s.top_p,
        "max_new_tokens": sampling.max_new_tokens,
        "n": s.n,
    }
    write_rows(directory / ROWS_FILE, _rows(run, source, found, completer, s))
    run.console.print(_table(found))
    return _figures(source, found, tokens)


def split_rows(run: Run, rows: Sequence[Trace], name: str, how: steps.Format) -> Source:
    """The rows cut into steps; name: where they are, for errors.

    Raises:
        DataError: tokens of another tokenizer; two problems of one id; no step at all.
    """
    kept, found = [], []
    problems: dict[str, Problem] = {}
    for row in rows:
        if not traces.reads_as_completion(run, row):
            raise DataError(
                f"{name}: the tokens of {row.id} do not read as its completion",
                wanted="rows of the run's tokenizer",
                fix="draw them again with stage traces",
            )
        if problems.setdefault(row.id, row.problem) != row.problem:
            raise DataError(f"{name}: two problems have the id {row.id}", wanted="one")
        split = steps.split_tokens(run.data.tokenizer, row.tokens, how)
        if split:
            kept.append(row)
            found.append(split)
    if not kept:
        raise DataError(f"{name}: no solution of {len(rows)} has a step", wanted="some")
    return Source(kept, found, len(rows) - len(kept))


def _label(
    run: Run,
    stage: Stage[StepLabelSettings],
    path: Path,
    source: Source,
    sampling: SamplingSettings,
) -> tuple[list[SolutionCounts], int]:
    """(counts of each row, tokens drawn); what the store has is not drawn again."""
    s = stage.settings
    writer = s.writer(run)
    loaded = writer.load()
    sampler, eos_id = run.models.sampler(loaded.model), run.data.eos_id
    work = _traces(run, source)
    texts = [[*(one.prompt or []), eos_id, *one.tokens] for one in work]
    data = Prompts([row.problem for row in source.rows], texts, 0)
    more = {"n": s.n, "steps": s.how, "batch": s.batch}
    store = AnswerStore(path, generate.made_from(run, writer.weights, data, sampling, **more))

    def judge(prefixes: Sequence[Prefix], out: Rollout) -> dict[str, list[Any]]:
        drawn = zip(prefixes, out.tokens_BR, out.length_B, strict=True)
        texts = [run.data.text([*prefix.written, *row[:n].tolist()]) for prefix, row, n in drawn]
        problems = [source.rows[prefix.row].problem for prefix in prefixes]
        return generate.verdicts(run, problems, texts, out.ended_B)

    # An upper bound: labelling of a row can end before its last step.
    total = s.n * (len({row.id for row in source.rows}) + sum(map(len, source.steps)))
    before = f"{stage.name} was asked to stop;"
    done = store.count()
    with Progress(stage.name, total, start=done, unit="completions", console=run.console) as bar:
        completer = Completer(
            sampler,
            functools.cache(lambda: sampler.weights(loaded.params, sampling)),
            sampling,
            key=run.key(stage),
            n=s.n,
            batch=s.batch,
            judge=judge,
            truncated_as=s.truncated_as,
            store=store,
            tick=generate.stopping(run, bar, done, before, f"at most {total} completions are kept"),
        )
        found = monte_carlo.label(
            work,
            completer,
            eos_id=eos_id,
            longest=longest(loaded.model.config, sampling, s.max_prompt_tokens),
            skip_sure=s.skip_sure,
        )
    return found, completer.tokens


def longest(geometry: QwenConfig, sampling: SamplingSettings, limit: int) -> int:
    """Most tokens of a prompt: what the model's positions leave, or `limit` where that is less."""
    room = geometry.max_position_embeddings - sampling.max_new_tokens
    return min(room, limit or room)


def _traces(run: Run, source: Source) -> list[monte_carlo.Solution]:
    problems = {row.id: row.problem for row in source.rows}
    fitting = run.data.task.prompts(list(problems.values()))
    prompts = dict(zip((one.id for one in fitting.problems), fitting.prompts, strict=True))
    if fitting.dropped:
        run.say(f"{fitting.dropped} problems are longer than data.max_prompt_tokens: not labelled")
    numbers = {name: number for number, name in enumerate(problems)}
    return [
        monte_carlo.Solution(
            numbers[row.id],
            prompts.get(row.id),
            row.tokens,
            [step.stop for step in cut],
            Counts(int(row.right), int(not row.right and not row.undecided), int(row.undecided)),
        )
        for row, cut in zip(source.rows, source.steps, strict=True)
    ]


def _rows(
    run: Run,
    source: Source,
    found: Sequence[SolutionCounts],
    completer: dict[str, Any],
    s: StepLabelSettings,
) -> Iterator[dict[str, Any]]:
    for row, cut, one in zip(source.rows, source.steps, found, strict=True):
        yield {
            "id": row.id,
            "sample": row.sample,
            "question": row.question,
            "steps": [run.data.text(step.tokens).strip() for step in cut],
            "step_tokens": [step.tokens for step in cut],
            "mc": [None if counts is None else counts._asdict() for counts in one.steps],
            "root": one.root._asdict(),
            "trace_right": row.right,
            "sampled": one.sampled,
            "completer": completer,
            "source": s.data,
            "step_split": s.step_split,
        }


def _figures(source: Source, found: Sequence[SolutionCounts], tokens: int) -> dict[str, Any]:
    # By problem; a prompt that was too long was not completed.
    roots = {r.id: one.root for r, one in zip(source.rows, found, strict=True) if sum(one.root)}
    known = [counts for one in found for counts in one.steps if counts is not None]
    hard = _labels(found, "hard")
    return {
        "rows": len(found),
        "steps": sum(len(one.steps) for one in found),
        "labelled_steps": len(known),
        "tokens_per_label": tokens / max(1, len(known)),
        "hopeless_roots": sum(not root.right for root in roots.values()) / max(1, len(roots)),
        "hard_balance": sum(hard) / max(1, len(hard)),
        "sure_rows": sum(not one.sampled for one in found),
        "too_long_steps": sum(one.too_long for one in found),
        "empty_rows": source.empty,
    }


def _labels(found: Sequence[SolutionCounts], kind: str) -> list[float]:
    every = [label for one in found for label in step_labels.labels(one.steps, one.root, kind)]
    return [label for label in every if label is not None]


def _table(found: Sequence[SolutionCounts]) -> Table:
    """The labels that follow from the counts."""
    out = Table(title="labels of steps")
    for column in ("labels", "steps", "mean", "at 0", "at 1"):
        out.add_column(column, justify="left" if column == "labels" else "right")
    for kind in LABELS:
        values = _labels(found, kind)
        count = max(1, len(values))
        shares = (sum(values), values.count(0.0), values.count(1.0))
        out.add_row(kind, str(len(values)), *(f"{value / count:.3f}" for value in shares))
    return out


def _forecast(job: Job, s: StepLabelSettings) -> list[Part]:
    # The longest prefix is a whole solution without its EOS.
    prefix = min(job.solution, s.max_prompt_tokens or job.solution)
    return s.forecast(job, "completions", s.n, s.batch, longest=prefix)


KIND = register(Kind(StepLabelSettings, _run, prepare=_prepare, forecast=_forecast))
