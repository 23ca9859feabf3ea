"""What a run was made of: settings that matter most, stages, machine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distill_jax.report.run_data import RunData, StageRecord
from distill_jax.report.sections import Block, Facts, Table, Text
from distill_jax.training.progress import clock

_PLAIN = "the question"


def lead(data: RunData) -> str:
    """A sentence on the settings."""
    config = data.config
    if not config:
        return "No settings are recorded."
    algorithms = [
        f"{stage.name} by `{algorithm}`"
        for stage in data.view.stages
        if (algorithm := data.settings_of(stage.name).get("algorithm"))
    ]
    parts = [f"Preset `{config['preset']}`", f"seed {config['seed']}"]
    parts += [f"data `{config['data']['source']}`", *algorithms]
    prompt = _prompt(config["data"].get("chat", {}))
    return f"{', '.join(parts)}." + ("" if prompt == _PLAIN else f" Prompt: {prompt}.")


def state(data: RunData) -> str:
    """A sentence on the stages that are complete, and one on the others."""
    done = [stage.name for stage in data.stages if stage.seconds is not None]
    begun = [stage.name for stage in data.stages if stage.seconds is None]
    out = f"Complete: {', '.join(done) or 'no stage'}."
    return f"{out} Begun and not complete: {', '.join(begun)}." if begun else out


def blocks(data: RunData) -> list[Block]:
    """Settings, stages, machine."""
    facts, made = Facts(settings(data)), Facts(machine(data.stages))
    titles = [Text(title, "heading") for title in ("Settings", "Stages", "Made by")]
    return [titles[0], facts, titles[1], _stages(data.stages), titles[2], made]


def _stages(stages: Sequence[StageRecord]) -> Table:
    rows = []
    for stage in stages:
        first = stage.starts[0]["time"] if stage.starts else "–"
        # Spaces that do not break: on a phone the table scrolls.
        first = first.replace("T", "\u00a0").replace("+00:00", "\u00a0UTC")
        end = ["begun", "–"] if stage.seconds is None else ["complete", clock(stage.seconds)]
        rows.append([stage.name, first, str(len(stage.starts)), *end])
    header = ["stage", "first start", "starts", "state", "time of the last start"]
    return Table(header, rows, "stages of this work directory", 4)


def machine(stages: Sequence[StageRecord]) -> list[tuple[str, str]]:
    """Commit, devices, machine, versions and command of all starts."""
    starts = [start for stage in stages for start in stage.starts]

    def all_of(describe: Callable[[Mapping[str, Any]], str]) -> str:
        """The descriptions of all starts, equal ones once."""
        return "; ".join(dict.fromkeys(describe(start) for start in starts)) or "–"

    def devices(start: Mapping[str, Any]) -> str:
        d = start["devices"]
        return f"{d['count']} × {d['kind']} ({d['platform']}), {d['processes']} process(es)"

    def commit(start: Mapping[str, Any]) -> str:
        git = start.get("git") or {"commit": "not in a repository", "changed_files": []}
        return git["commit"] + (" and uncommitted changes" if git["changed_files"] else "")

    return [
        ("commit", all_of(commit)),
        ("devices", all_of(devices)),
        ("machine", all_of(lambda s: f"{s['platform']}, Python {s['python']}")),
        ("versions", all_of(lambda s: ", ".join(f"{k} {v}" for k, v in s["versions"].items()))),
        ("command", all_of(lambda s: " ".join(s["command"]))),
    ]


def settings(data: RunData) -> list[tuple[str, str]]:
    """The settings that matter most; all of them are in run.json."""
    config = data.config
    if not config:
        return [("settings", "no stage has written run.json yet")]
    lora, sampling = config["lora"], config["sampling"]
    # Older work directories lack some settings.
    stable = ", use_rslora" if lora.get("use_rslora") else ""
    adapter = f"LoRA rank {lora['rank']}, α {lora['alpha']:g}{stable}"
    cut = f"top-p {sampling['top_p']:g}, at most {sampling['max_new_tokens']} tokens"
    both = config["teacher"]["path"] or not config["student"]["path"]
    out = [
        ("preset", f"{config['preset']}, seed {config['seed']}"),
        ("data", config["data"]["source"]),
        ("prompt", _prompt(config["data"].get("chat", {}))),
        ("teacher", _model(config["teacher"]) if both else "not in this run"),
        ("student", f"{_model(config['student'])}; {adapter}"),
        ("sampling", f"temperature {sampling['temperature']:g}, {cut}"),
    ]
    for stage in data.view.stages:
        own = data.settings_of(stage.name)
        if "steps" in own and "optimizer" in own:
            out.append((stage.name, _training(own)))
        if "rewards" in own:
            out += _rewards(stage.name, own["rewards"])
        if stage.kind == "evaluate" and own:
            out.append((stage.name, _evaluation(own)))
        elif own and "optimizer" not in own:
            out.append((stage.name, _given(own)))
    return out


def _prompt(chat: Mapping[str, Any]) -> str:
    """What is said to the model besides the question."""
    said = {
        "system message": chat.get("system_prompt"),
        "after the question": chat.get("instruction"),
        "worked examples from": chat.get("shots"),
        "solutions end in": "\\boxed{ANSWER}" if chat.get("boxed") else None,
    }
    return "; ".join(f"{name}: {text}" for name, text in said.items() if text) or _PLAIN


def _evaluation(settings: Mapping[str, Any]) -> str:
    of = f" of {settings['benchmark']}" if settings.get("benchmark") else ""
    found = f"{settings['problems']} problems{of}; greedy"
    if not settings["samples"]:
        return found
    return f"{found}, and {settings['samples']} samples at temperature {settings['temperature']:g}"


def _given(settings: Mapping[str, Any]) -> str:
    """The settings of a stage that neither trains nor evaluates; without those that are off."""
    shown = []
    for name, value in settings.items():
        if name == "kind" or value in ("", None, False) or isinstance(value, Mapping):
            continue
        said = f"{value:g}" if isinstance(value, float) else repr(value).strip("'")
        shown.append(name if value is True else f"{name} {said}")
    return ", ".join(shown) or "the defaults"


def _training(settings: Mapping[str, Any]) -> str:
    batch = f"{settings.get('batch_size', '?')} rows"
    if "prompts_per_step" in settings:
        batch = f"{settings['prompts_per_step']} × {settings['samples_per_prompt']} completions"
    algorithm = f"{settings['algorithm']}, " if "algorithm" in settings else ""
    rate = settings["optimizer"]["learning_rate"]
    trained = f", trainable {settings['trainable']}" if "trainable" in settings else ""
    share = settings.get("answer_only")
    bare = f", final answers alone as solutions in {100 * share:g}% of the rows" if share else ""
    return f"{algorithm}{settings['steps']} steps of {batch}, learning rate {rate:g}{trained}{bare}"


def _rewards(stage: str, rewards: Mapping[str, Any]) -> list[tuple[str, str]]:
    weights = [
        f"{term.removesuffix('_weight')} {value:g}"
        for term, value in rewards.items()
        if term.endswith("_weight") and value and (term != "custom_weight" or rewards["custom"])
        # The student's part of the intrinsic reward, and no term.
        if term != "student_weight"
    ]
    weighed = ", ".join(weights) + (", adaptive" if rewards["adaptive"] else "")
    intrinsic = (
        f"α {rewards['alpha']:g}, {rewards['form']}, {rewards['sequence']} over tokens, "
        f"normalised by {rewards['normaliser']}"
    )
    if student := rewards.get("student_weight"):
        intrinsic += f", less {student:g} of the student's own"
    if rewards.get("credit") == "token":
        intrinsic += f", credit a token with γ {rewards['discount']:g}"
    if rewards.get("credit") == "exact" and rewards["intrinsic_weight"]:
        intrinsic = "exact KL(student‖teacher) of each token, in the loss"
    if rewards.get("control", "none") != "none":
        intrinsic += f", {rewards['control']}"
    return [(f"{stage}, reward weights", weighed), (f"{stage}, intrinsic reward", intrinsic)]


def _model(settings: Mapping[str, Any]) -> str:
    if settings["path"]:
        return str(settings["path"])
    layers, width = settings["num_layers"], settings["hidden_size"]
    return f"made here, {layers} layers of width {width}, {settings['steps']} steps"
