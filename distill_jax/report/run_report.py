"""The report of a run, from its records: report.md with PNG plots, report.html in one file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_jax.evaluation import diagnosis, learning
from distill_jax.report import answers, html, markdown, panels, plots, run_data, run_facts, tables
from distill_jax.report.run_data import RunData
from distill_jax.report.sections import (
    Block,
    Bullets,
    Curves,
    Findings,
    Heading,
    Paragraph,
    Report,
    Section,
)
from distill_jax.report.view import RunView

MARKDOWN_FILE, HTML_FILE = "report.md", "report.html"


def write_markdown(workdir: Path, view: RunView | None = None) -> Path:
    """Writes report.md and its images in report/; returns its path.

    Args:
        workdir: of the run.
        view: of the run; None reads it from the directory.

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
    html.write(build(run_data.read(workdir, view)), path)
    return path


def build(data: RunData) -> Report:
    """The report of a run; the same data give the same report."""
    sections = [
        _accuracy(data),
        _changes(data),
        Section("run", "Settings and machine", run_facts.blocks(data), only="html"),
        *_measures(data),
        *_checkpoints(data),
        _training(data),
        _curves(data),
        _rewards(data),
        _levels(data),
        _diagnosis(data),
        Section(
            "problems",
            "Chosen problems",
            answers.blocks(data),
            "No student was evaluated yet, so there are no answers to show.",
            only="html",
        ),
        Section("examples", "Examples", answers.examples(data), only="markdown"),
    ]
    return Report(f"Run {data.name}", run_facts.lead(data), sections, run_facts.state(data))


def _accuracy(data: RunData) -> Section:
    blocks: list[Block] = []
    if data.results:
        blocks.append(
            Paragraph(
                "Percent of held-out problems, with 95% intervals (Wilson for greedy; t over "
                "problems for pass@1, Wilson where all problems agree)."
            )
        )
        blocks.append(tables.accuracy(data.results, data.view))
    missing = "No model was evaluated yet: stage evaluate writes its results."
    return Section("accuracy", "Accuracy", blocks, missing)


def _changes(data: RunData) -> Section:
    blocks: list[Block] = []
    lines = tables.difference_lines(data.results, data.view)
    if lines:
        tests = "Paired by problem (McNemar for greedy, paired t for pass@1)."
        blocks += [Paragraph(tests), Bullets(lines)]
    for stage in data.stages:
        bare = stage.figures.get("bare_answers", 0.0)
        if bare:
            blocks.append(
                Paragraph(
                    f"{100 * bare:.0f}% of the rows of stage {stage.name} show a bare answer "
                    "without its steps, which teaches a student to guess. Compare later students "
                    "with the base too."
                )
            )
    return Section("changes", "What training changed", blocks)


def _measures(data: RunData) -> list[Section]:
    out = [Section("answers", "Answers", _table(data, tables.answers) if data.results else ())]
    for id_, title, make, text in (
        ("samples", "Several samples", tables.samples, ""),
        (
            "reasoning",
            "Reasoning",
            tables.reasoning,
            "Percent of the gold solution's step values that the answers write, and of the "
            "equations that they write (in calculator marks: marks) that are true.",
        ),
        ("hacking", "Signs of reward hacking", tables.hacking, ""),
        (
            "teacher",
            "Comparison with the teacher",
            tables.distribution,
            "Next-token distributions of student and teacher on the student's own greedy answers: "
            "means over tokens (divergences in nats), 95% intervals over answers.",
        ),
    ):
        out.append(Section(id_, title, _table(data, make, text)))
    return out


def _table(data: RunData, make: Any, text: str = "") -> list[Block]:
    table = make(data.results, data.view)
    if table is None:
        return []
    return [*([Paragraph(text)] if text else []), table]


def _checkpoints(data: RunData) -> Iterable[Section]:
    """For each stage whose checkpoints were evaluated; its start is step 0."""
    for stage in data.view.students:
        found: dict[int, Mapping[str, Any]] = {}
        for name, result in data.results.items():
            made = data.view.checkpoint(name)
            if made is not None and made[0] == stage.name:
                found[made[1]] = result
        if not found:
            continue
        if stage.start in data.results:
            found[0] = data.results[stage.start]
        found = dict(sorted(found.items()))
        blocks: list[Block] = [tables.checkpoints(found)]
        if len(found) > 1:
            blocks.append(Curves(f"{stage.name}_checkpoints", [plots.checkpoints(found)]))
        yield Section(f"checkpoints-{stage.name}", f"Checkpoints of {stage.name}", blocks)


def _training(data: RunData) -> Section:
    found = [tables.training(part, rows) for part, rows in data.metrics.items()]
    blocks: list[Block] = []
    for table in found:
        if table is not None:
            blocks += [Heading(table.caption.capitalize()), table]
    if blocks:
        text = (
            "First and last are of a moving average over a fifth of the rows; it converged where "
            f"that had {100 * learning.SHARE:.0f}% of its gain. The spread is the standard "
            "deviation of the last fifth of the rows around their straight line."
        )
        blocks.insert(0, Paragraph(text))
    return Section("training", "Training", blocks)


def _curves(data: RunData) -> Section:
    blocks: list[Block] = []
    for part, rows in data.metrics.items():
        stage = data.stage_of(part)
        found = plots.curves(part, panels.of_kind(stage.kind, stage.panels), rows)
        if found:
            blocks += [Heading(part), Curves(part.replace("/", "_"), found)]
    missing = "No stage has written metrics.jsonl yet."
    return Section("curves", "Learning curves", blocks, missing)


def _rewards(data: RunData) -> Section:
    blocks: list[Block] = []
    for part, rows in data.metrics.items():
        found = plots.rewards(rows)
        if found:
            blocks += [Heading(part), Curves(f"{part.replace('/', '_')}_rewards", found)]
    if blocks:
        text = (
            "Each term before its weight; the band is one standard deviation over a step's "
            "completions."
        )
        blocks.insert(0, Paragraph(text))
    return Section("rewards", "Reward components", blocks, "No stage has logged a reward yet.")


def _levels(data: RunData) -> Section:
    drawn = [plots.levels(data.results, kind, data.view) for kind in tables.DECODINGS]
    found = [plot for plot in drawn if plot is not None]
    blocks: list[Block] = []
    if found:
        text = (
            "Points with 95% intervals: Wilson's for greedy decoding, over problems for pass@1. "
            "The figures are in the table of accuracies."
        )
        blocks = [Paragraph(text), Curves("levels", found)]
    return Section("levels", "Accuracy at each level", blocks, "No result has levels.")


def _diagnosis(data: RunData) -> Section:
    blocks: list[Block] = []
    for part, rows in data.metrics.items():
        if was_rewarded(rows):
            before = data.view.chain(part)[:-1]
            found = diagnosis.diagnose(
                rows,
                data.completions.get(part, ()),
                stage=part,
                start=before[-1].name if before else "",
            )
            blocks += [Heading(part), Findings(found)]
    if blocks:
        text = (
            "Known troubles of reinforcement learning. An arrow leads from the mean of the first "
            "fifth of the rows to that of the last; then Spearman's rank correlation with the "
            "step, and its p-value."
        )
        blocks.insert(0, Paragraph(text))
    return Section("diagnosis", "Diagnosis", blocks, "No stage has logged a reward yet.")


def was_rewarded(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are rows of reinforcement learning."""
    return any("reward" in row for row in rows)
