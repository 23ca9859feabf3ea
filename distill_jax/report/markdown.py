"""Writes a report as Markdown, its plots as PNG files."""

from collections.abc import Sequence
from pathlib import Path

from distill_jax.core import files
from distill_jax.evaluation.findings import Finding
from distill_jax.report import figures
from distill_jax.report.sections import (
    Answers,
    Block,
    Bold,
    Bullets,
    Curves,
    Facts,
    Findings,
    Heading,
    Legend,
    Paragraph,
    Report,
    Table,
)


def write(report: Report, path: Path, images: Path) -> None:
    """Writes the file and its images.

    Args:
        report: what to write.
        path: of the Markdown file.
        images: directory of PNG files, at or below that of the file.
    """
    parts = [f"# {report.title}", report.lead]
    for section in report.shown("markdown"):
        if section.blocks:
            parts.append(f"## {section.title}")
            parts += [_block(block, path.parent, images) for block in section.blocks]
    files.write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def _block(block: Block, directory: Path, images: Path) -> str:
    match block:
        case Heading(text):
            return f"### {text}"
        case Paragraph(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Facts(pairs):
            return "\n".join(f"- {name}: {value}" for name, value in pairs)
        case Table(header, rows):
            return table(header, rows)
        case Curves(name, plots, legend):
            path = images / f"{name}.png"
            figures.png(plots, path, legend)
            return f"![{name}]({path.relative_to(directory).as_posix()})"
        case Findings(found):
            return table(["what", "status", "found"], list(map(_finding, found)))
        case Answers():
            return _answers(block)
        case Legend():
            return ""  # no colours here


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is the header."""
    lines = [_row(header), "|" + " --- |" * len(header), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    escaped = text.replace("|", r"\|")
    return f"**{escaped}**" if isinstance(text, Bold) else escaped


def _finding(finding: Finding) -> list[str]:
    said = [finding.said] if finding.said else []
    if finding.trend is not None:
        said.append(finding.trend.told())
    said += [f"`{name}`: {how}" for name, how in finding.suggestions.items()]
    return [finding.what, finding.status, "; ".join(said)]


def _answers(block: Answers) -> str:
    lines = [f"**{block.question}** (gold {block.gold})", ""]
    for one in block.answers:
        text = one.text.strip().replace("\n", " ⏎ ").replace("`", "'")
        lines.append(f"- {one.name} ({one.verdict}): `{text}`")
    return "\n".join(lines)
