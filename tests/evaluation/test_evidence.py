"""Evidence against a candidate, without gold; what replaces what."""

import itertools
import math

import pytest

from distill_jax.evaluation import evidence
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.evidence import KINDS, agreement, better, outvoted, passes
from distill_jax.tasks import observed

NAN = math.nan


def one(attempt=0, answer="1", score=NAN, **more):
    return Candidate(0, attempt, f"#### {answer}", (1, 2), answer=answer, score=score, **more)


def failed(kind, detail="", answer=None, **more):
    return one(answer=answer, failures=((kind, detail),), **more)


def kinds(found):
    return [reason.kind for reason in found]


# --- triggers -------------------------------------------------------------------------------------


def test_a_candidate_without_failures_has_no_evidence():
    assert evidence.found(one(steps=(0.6, 0.5), verdict="correct"), [], 0.5) == []
    assert evidence.found(one(verdict="unsure"), [], 0.5) == []
    # A machine's failure: no answer, and nothing known of the program.
    assert evidence.found(one(answer=None), [], 0.5) == []


def test_a_reviser_reads_all_evidence_in_one_order():
    bad = failed("no_answer", steps=(0.9, 0.4, 0.6), verdict="incorrect", truncated=True)
    assert [reason.sentence for reason in evidence.found(bad, [bad], 0.5)] == [
        "A check found it incorrect.", "Step 2 looks wrong.", "It does not end.",
        "It states no final answer.",
    ]  # fmt: skip
    assert kinds(evidence.found(bad, [bad], 0.4)) == ["verdict", "truncated", "no_answer"]
    assert kinds(evidence.found(bad, [bad], 0.5, ["step", "no_answer"])) == ["step", "no_answer"]


def test_details_are_those_of_the_task():
    (found,) = evidence.found(failed("crash", "ZeroDivisionError"), [], 0.5)
    assert found == ("crash", "Its program stops with an error.", "ZeroDivisionError")
    # The number of a step is in its sentence.
    (found,) = evidence.found(one(steps=(0.9, 0.1)), [], 0.5)
    assert found == ("step", "Step 2 looks wrong.", "")


def test_every_failure_of_a_task_is_a_kind_of_evidence():
    names = [name for name in vars(observed) if name.isupper() and not name.startswith("_")]
    assert {getattr(observed, name) for name in names} <= set(KINDS) and len(names) == 9


def test_a_minority_disagrees():
    votes = [one(i, answer) for i, answer in enumerate(["4", "4.0", "5", "6", None])]
    assert [outvoted(vote, votes) for vote in votes] == [False, False, True, True, False]
    assert kinds(evidence.found(votes[2], votes, 0.5)) == ["disagreement"]
    # Of equal groups none outvotes the other, and one alone is not outvoted.
    for answers in (["4", "5"], ["4", "4", "5", "5"], ["4", "5", "6"], ["4"]):
        votes = [one(i, answer) for i, answer in enumerate(answers)]
        assert not any(outvoted(vote, votes) for vote in votes)


def test_agreement_counts_the_other_slots():
    votes = [one(i, answer) for i, answer in enumerate(["4", "4.0", "5", None])]
    assert [agreement(vote, votes) for vote in votes] == [1, 1, 0, 0]
    # A revision takes the place of its slot.
    assert agreement(one(2, "8/2"), votes) == 2 and agreement(one(0, "5"), votes) == 1


# --- what replaces what ---------------------------------------------------------------------------


def won(old, new, candidates=()):
    return better(old, new, candidates) is new


def test_passing_checks():
    assert passes(one()) and passes(one(verdict="unsure", steps=(0.1,)))
    assert passes(failed("several_lines", answer="7"))
    checks = [kind for kind, about in KINDS.items() if about.check]
    for kind in set(checks) - {"verdict", "truncated"}:
        assert not passes(failed(kind))
    assert not passes(one(verdict="incorrect")) and not passes(one(truncated=True))


def test_the_better_of_two_and_the_earlier_of_equals():
    assert not won(one(score=0.5), one(score=0.5)) and won(one(score=0.5), one(score=0.6))
    assert not won(one(), one())
    assert won(failed("no_answer", score=0.9), one(score=0.1))
    assert won(one(truncated=True, score=0.9), one(score=0.1))
    assert not won(one(truncated=True, score=0.1), failed("no_answer", score=0.9))
    assert not won(one(score=0.1, verdict="correct"), one(score=0.9, verdict="unsure"))
    assert won(one(score=0.9, verdict="incorrect"), one(score=0.1, verdict="unsure"))


def test_agreement_counts_more_than_a_score_and_less_than_a_check():
    votes = [one(0, "5"), one(1, "4"), one(2, "4")]
    assert won(one(0, "5", 0.9), one(0, "4", 0.1), votes)
    assert not won(one(0, "4", 0.1), one(0, "5", 0.9), votes)
    assert not won(one(0, "5", 0.1), failed("assertion", answer="4", score=0.9), votes)
    # Both agree with two: the score decides.
    assert won(one(0, "4", 0.1), one(0, "4.0", 0.2), votes)


FAILURES = ["", "crash", "timeout", "memory", "assertion", "empty", "no_value", "no_program"]


@pytest.mark.parametrize("verdict", [None, "correct", "incorrect"])
def test_a_failing_revision_never_replaces_a_passing_candidate(verdict):
    votes = [one(1, "4"), one(2, "4")]
    some = [
        one(0, answer, score, failures=((kind, ""),) * (kind != ""), truncated=cut, verdict=verdict)
        for kind, answer, score, cut in itertools.product(
            FAILURES, ("4", "5", None), (0.1, 0.9), (False, True)
        )
    ]  # fmt: skip
    replaced = [
        (old, new) for old, new in itertools.product(some, repeat=2) if won(old, new, votes)
    ]
    assert replaced and not any(passes(old) and not passes(new) for old, new in replaced)
