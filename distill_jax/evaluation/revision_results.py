"""What revision changed, by gold: fixed and broken, by kind of evidence, against new samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.evaluation import intervals
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.evidence import KINDS
from distill_jax.evaluation.resampling import extra_tokens
from distill_jax.evaluation.solved import Revision, Solved


def summary(solved: Sequence[Solved], resampled: Sequence[Solved] | None) -> dict[str, Any]:
    """First candidates against kept ones, JSON-able.

    A candidate is triggered where there was evidence against it in some round. precision: of the
    triggered first candidates those that are wrong; recall: of the wrong ones those that were
    triggered; candidates that the answer check is undecided about do not count in either.
    unchanged: triggered ones neither fixed nor broken. kinds: see `by_kind`. pass@1 is the mean
    over problems of the share of right candidates; differences are paired by problem. Gold answers
    are read here alone, after everything was drawn.

    Args:
        solved: judged.
        resampled: the control, judged, see `resampling`; None: not compared.
    """
    first_P, kept_P = _shares([one.first for one in solved]), _shares([one.kept for one in solved])
    slots_P = [{one.slot for one in some.revisions} for some in solved]
    drawn_P = [{one.slot for one in some.revisions if one.revised} for some in solved]
    known = [
        (one.slot in slots, not one.right)
        for some, slots in zip(solved, slots_P, strict=True)
        for one in some.first
        if one.right is not None
    ]
    caught = sum(triggered and wrong for triggered, wrong in known)
    triggered = sum(map(len, slots_P))
    out = {
        "triggered": triggered,
        "precision": _share(caught, sum(triggered for triggered, _ in known)),
        "recall": _share(caught, sum(wrong for _, wrong in known)),
        "revised": sum(map(len, drawn_P)),
        **_changes(solved, triggered),
        "tokens": float(np.mean([extra_tokens(one) for one in solved])),
        "pass@1_before": intervals.mean_interval(first_P)._asdict(),
        "pass@1_after": intervals.mean_interval(kept_P)._asdict(),
        "difference": intervals.paired(first_P, kept_P)._asdict(),
        "kinds": by_kind(solved),
        "resampled": None,
    }
    if resampled is not None:
        other_P = _shares([one.kept for one in resampled])
        out["resampled"] = {
            "samples": sum(one.round > 0 for some in resampled for one in some.all),
            **_changes(resampled, sum(map(len, drawn_P))),
            "tokens": float(np.mean([extra_tokens(one) for one in resampled])),
            "pass@1_after": intervals.mean_interval(other_P)._asdict(),
            "difference": intervals.paired(first_P, other_P)._asdict(),
            "revision_less_this": intervals.paired(other_P, kept_P)._asdict(),
        }
    return out


def by_kind(solved: Sequence[Solved]) -> dict[str, dict[str, int]]:
    """{kind of evidence: how often it triggered, of wrong candidates; how often that fixed, broke}.

    Counted by candidate and round; evidence of several kinds counts in each of them.
    """
    found = {
        kind: {"triggered": 0, "wrong": 0, "fixed": 0, "broken": 0}
        for kind in KINDS
        if any(kind in one.kinds for some in solved for one in some.revisions)
    }
    for some in solved:
        right = {(one.slot, one.round): one.right for one in some.all}
        for one in some.revisions:
            before, after = right[one.slot, one.old], right[one.slot, _kept_round(one)]
            for kind in one.kinds:
                found[kind]["triggered"] += 1
                found[kind]["wrong"] += before is False
                found[kind]["fixed"] += _fixed(before, after)
                found[kind]["broken"] += _fixed(after, before)
    return found


def _kept_round(one: Revision) -> int:
    return one.round if one.kept else one.old


def _fixed(before: bool | None, after: bool | None) -> bool:
    return after is True and before is not True


def _changes(solved: Sequence[Solved], total: int) -> Mapping[str, int]:
    """Slots whose kept candidate fixed or broke the first one; unchanged: the rest of `total`."""
    pairs: list[tuple[Candidate, Candidate]] = []
    for some in solved:
        kept = {one.slot: one for one in some.kept}
        pairs += [(one, kept[one.slot]) for one in some.first]
    fixed = sum(_fixed(old.right, new.right) for old, new in pairs)
    broken = sum(_fixed(new.right, old.right) for old, new in pairs)
    return {"fixed": fixed, "broken": broken, "unchanged": total - fixed - broken}


def _shares(found: Sequence[Sequence[Candidate]]) -> np.ndarray:
    """The share of each problem's candidates that is right."""
    return np.array([np.mean([one.right is True for one in some]) for some in found])


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
