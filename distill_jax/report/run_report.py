"""The report of a run, from its records: report.md with PNG plots, report.html in one file."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill_jax.core.files import write_text
from distill_jax.evaluation import diagnosis, learning
from distill_jax.report import (
    answers,
    guard,
    html,
    markdown,
    panels,
    plots,
    programs,
    rounds,
    run_data,
    run_facts,
    solving,
    step_bench,
    tables,
)
from distill_jax.report.run_data import Records, RunData
from distill_jax.report.sections import Block, Bullets, Curves, Findings, Report, Section, Text
from distill_jax.report.view import RunView

MARKDOWN_FILE, HTML_FILE = "report.md", "report.html"


def write_markdown(workdir: Path, view: RunView | None = None) -> Path:
    """Writes report.md and its images in report/; returns its path. view: None reads it.

    Raises:
        DataError: no stage has begun in this directory, or a record is damaged.
        CheckpointError: a JSON file of it is damaged.
    """
    path = workdir / MARKDOWN_FILE
    markdown.write(build(run_data.read(workdir, view)), path, workdir / "report")
    return path


def write_html(workdir: Path, view: RunView | None = None) -> Path:
    """Writes report.html, as `write_markdown` writes report.md; returns its path."""
    path = workdir / HTML_FILE
    write_text(path, html.render(build(run_data.read(workdir, view))))
    return path


def build(data: RunData) -> Report:
    """The report of a run; the same data give the same report."""
    sections = [
        *_results(data),
        *_others(data),
        *programs.tasks_compared(data),
        *_checkpoints(data),
        *step_bench.sections(data),
        *rounds.sections(data),
        *guard.sections(data),
        *solving.sections(data),
        _training(data),
        _curves(data),
        _rewards(data),
        _levels(data),
        _diagnosis(data),
        Section(
            "problems",
            "Chosen problems",
            answers.blocks(data),
            missing="No student was evaluated yet, so there are no answers to show.",
            only="html",
        ),
        Section(
            "examples",
            "Examples",
            answers.examples(data),
            "Greedy answers to the first problems.",
            only="markdown",
        ),
    ]
    return Report(f"Run {data.name}", run_facts.lead(data), sections, run_facts.state(data))


def _results(data: RunData) -> Iterable[Section]:
    given = data.results, data.view
    lines = [*tables.difference_lines(*given), *tables.length_lines(*given)]

    def blocks(table: Any) -> list[Block]:
        return [] if table is None or not data.results else [table]

    note = tables.few_problems(data.results)
    yield Section(
        "accuracy",
        f"Accuracy{_on(data.results)}",
        [*blocks(tables.accuracy(*given)), *([Text(note, "warning")] if note else [])],
        "Percent of held-out problems, with 95% intervals (Wilson for greedy; t over problems for "
        "pass@1, Wilson where all problems agree).",
        "No model was evaluated yet: stage evaluate writes its results.",
    )
    yield Section(
        "changes",
        "What training changed",
        [*_bare_answers(data), *([Bullets(lines)] if lines else [])],
        "Students paired by problem (McNemar for greedy, paired t for pass@1).",
    )
    yield Section("run", "Settings and machine", run_facts.blocks(data), only="html")
    yield Section("answers", "Answers", blocks(tables.answers(*given)))
    yield Section("samples", "Several samples", blocks(tables.samples(*given)))
    yield Section(
        "reasoning",
        "Reasoning",
        blocks(tables.measured(*given, "reasoning")),
        "Percent of the gold solution's step values that the answers write, and of the equations "
        "that they write (in calculator marks: marks) that are true.",
    )
    yield Section("hacking", "Signs of reward hacking", blocks(tables.measured(*given, "hacking")))
    yield Section(
        "programs",
        "Programs",
        blocks(tables.programs(*given)),
        "Programs that ended without an error; that assert something that can fail; of the right "
        "ones, those that print a literal, or the same for other numbers in the question. Failures "
        "by class (docs/usage.md).",
    )
    yield Section(
        "teacher",
        "Comparison with the teacher",
        blocks(tables.distribution(*given)),
        "Next-token distributions of student and teacher on the student's own greedy answers: "
        "means over tokens (divergences in nats), 95% intervals over answers.",
    )


def _on(results: Mapping[str, Any]) -> str:
    """Task and benchmark in words; "" for task text and the test split."""
    tasks = {result.get("made_from", {}).get("task", "text") for result in results.values()}
    names = {result.get("benchmark", "test") for result in results.values()} - {"test"}
    task = "".join(f" of task {one}" for one in sorted(tasks - {"text"}))
    return task + (f" on {', '.join(Path(name).name for name in sorted(names))}" if names else "")


def _others(data: RunData) -> Iterable[Section]:
    """Accuracies that the run's other evaluating stages have measured, on other benchmarks."""
    for stage, results in data.others.items():
        note = tables.few_problems(results)
        yield Section(
            f"accuracy-{stage}",
            f"Accuracy{_on(results)} ({stage})",
            [
                tables.accuracy(results, data.view),
                *([Text(note, "warning")] if note else []),
                *filter(None, [tables.programs(results, data.view)]),
            ],
        )


def _bare_answers(data: RunData) -> Iterable[Block]:
    for stage in data.stages:
        if share := stage.figures.get("bare_answers", 0.0):
            yield Text(
                f"{100 * share:.0f}% of the rows of stage {stage.name} show a bare answer without "
                "its steps, which teaches a student to guess. Compare later students with the "
                "base too."
            )


def _checkpoints(data: RunData) -> Iterable[Section]:
    """For each stage whose checkpoints were evaluated; its start is step 0."""
    for stage in data.view.students:
        made = {name: data.view.checkpoint(name) or ("", 0) for name in data.results}
        found = {step: data.results[name] for name, (of, step) in made.items() if of == stage.name}
        if not found:
            continue
        if stage.start in data.results:
            found = {0: data.results[stage.start], **found}
        blocks: list[Block] = [tables.checkpoints(found)]
        if len(found) > 1:
            blocks.append(Curves(f"{stage.name}_checkpoints", [plots.checkpoints(found)]))
        yield Section(f"checkpoints-{stage.name}", f"Checkpoints of {stage.name}", blocks)


def _by_part(data: RunData, make: Any) -> list[Block]:
    """The block that `make` gives for the records of each part of the run, below its name."""
    made = {part: make(part, rows) for part, rows in data.metrics.items()}
    shown = [(Text(part, "heading"), block) for part, block in made.items() if block is not None]
    return list(itertools.chain.from_iterable(shown))


def _training(data: RunData) -> Section:
    text = (
        "First and last are of a moving average over a fifth of the rows; it converged where that "
        f"had {100 * learning.SHARE:.0f}% of its gain. The spread is the standard deviation of the "
        "last fifth of the rows around their straight line."
    )
    return Section("training", "Training", _by_part(data, tables.training), text)


def _curves(data: RunData) -> Section:
    def make(part: str, rows: Records) -> Block | None:
        stage = data.stage_of(part)
        found = plots.curves(part, stage.panels or panels.DEFAULT, rows)
        return Curves(part.replace("/", "_"), found) if found else None

    missing = "No stage has written metrics.jsonl yet."
    return Section("curves", "Learning curves", _by_part(data, make), missing=missing)


def _rewards(data: RunData) -> Section:
    def make(part: str, rows: Records) -> Block | None:
        found = plots.rewards(rows)
        return Curves(f"{part.replace('/', '_')}_rewards", found) if found else None

    return Section(
        "rewards",
        "Reward components",
        _by_part(data, make),
        "Each term before its weight; the band is one standard deviation over a step's "
        "completions.",
        "No stage has logged a reward yet.",
    )


def _levels(data: RunData) -> Section:
    drawn = [plots.levels(data.results, kind, data.view) for kind in tables.DECODINGS]
    found = [plot for plot in drawn if plot is not None]
    return Section(
        "levels",
        "Accuracy at each level",
        [Curves("levels", found)] if found else [],
        "Points with 95% intervals: Wilson's for greedy decoding, over problems for pass@1. The "
        "figures are in the table of accuracies.",
        "No result has levels.",
    )


def _diagnosis(data: RunData) -> Section:
    def make(part: str, rows: Records) -> Block | None:
        if not diagnosis.on_own_samples(rows):
            return None
        start, completions = data.view.started_from(part), data.completions.get(part, ())
        return Findings(diagnosis.diagnose(rows, completions, stage=part, start=start))

    return Section(
        "diagnosis",
        "Diagnosis",
        _by_part(data, make),
        "Known troubles of training on the student's samples. An arrow leads from the mean of the "
        "first fifth of the rows to that of the last; then Spearman's rank correlation with the "
        "step, and its p-value.",
        "No stage has logged a step on the student's samples yet.",
    )
