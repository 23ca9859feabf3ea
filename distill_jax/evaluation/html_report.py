"""The HTML report of a run: one file that needs no network, made from the run's records alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from distill_jax.core import files
from distill_jax.evaluation import diagnosis, html_answers, html_data, html_figures, html_tokens
from distill_jax.evaluation import report as tables
from distill_jax.evaluation.html_data import RunData, Stage
from distill_jax.training.progress import clock

REPORT_FILE = "report.html"
CONTENTS = {
    "summary": "Summary",
    "curves": "Learning curves",
    "rewards": "Reward components",
    "levels": "Accuracy at each level",
    "diagnosis": "Diagnosis",
    "problems": "Chosen problems",
}
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Table:
    """Header, rows of cells, caption; and sentences below it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    changes: Sequence[str] = ()


def write(workdir: Path) -> Path:
    """Writes workdir/report.html and returns its path.

    Raises:
        DataError: no stage has begun in this directory, or a record is damaged.
        CheckpointError: a JSON file of it is damaged.
    """
    path = workdir / REPORT_FILE
    files.write_text(path, render(html_data.read(workdir)))
    return path


def render(data: RunData) -> str:
    """The page; the same data give the same bytes. All that stands in the data is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rl = data.metrics.get("rl", ())
    by_level = [html_figures.levels(data.results, kind) for kind in ("greedy", "sampled")]
    return environment.get_template("html_report.jinja").render(
        css=Markup((_HERE / "html_report.css").read_text("utf-8")),
        title=f"Run {data.name}",
        lead=_lead(data),
        contents=CONTENTS.items(),
        accuracy=_accuracy(data.results),
        settings=_settings(data.config),
        stages=_stages(data.stages),
        machine=_machine(data.stages),
        curves=[(stage, html_figures.curves(stage, rows)) for stage, rows in data.metrics.items()],
        rewards=html_figures.rewards(rl),
        levels=[image for image in by_level if image is not None],
        findings=diagnosis.diagnose(rl, data.completions) if _was_rewarded(rl) else [],
        problems=html_answers.problems(data),
        rule=html_answers.rule(data),
        scale=html_answers.scale(data),
        legend=_legend(data),
        notes=html_answers.notes(data),
    )


def _lead(data: RunData) -> str:
    done = [stage.name for stage in data.stages if stage.seconds is not None]
    begun = [stage.name for stage in data.stages if stage.seconds is None]
    said = f"Complete: {', '.join(done) or 'no stage'}."
    return f"{said} Begun and not complete: {', '.join(begun)}." if begun else said


def _was_rewarded(rows: html_data.Rows) -> bool:
    return any("reward" in row or "accuracy" in row for row in rows)


def _legend(data: RunData) -> list[html_tokens.Swatch]:
    if data.tokens is None:
        return []
    return html_tokens.legend(data.tokens["made_from"]["alpha"])


def _accuracy(results: Mapping[str, Any]) -> Table | None:
    if not results:
        return None
    header, rows = tables.rows(results)
    count = max(result["num_problems"] for result in results.values())
    changes = tables.difference_lines(results)
    return Table(header, rows, f"% right of {count} held-out problems [95% interval]", changes)


def _stages(stages: Sequence[Stage]) -> Table:
    rows = []
    for stage in stages:
        first = stage.starts[0]["time"] if stage.starts else "–"
        # Spaces that do not break: on a phone the table scrolls.
        first = first.replace("T", "\u00a0").replace("+00:00", "\u00a0UTC")
        state = "begun" if stage.seconds is None else "complete"
        took = "–" if stage.seconds is None else clock(stage.seconds)
        rows.append([stage.name, first, str(len(stage.starts)), state, took])
    header = ["stage", "first start", "starts", "state", "time of the last start"]
    return Table(header, rows, "stages of this work directory")


def _machine(stages: Sequence[Stage]) -> list[tuple[str, str]]:
    starts = [start for stage in stages for start in stage.starts]

    def all_of(tell: Any) -> str:
        """What the starts tell, each different thing once."""
        return "; ".join(dict.fromkeys(tell(start) for start in starts)) or "–"

    def devices(start: Mapping[str, Any]) -> str:
        d = start["devices"]
        return f"{d['count']} × {d['kind']} ({d['platform']}), {d['processes']} process(es)"

    def commit(start: Mapping[str, Any]) -> str:
        git = start.get("git")
        if not git:
            return "not in a repository"
        return git["commit"] + (" and uncommitted changes" if git["changed_files"] else "")

    return [
        ("commit", all_of(commit)),
        ("devices", all_of(devices)),
        ("machine", all_of(lambda s: f"{s['platform']}, Python {s['python']}")),
        ("versions", all_of(lambda s: ", ".join(f"{k} {v}" for k, v in s["versions"].items()))),
        ("command", all_of(lambda s: " ".join(s["command"]))),
    ]


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that matter most; all of them are in run.json."""
    if not config:
        return [("settings", "no stage has written run.json yet")]
    rl, sampling, lora = config["rl"], config["sampling"], config["lora"]
    rewards, evaluation, source = rl["rewards"], config["evaluate"], config["data"]["source"]
    weights = [
        f"{name.removesuffix('_weight')} {value:g}"
        for name, value in rewards.items()
        if name.endswith("_weight") and value and (name != "custom_weight" or rewards["custom"])
    ]
    adaptive = ", adaptive" if rewards["adaptive"] else ""
    return [
        ("preset", f"{config['preset']}, seed {config['seed']}"),
        ("data", source),
        ("teacher", _model(config["teacher"])),
        ("student", f"{_model(config['student'])}; LoRA rank {lora['rank']}, α {lora['alpha']:g}"),
        ("sft", _optimised(config["sft"], f"{config['sft']['batch_size']} rows")),
        (
            "rl",
            f"{rl['algorithm']}, "
            + _optimised(rl, f"{rl['prompts_per_step']} × {rl['samples_per_prompt']} completions"),
        ),
        ("reward weights", ", ".join(weights) + adaptive),
        (
            "intrinsic reward",
            f"α {rewards['alpha']:g}, {rewards['form']}, {rewards['sequence']} over tokens, "
            f"normalised by {rewards['normaliser']}",
        ),
        (
            "sampling",
            f"temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}, "
            f"at most {sampling['max_new_tokens']} tokens",
        ),
        (
            "evaluation",
            f"{evaluation['problems']} problems; greedy, and {evaluation['samples']} samples at "
            f"temperature {evaluation['temperature']:g}",
        ),
    ]


def _model(settings: Mapping[str, Any]) -> str:
    if settings["path"]:
        return str(settings["path"])
    layers, width = settings["num_layers"], settings["hidden_size"]
    return f"made here, {layers} layers of width {width}, {settings['steps']} steps"


def _optimised(settings: Mapping[str, Any], batch: str) -> str:
    rate = settings["optimizer"]["learning_rate"]
    return f"{settings['steps']} steps of {batch}, learning rate {rate:g}"
