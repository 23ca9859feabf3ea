"""Beam search and DVTS: by hand, against an oracle on a toy language, order of the problems."""

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.inference import search
from distill_jax.inference.search import SEARCHES, Beam, Prefix, Shape

LIMIT = 14


def shape(method, attempts, width):
    return Shape(*SEARCHES[method](attempts // width), width)


def piece(name, slot, step, number, written, whole):
    """A continuation in the toy language: 1 to 3 tokens of {1, 2}, at times the end."""
    drawn = np.random.default_rng([name, slot, step, number, *written])
    new = drawn.integers(1, 3, size=20 if whole else drawn.integers(1, 4)).tolist()
    ended = bool(drawn.random() < 0.3) and len(written) + len(new) <= LIMIT
    written = (*written, *new)[:LIMIT]
    return written, ended


def value(written):
    """Its score, rounded so that some are equal."""
    return round(float(np.random.default_rng(list(written)).random()), 1)


class Toy:
    """Draws and scores in the toy language; `names` are the numbers of the problems."""

    def __init__(self, names):
        self.names, self.drawn = names, 0

    def draw(self, step, prefixes, count, whole):
        out = []
        for prefix in prefixes:
            made = [
                piece(self.names[prefix.problem], prefix.slot, step, g, prefix.written, whole)
                for g in range(count)
            ]
            news = [len(written) - len(prefix.written) for written, _ in made]
            self.drawn += sum(news)
            out.append(
                [
                    Beam(prefix.problem, written, new, ended)
                    for (written, ended), new in zip(made, news, strict=True)
                ]
            )
        return out

    def score(self, beams):
        return [value(beam.written) for beam in beams]


def run(method, names, attempts=8, width=2, max_steps=40):
    toy = Toy(names)
    found = search.search(
        len(names), shape(method, attempts, width), toy.draw, toy.score,
        limit=LIMIT, max_steps=max_steps,
    )  # fmt: skip
    assert sum(one.tokens for one in found) == toy.drawn  # of dropped beams, too
    return found


def oracle(method, name, attempts, width, max_steps):
    """(candidates by tree, tokens drawn), each tree on its own, by argsort."""
    trees = 1 if method == "beam" else attempts // width
    size = attempts // trees
    kept, out, tokens = size // width, [], 0
    for tree in range(trees):
        slots = None  # of the root: all numbers of this tree
        done = []
        for step in range(max_steps):
            if step == 0:
                asked = [(0, (), tree * size + g) for g in range(size)]
            else:
                asked = [(slot, written, g) for slot, written in slots for g in range(width)]
            made = [
                (*piece(name, slot, step, g, written, step + 1 == max_steps), len(written))
                for slot, written, g in asked
            ]
            tokens += sum(len(written) - before for written, _, before in made)
            over = np.array([ended or len(written) == LIMIT for written, ended, _ in made])
            done += [(step, made[i][0]) for i in np.flatnonzero(over)]
            open_ = np.flatnonzero(~over)
            if len(done) >= size or not len(open_):
                break
            scores = np.array([value(made[i][0]) for i in open_])
            ranks = open_[np.argsort(-scores, kind="stable")][:kept]
            slots = [(tree * kept + rank, made[i][0]) for rank, i in enumerate(ranks)]
        out += done
    # In the order of the iterations, then of the trees.
    return [written for _, written in sorted(out, key=lambda one: one[0])], tokens


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize(("attempts", "width"), [(8, 2), (6, 3), (4, 4), (12, 3)])
@pytest.mark.parametrize("max_steps", [1, 2, 40])
def test_it_keeps_what_the_oracle_keeps(method, attempts, width, max_steps):
    names = list(range(12))
    found = run(method, names, attempts, width, max_steps)
    for name, one in zip(names, found, strict=True):
        wanted, tokens = oracle(method, name, attempts, width, max_steps)
        assert [beam.written for beam in one.candidates] == wanted
        assert one.tokens == tokens and one.iterations <= max_steps
        # What was drawn is complete, dropped, or was continued.
        assert 1 <= len(one.candidates) < 2 * attempts
        assert len(one.candidates) + one.dropped <= one.steps


@pytest.mark.parametrize("method", SEARCHES)
def test_the_order_and_the_other_problems_change_nothing(method):
    names = [3, 0, 7, 5, 1]
    whole = dict(zip(names, run(method, names), strict=True))
    for some in ([7], [1, 5, 3], sorted(names)):
        for name, one in zip(some, run(method, some), strict=True):
            assert [b.written for b in one.candidates] == [
                b.written for b in whole[name].candidates
            ]
            assert vars(one) | {"candidates": 0} == vars(whole[name]) | {"candidates": 0}


@pytest.mark.parametrize(
    ("method", "kept"),
    # Of all four the best two; of {.5, .9} and {.2, .3} the best each.
    [("beam", [(0, 1), (1, 0)]), ("dvts", [(0, 1), (1, 3)])],
)
def test_beams_by_hand(method, kept):
    scores, asked = [0.5, 0.9, 0.2, 0.3], []

    def draw(step, prefixes, count, whole):
        asked.append((prefixes, count, whole))
        if step == 0:  # four beams of one token
            return [[Beam(0, (g,), 1, False) for g in range(4)]]
        return [[Beam(0, (*one.written, 9), 1, True)] * 2 for one in prefixes]

    (found,) = search.search(
        1, shape(method, 4, 2), draw, lambda beams: [scores[b.written[0]] for b in beams],
        limit=9, max_steps=2,
    )  # fmt: skip
    assert asked[0] == ([Prefix(0, 0, ())], 4, False)
    assert asked[1] == ([Prefix(0, slot, (first,)) for slot, first in kept], 2, True)
    # 4 + 4 steps of one token; each of the second ones is there twice; two beams were dropped.
    assert (found.steps, found.tokens, found.iterations) == (8, 8, 2)
    assert (found.duplicates, found.dropped, len(found.candidates)) == (2, 2, 4)


def test_one_tree_of_one_beam_is_the_same_search():
    assert run("beam", [1, 2, 3], 4, 4) == run("dvts", [1, 2, 3], 4, 4)


def test_a_full_tree_ends_and_an_empty_one_is_not_scored():
    def draw(step, prefixes, count, whole):
        # Tree 0 completes both, tree 1 one of two.
        ended = [True, True, True, False] if step == 0 else [True, False]
        return [[Beam(0, (step, g), 2, e) for g, e in enumerate(ended)] for _ in prefixes]

    scored = []

    def score(beams):
        scored.append(len(beams))
        return [0.0] * len(beams)

    (found,) = search.search(1, shape("dvts", 4, 2), draw, score, limit=9, max_steps=9)
    # The second iteration fills tree 1 (1 + 1 of 2): its live beam is dropped without a score.
    assert found.iterations == 2 and len(found.candidates) == 4
    assert scored == [1] and found.dropped == 1


def test_a_score_that_is_nan_is_refused():
    with pytest.raises(DataError, match="score of a beam is NaN"):
        search.best([0.5, float("nan")], 1)
    assert search.best([0.5, 0.7, 0.7, 0.1], 3) == [1, 2, 0]
