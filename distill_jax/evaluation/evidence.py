"""Evidence against a candidate that needs no gold answer; which of two candidates is better."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from distill_jax.evaluation.candidates import UNSURE, Candidate, groups
from distill_jax.evaluation.selection import VERDICT_WEIGHTS
from distill_jax.tasks import observed


class Kind(NamedTuple):
    """A kind of evidence: what a reviser reads of it; whether a candidate with it fails a check."""

    sentence: str
    check: bool


# In the order in which a reviser reads them.
KINDS = {
    "verdict": Kind("A check found it incorrect.", True),
    "step": Kind("Step {} looks wrong.", False),
    "truncated": Kind("It does not end.", True),
    observed.NO_ANSWER: Kind("It states no final answer.", True),
    observed.NO_PROGRAM: Kind("It has no complete Python program in a fence.", True),
    observed.CRASH: Kind("Its program stops with an error.", True),
    observed.TIMEOUT: Kind("Its program runs too long.", True),
    observed.MEMORY: Kind("Its program needs too much memory.", True),
    observed.ASSERTION: Kind("An assertion of its program fails.", True),
    observed.EMPTY: Kind("Its program prints nothing.", True),
    observed.NO_VALUE: Kind("Its program prints no number and no expression.", True),
    observed.SEVERAL_LINES: Kind("Its program prints several lines.", False),
    "disagreement": Kind("Other solutions of the problem come to another answer.", False),
}


class Evidence(NamedTuple):
    """A reason to revise a candidate: its kind, a sentence, and details, "" or several lines."""

    kind: str
    sentence: str
    detail: str = ""


def found(
    one: Candidate,
    candidates: Sequence[Candidate],
    threshold: float,
    kinds: Sequence[str] = tuple(KINDS),
) -> list[Evidence]:
    """The evidence of these kinds against a candidate, in the order of KINDS.

    Args:
        one: with what its task observed, its verdict and the scores of its steps.
        candidates: the kept ones of its problem, itself included.
        threshold: a step scored below it is evidence.
    """
    there = dict(one.failures)
    if one.verdict == "incorrect":
        there["verdict"] = ""
    if one.steps and min(one.steps) < threshold:
        there["step"] = str(one.steps.index(min(one.steps)) + 1)
    if one.truncated:
        there["truncated"] = ""
    if outvoted(one, candidates):
        there["disagreement"] = ""
    return [_evidence(kind, there[kind]) for kind in KINDS if kind in there and kind in kinds]


def _evidence(kind: str, detail: str) -> Evidence:
    sentence = KINDS[kind].sentence
    return Evidence(kind, sentence.format(detail), "" if "{}" in sentence else detail)


def outvoted(one: Candidate, candidates: Sequence[Candidate]) -> bool:
    """Whether some other answer has more votes among a problem's candidates than this one's.

    False for a candidate without an answer; it has the evidence `no_answer` or a program's failure.
    """
    sizes = _sizes(one, candidates)
    return one.answer is not None and max(sizes.values(), default=0) > sizes[0]


def agreement(one: Candidate, candidates: Sequence[Candidate]) -> int:
    """The number of candidates in other slots that state an equal answer."""
    return 0 if one.answer is None else _sizes(one, candidates)[0] - 1


def _sizes(one: Candidate, candidates: Sequence[Candidate]) -> Counter[int]:
    """The sizes of the groups of equal answers, its own first as group 0; it takes its slot."""
    others = [other.answer for other in candidates if other.slot != one.slot]
    return Counter(group for group in groups((one.answer, *others)) if group >= 0)


def passes(one: Candidate) -> bool:
    """Whether a candidate fails no check: it ended, its program ran, its verdict is not incorrect.

    Scores and other candidates are no checks.
    """
    failed = any(KINDS[kind].check for kind, _ in one.failures)
    return not (failed or one.truncated or one.verdict == "incorrect")


def better(old: Candidate, new: Candidate, candidates: Sequence[Candidate]) -> Candidate:
    """The better candidate of a slot; the old one where both are equal.

    Compared in this order: it passes the checks, has an answer, has the better verdict, has more
    of the other slots' candidates agree, has the higher score. So a candidate that fails never
    replaces one that passes.

    candidates: the kept ones of the problem.
    """

    def rank(one: Candidate) -> tuple[bool, bool, float, int, float]:
        verdict, score = VERDICT_WEIGHTS[one.verdict or UNSURE], one.score
        voters = agreement(one, candidates)
        known = 0.0 if math.isnan(score) else score
        return passes(one), one.answer is not None, verdict, voters, known

    return new if rank(new) > rank(old) else old
