"""One problem: question, worked solution, gold answer."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """A problem as every stage sees it.

    Attributes:
        id: unique within a run, e.g. "gsm8k/test/17".
        question: the text put to the student.
        solution: worked solution; empty when the source gives only an answer.
        answer: gold answer as text, e.g. "24" or "\\frac{1}{2}".
        level: difficulty from 1, or None when the source has none.
        subject: e.g. "Algebra", or None.
        extra: the row's other columns.
        columns_read: the row's columns that the fields above were read from, unchanged.
    """

    id: str
    question: str
    solution: str
    answer: str
    level: int | None = None
    subject: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    columns_read: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def content_hash(self) -> str:
        """Hash of the question's content, the same for two rows that ask the same."""
        return content_hash(self.question)


def content_hash(question: str) -> str:
    """16 hex digits of the question with case and white space normalised."""
    text = " ".join(question.lower().split())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def half_of(question: str) -> int:
    """1 or 2, by a hash of the question's content: the same in every run and file."""
    text = f"half/{content_hash(question)}".encode()
    return 1 + hashlib.blake2b(text, digest_size=1).digest()[0] % 2


def overlap(first: list[Problem], second: list[Problem]) -> list[Problem]:
    """The problems of `second` whose question is also in `first`."""
    known = {problem.content_hash for problem in first}
    return [problem for problem in second if problem.content_hash in known]
