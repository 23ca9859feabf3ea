"""Writes a report as Markdown, its plots as PNG files."""

from collections.abc import Sequence
from pathlib import Path

from distill_jax.core import files
from distill_jax.evaluation.findings import Finding
from distill_jax.report import figures
from distill_jax.report import sections as s


def write(report: s.Report, path: Path, images: Path) -> None:
    """Writes the Markdown file, and PNG files into the directory `images` at or below its own."""
    files.write_text(path, text(report, path.parent, images))


def text(report: s.Report, directory: Path, images: Path) -> str:
    """The Markdown text of a file in `directory`; curves become PNG files in `images`."""
    parts = [f"# {report.title}", report.lead]
    for section in report.shown("markdown"):
        if section.blocks:
            parts.append(f"## {section.title}")
            parts += [_block(block, directory, images) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: s.Block, directory: Path, images: Path) -> str:
    match block:
        case s.Text(text, style):
            return f"### {text}" if style == "heading" else text
        case s.Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case s.Facts(pairs):
            return "\n".join(f"- {name}: {value}" for name, value in pairs)
        case s.Table(header, rows, caption):
            return f"{_table(header, rows)}\n\n*{caption}*"
        case s.Curves(name, plots, legend):
            path = images / f"{name}.png"
            figures.png(plots, path, legend)
            return f"![{name}]({path.relative_to(directory).as_posix()})"
        case s.Findings(found):
            return _table(["what", "status", "found"], [_finding(finding) for finding in found])
        case s.Answers(_, question, gold, answers):
            return f"**{question}** (gold {gold})\n\n" + "\n".join(map(_answer, answers))
        case s.Legend():
            return ""  # no colours here


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(map(_cell, row)) for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    escaped = text.replace("|", r"\|")
    return f"**{escaped}**" if isinstance(text, s.Bold) else escaped


def _finding(finding: Finding) -> list[str]:
    suggestions = [f"`{name}`: {how}" for name, how in finding.suggestions.items()]
    trend = finding.trend.describe() if finding.trend is not None else ""
    said = "; ".join(part for part in (finding.said, trend, *suggestions) if part)
    return [finding.what, finding.status, said]


def _answer(one: s.Answer) -> str:
    text = one.text.strip().replace("\n", " ⏎ ").replace("`", "'")
    return f"- {one.name} ({one.verdict}): `{text}`"
