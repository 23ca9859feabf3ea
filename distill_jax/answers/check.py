"""Comparing an answer with the gold one: right, wrong, or undecided with a reason."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from distill_jax.answers.compare import compare
from distill_jax.answers.extract import extract
from distill_jax.answers.pool import NO_ANSWER, shared_pool
from distill_jax.answers.reading import MAX_NESTING
from distill_jax.answers.single import RIGHT, UNDECIDED, WRONG, Finding, Judge, NeedsAlgebra
from distill_jax.answers.spelling import MAX_ANSWER, squeeze, tidy
from distill_jax.core.errors import DataError

MAX_DIGIT_RUN = 400
_CACHED = 100_000
_DIGIT_RUN = re.compile(rf"\d{{{MAX_DIGIT_RUN + 1}}}")
_MARKED = re.compile(r"####|\\f?box")
_INTEGER = re.compile(r"-?[1-9]\d{0,17}|0")


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        verdict: "right", "wrong" or "undecided".
        reason: why, in a few words.
        milliseconds: how long it took; less where the same pair was checked before.
    """

    verdict: str
    reason: str
    milliseconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the answer is known to be right."""
        return self.verdict == RIGHT

    def __bool__(self) -> bool:
        """As `right`, so that `if verdict` never pays for a wrong or undecided answer."""
        return self.right


def equivalent(gold: str, predicted: str) -> Verdict:
    """Whether two answers are the same, by the policy in the package's README; symmetric.

    A text with a mark (a box, ####) is reduced to its final answer. Returns within three seconds,
    mostly in microseconds. Answers are never evaluated as Python; algebra is done in worker
    processes.

    Raises:
        DataError: an argument is no text.
        WorkerError: a worker process is needed and does not start.
    """
    start = time.perf_counter()
    pair = _sorted(final_answer(gold), final_answer(predicted))
    finding = _exact(*pair) or _remember([pair])[0]
    return Verdict(finding.verdict, finding.reason, (time.perf_counter() - start) * 1e3)


def check_batch(golds: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
    """One verdict a text: its extracted answer against its gold answer.

    Args:
        golds: B gold answers; a whole solution is reduced to its final answer.
        texts: B texts of the model; one without a final answer is wrong.

    Raises:
        DataError: a gold or a text is no text.
        WorkerError: a worker process is needed and does not start.
    """
    for name, values in (("golds", golds), ("texts", texts)):
        if isinstance(values, str):
            raise DataError(f"{name} is one text", wanted="a list of texts")
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise DataError(f"{name}[{row}] is a {type(value).__name__}", wanted="text")
    if len(golds) != len(texts):
        raise DataError(f"{len(golds)} golds and {len(texts)} texts", wanted="as many of both")
    found = [extract(text) for text in texts]
    pairs = zip(golds, (answer.text if answer else "" for answer in found), strict=True)
    verdicts = equivalent_batch(list(pairs))
    for row, (gold, answer) in enumerate(zip(golds, found, strict=True)):
        if answer is None:
            verdicts[row] = Verdict(WRONG, "no final answer")
        if states_none(gold):  # a fault of the data must not train as a wrong answer
            verdicts[row] = Verdict(UNDECIDED, "the gold has no final answer")
    return verdicts


def states_none(gold: str) -> bool:
    """Whether a gold answer is no answer: empty, or prose without a final answer."""
    text = gold.strip()
    prose = text.endswith(".") and len(text.split()) > 5 and "\\" not in text
    return not text or (prose and extract(text) is None)


def equivalent_batch(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """`equivalent` of (gold, predicted) pairs, over all workers at once.

    Raises:
        DataError, WorkerError: as `equivalent`.
    """
    for row, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2:
            raise DataError(f"pairs[{row}] is {pair!r}", wanted="(gold, predicted)")
    answers = [_sorted(final_answer(gold), final_answer(given)) for gold, given in pairs]
    _remember([pair for pair in answers if _exact(*pair) is None])
    return [equivalent(*pair) for pair in answers]


def final_answer(text: str) -> str:
    """The final answer of a text with a mark, such as a whole solution; others are left."""
    marked = extract(text) if isinstance(text, str) and _MARKED.search(text) else None
    return marked.text if marked else text


@lru_cache(maxsize=_CACHED)
def _exact(gold: str, predicted: str) -> Finding | None:
    """What needs no algebra; None for the rest."""
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(predicted):
        return Finding(RIGHT if gold == predicted else WRONG, "whole numbers")
    if len(gold) > MAX_ANSWER or len(predicted) > MAX_ANSWER:
        return Finding(UNDECIDED, f"longer than {MAX_ANSWER} characters")
    left, right = tidy(gold), tidy(predicted)
    if not left or not right:
        return Finding(WRONG, "empty")
    if left == right or squeeze(left) == squeeze(right):
        return Finding(RIGHT, "written the same")
    for text in (left, right):
        if _DIGIT_RUN.search(text):
            return Finding(UNDECIDED, f"more than {MAX_DIGIT_RUN} digits")
        if _nesting(text) > MAX_NESTING:
            return Finding(UNDECIDED, f"more than {MAX_NESTING} nested brackets")
        if text.count("{") != text.count("}"):
            return Finding(WRONG, "braces that do not match")
    try:
        return compare(gold, predicted, Judge())
    except NeedsAlgebra:
        return None
    except RecursionError:
        return Finding(UNDECIDED, "too many parts in parts")


def _nesting(text: str) -> int:
    return max(accumulate((char in "([{") - (char in ")]}") for char in text), default=0)


def _sorted(gold: str, predicted: str) -> tuple[str, str]:
    """The pair in one order, so that the order of the arguments cannot matter."""
    for text in (gold, predicted):
        if not isinstance(text, str):
            raise DataError(
                f"an answer is a {type(text).__name__}", wanted="text", fix="str(...) of it"
            )
    return (gold, predicted) if gold <= predicted else (predicted, gold)


_verdicts: dict[tuple[str, str], Finding] = {}


def _remember(pairs: Sequence[tuple[str, str]]) -> list[Finding]:
    """Findings of pairs; those that are new go to the workers together."""
    known = {pair: _verdicts.get(pair) for pair in pairs}
    new = [pair for pair, finding in known.items() if finding is None]
    found = dict(zip(new, shared_pool().judge_all(new), strict=True)) if new else {}
    if len(_verdicts) + len(found) > _CACHED:
        _verdicts.clear()
    _verdicts.update({pair: finding for pair, finding in found.items() if finding != NO_ANSWER})
    return [known[pair] or found[pair] for pair in pairs]
