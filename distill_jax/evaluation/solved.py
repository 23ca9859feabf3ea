"""Solved: a problem's candidates, kept and replaced; what each round of revision did to them."""

from collections.abc import Sequence
from typing import NamedTuple

from distill_jax.evaluation import candidates
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.evidence import better
from distill_jax.inference.search import SearchResult


class Revision(NamedTuple):
    """A candidate that there was evidence against in a round.

    Attributes:
        slot, round: of the candidate's problem; the round, from 1.
        kinds: of the evidence.
        old: the round that the candidate is of.
        revised: False where the prompt had no room, so that nothing was drawn.
        kept: whether the revision replaced the candidate.
    """

    slot: tuple[int, int]
    round: int
    kinds: tuple[str, ...]
    old: int
    revised: bool = False
    kept: bool = False


class Solved(NamedTuple):
    """A problem's candidates.

    Attributes:
        kept: one of each slot, ordered; these vote.
        replaced: ordered; candidates that a revision replaced, and revisions that were worse.
        search: counts of the search that found them; None where each was drawn alone.
        revisions: by round and slot.
    """

    kept: list[Candidate]
    replaced: list[Candidate]
    search: SearchResult | None = None
    revisions: tuple[Revision, ...] = ()

    @property
    def all(self) -> list[Candidate]:
        """Kept and replaced candidates, ordered."""
        return candidates.ordered([*self.kept, *self.replaced])

    @property
    def first(self) -> list[Candidate]:
        """The candidates as first drawn."""
        return [one for one in self.all if one.round == 0]

    def after(self, new: Sequence[Candidate], revisions: Sequence[Revision] = ()) -> "Solved":
        """The problem after a round: each new candidate against the kept one of its slot.

        Agreement is with the candidates that were kept before the round.
        """
        kept, replaced = {one.slot: one for one in self.kept}, list(self.replaced)
        for one in new:
            old = kept[one.slot]
            kept[one.slot] = better(old, one, self.kept)
            replaced.append(one if kept[one.slot] is old else old)
        drawn = {one.slot: one for one in new}
        done = [
            one._replace(revised=one.slot in drawn, kept=kept[one.slot] is drawn.get(one.slot))
            for one in revisions
        ]
        return self._replace(
            kept=candidates.ordered(list(kept.values())),
            replaced=candidates.ordered(replaced),
            revisions=(*self.revisions, *done),
        )


def merged(
    before: Sequence[Sequence[Candidate]], changed: Sequence[Sequence[Candidate]]
) -> list[list[Candidate]]:
    """The candidates of each problem, with the changed one in each changed slot."""
    news = [{one.slot: one for one in some} for some in changed]
    return [
        [new.get(one.slot, one) for one in some] for some, new in zip(before, news, strict=True)
    ]
