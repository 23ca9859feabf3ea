"""Docstrings, comments, messages and documents are plain technical English.

Earlier versions used the phrases below with unusual meanings. A hit fails the test and names a
standard term; rewrite the sentence with a subject, a verb and that term.
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PHRASES = {
    r"beside": "with, next to, in addition to, compared with",
    r"alike": "equal, the same, both",
    r"told(?! apart)": "logged, reported, named",
    r"anew": "again",
    r"begun afresh": "restarted",
    r"of now": "current",
    r"is no more": "no longer exists",
    r"odds": "probability",
    r"left out": "skipped, omitted",
    r"makes? good": "recovers",
    r"stands? (?:in|on|at)": "is in, is at",
}
FILES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "distill_jax", "launch", "configs", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()
    if name.endswith((".py", ".md")) and not name.startswith("third_party")
]  # fmt: skip


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and string of a Python source; f-strings by their parts."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def found(path: Path) -> list[str]:
    """file:line, phrase and what to write, for each phrase in a file."""
    name, text = str(path.relative_to(ROOT)), path.read_text("utf-8")
    parts = prose(text) if path.suffix == ".py" else enumerate(text.splitlines(), 1)
    return [
        f"{name}:{line + part[: hit.start()].count(chr(10))}: {hit[0]!r}; write: {instead}"
        for line, part in parts
        for phrase, instead in PHRASES.items()
        for hit in re.finditer(rf"\b{phrase}\b", re.sub(r"[ \t]+", " ", part), re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_plain_english(path: Path) -> None:
    assert found(path) == []


def test_the_list_is_applied_to_docstrings_comments_and_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_prose.ROOT", tmp_path)
    file = tmp_path / "a.py"
    file.write_text('"""Beside it."""\nx = 1  # left out\ny = f"{x} is told"\nbeside = alike = 2\n')
    assert [hit.split("; ")[0] for hit in sorted(found(file))] == [
        "a.py:1: 'Beside'", "a.py:2: 'left out'", "a.py:3: 'told'",
    ]  # fmt: skip
