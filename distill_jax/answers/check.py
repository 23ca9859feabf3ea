"""Comparing an answer with the gold one: right, wrong, or undecided with a reason."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from distill_jax.answers.extract import MAX_ANSWER, extract
from distill_jax.answers.numbers import parse_number, tidy

# Letters, commands, powers, brackets or signs between terms: it may be an expression.
_EXPRESSION = re.compile(r"[^\W\d_]|[\\^√(\[{²³π∞]|\d\s*[-+*×·/=<>]\s*\d")

# Spaces mean nothing, save between digits: "1 2" is not 12.
_SPACE = re.compile(r"(?<!\d) | (?!\d)")


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        verdict: "right", "wrong" or "undecided".
        reason: why, in a few words.
        milliseconds: how long it took.
    """

    verdict: str
    reason: str
    milliseconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the answer is known to be right."""
        return self.verdict == "right"


def equivalent(gold: str, predicted: str) -> Verdict:
    """Whether two answers are the same; exact, symmetric, and never evaluates anything.

    Numbers are compared as fractions. A percent sign counts as a unit; two different units make
    the answers differ, a unit on one side alone does not. Other texts are right when they are
    written alike, and undecided when they are not: deciding needs algebra.
    """
    start = time.perf_counter()
    verdict, reason = _compare(gold, predicted)
    return Verdict(verdict, reason, (time.perf_counter() - start) * 1e3)


def check_batch(golds: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
    """One verdict a text: its extracted answer against its gold answer.

    Args:
        golds: B gold answers; a whole solution is reduced to its final answer.
        texts: B texts of the model; one without a final answer is wrong.
    """
    out = []
    for gold, text in zip(golds, texts, strict=True):
        marked = extract(gold) if "####" in gold or "\\boxed" in gold else None
        found = extract(text)
        if found is None:
            out.append(Verdict("wrong", "no final answer"))
        else:
            out.append(equivalent(marked.text if marked else gold, found.text))
    return out


def _compare(gold: str, predicted: str) -> tuple[str, str]:
    if len(gold) > MAX_ANSWER or len(predicted) > MAX_ANSWER:
        return "undecided", f"longer than {MAX_ANSWER} characters"
    left, right = tidy(gold), tidy(predicted)
    if not left or not right:
        return "wrong", "empty"
    first, second = parse_number(gold), parse_number(predicted)
    if first is not None and second is not None:
        if first.value != second.value:
            return "wrong", "different numbers"
        if first.unit and second.unit and first.unit != second.unit:
            return "wrong", "different units"
        return "right", "equal numbers"
    if _SPACE.sub("", left) == _SPACE.sub("", right):
        return "right", "written alike"
    for number, other in ((first, right), (second, left)):
        if number is not None and not _EXPRESSION.search(other):
            return "wrong", "not a number"
    return "undecided", "not plain numbers, and written differently"
