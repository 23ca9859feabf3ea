"""The documents of this repository: their commands and tables, as a reader would copy them."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# What ends a command within a line of shell.
_END = {"&&", ";", "|", ">", "#"}


def documents() -> list[Path]:
    """README.md, docs/ and the README.md of each folder; not what third parties wrote."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    skipped = ("CHANGELOG.md", "third_party/")
    return [ROOT / name for name in sorted(listed) if not name.startswith(skipped)]


class Command(NamedTuple):
    """A command in a document: place is file:line, words those after `python`."""

    place: str
    words: tuple[str, ...]


def commands(path: Path) -> Iterator[Command]:
    """Each `python -m …` of a document, in blocks of code and in spans of code."""
    text = path.read_text(encoding="utf-8")
    prose = []
    fenced = False
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            whole = line
            while whole.endswith("\\"):
                whole = whole[:-1] + next(lines, (0, ""))[1]
            yield from _python(whole, f"{path.relative_to(ROOT)}:{number}")
        else:
            prose.append((number, line))
    for number, line in prose:
        for span in re.findall(r"`([^`]+)`", line):
            yield from _python(span, f"{path.relative_to(ROOT)}:{number}")


def _python(line: str, place: str) -> Iterator[Command]:
    for found in re.finditer(r"(?<!\S)python (-m launch\S*.*)", line):
        words = []
        for word in shlex.split(found[1], comments=True):
            if word in _END:
                break
            words.append(word.removesuffix(";"))
            if word.endswith(";"):
                break
        yield Command(place, tuple(words))


def tables(path: Path) -> Iterator[list[dict[str, str]]]:
    """Each table of a document, as rows of {column: cell}."""
    rows: list[list[str]] = []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append([cell.strip() for cell in cells])
        elif rows:
            head, _, *body = rows
            yield [dict(zip(head, row, strict=True)) for row in body]
            rows = []


def spans(cell: str) -> list[str]:
    """The spans of code in a cell."""
    return re.findall(r"`([^`]+)`", cell)
