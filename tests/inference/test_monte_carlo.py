"""Which prefixes are completed, and what their counts are, with completions by hand."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.inference import monte_carlo
from distill_jax.inference.monte_carlo import Completer, Prefix, Solution, SolutionCounts
from distill_jax.inference.store import AnswerStore
from distill_jax.reasoning.step_labels import Counts
from distill_jax.rollout.sampler import Rollout, Sampler, SamplingSettings
from tests import tiny

EOS = 0
RIGHT, WRONG, UNDECIDED = Counts(1, 0), Counts(0, 1), Counts(0, 0, 1)
GOOD, BAD, OPEN = Counts(3, 1), Counts(0, 4), Counts(0, 3, 1)
# Three steps of two tokens, the last without EOS, and the same ended.
CUT = Solution(0, [9], [1, 2, 3, 4, 5, 6], [1, 3, 5], WRONG)
ENDED = CUT._replace(tokens=[1, 2, 3, 4, 5, EOS])


class Draw:
    """Counts by (row, number of tokens written); notes what is asked for."""

    def __init__(self, counts: dict[tuple[int, int], Counts]):
        self.counts, self.asked = counts, []

    def __call__(self, wave: int, prefixes: Sequence[Prefix]) -> list[Counts]:
        assert prefixes  # never an empty wave
        self.asked.append((wave, [(one.row, [*one.prompt, *one.written]) for one in prefixes]))
        return [self.counts[one.row, len(one.written)] for one in prefixes]


def label(traces: list[Solution], counts: dict[tuple[int, int], Counts], **how: Any):
    draw = Draw(counts)
    how = {"eos_id": EOS, "longest": 100, "skip_sure": False, **how}
    return monte_carlo.label(traces, draw, **how), draw.asked


def test_waves_complete_what_was_written():
    # Row 1 is given up after its first step, row 0 goes to its end.
    counts = {(0, 0): GOOD, (0, 2): GOOD, (0, 4): OPEN, (0, 6): BAD, (1, 0): GOOD, (1, 2): BAD}
    other = CUT._replace(problem=1, prompt=[8])
    found, asked = label([CUT, other], counts)
    assert found == [
        SolutionCounts(GOOD, [GOOD, OPEN, BAD]),
        SolutionCounts(GOOD, [BAD, None, None]),
    ]
    assert asked == [
        (0, [(0, [9]), (1, [8])]),
        (1, [(0, [9, 1, 2]), (1, [8, 1, 2])]),
        (2, [(0, [9, 1, 2, 3, 4])]),
        (3, [(0, [9, 1, 2, 3, 4, 5, 6])]),
    ]


def test_undecided_completions_give_no_solution_up():
    found, _ = label([CUT], {(0, 0): GOOD, (0, 2): OPEN, (0, 4): OPEN, (0, 6): GOOD})
    assert found[0].steps == [OPEN, OPEN, GOOD]


@pytest.mark.parametrize("verdict", [RIGHT, WRONG, UNDECIDED])
def test_after_eos_nothing_is_drawn(verdict):
    counts = {(0, 0): GOOD, (0, 2): GOOD, (0, 4): GOOD}
    found, asked = label([ENDED._replace(verdict=verdict)], counts)
    assert found[0].steps == [GOOD, GOOD, verdict] and len(asked) == 3


def test_solutions_of_one_problem_share_the_root():
    found, asked = label([CUT, CUT], {(0, 0): OPEN, (0, 2): BAD, (1, 2): BAD})
    assert [one.root for one in found] == [OPEN, OPEN] and asked[0] == (0, [(0, [9])])


def test_a_hopeless_root_leaves_one_wave():
    found, asked = label([CUT], {(0, 0): BAD, (0, 2): BAD})
    assert found == [SolutionCounts(BAD, [BAD, None, None])] and len(asked) == 2
    found, _ = label([CUT], {(0, 0): BAD, (0, 2): GOOD, (0, 4): BAD})
    assert found == [SolutionCounts(BAD, [GOOD, BAD, None])]


def test_sure_solutions_cost_nothing_where_that_is_asked_for():
    sure, right = Counts(4, 0), ENDED._replace(verdict=RIGHT)
    counts = {(0, 0): sure, (0, 2): GOOD, (0, 4): GOOD}
    found, asked = label([right], counts, skip_sure=True)
    assert found == [SolutionCounts(sure, [sure] * 3, sampled=False)] and len(asked) == 1
    found, asked = label([right], counts)
    assert found == [SolutionCounts(sure, [GOOD, GOOD, RIGHT])] and len(asked) == 3
    # A wrong solution, a completion that is wrong, and one that is undecided: all are sampled.
    assert label([ENDED], counts, skip_sure=True)[0][0].sampled
    for root in (GOOD, Counts(3, 0, 1)):
        assert label([right], {**counts, (0, 0): root}, skip_sure=True)[0][0].sampled


def test_long_prefixes_are_counted_and_never_cut():
    counts = {(0, 0): GOOD, (0, 2): GOOD, (0, 4): GOOD}
    # The prompt's token and 4 written are 5, with 6 written 7.
    found, asked = label([CUT], counts, longest=5)
    assert found == [SolutionCounts(GOOD, [GOOD, GOOD, None], too_long=1)] and len(asked) == 3
    found, asked = label([CUT], counts, longest=3)
    assert found == [SolutionCounts(GOOD, [GOOD, None, None], too_long=2)] and len(asked) == 2
    nothing = SolutionCounts(Counts(0, 0), [None] * 3, too_long=3)
    assert label([CUT, CUT._replace(prompt=None)], {}, longest=0) == ([nothing, nothing], [])


# --- the completer ------------------------------------------------------------------------------

LIMITS = SamplingSettings(max_new_tokens=4, segment=4, prompt_multiple=4, top_p=0.9)
PREFIXES = [Prefix(5, [3, 4], [5]), Prefix(2, [6], []), Prefix(7, [7, 8], [1, 1, 1, 1])]


@pytest.fixture(scope="module")
def completer() -> Completer:
    model, params = tiny.build()
    sampler = Sampler(model, tiny.mesh(), eos_id=tiny.EOS, pad_id=tiny.PAD, vocab=tiny.VOCAB)
    weights = sampler.weights(params, LIMITS)

    def by_row(prefixes: Sequence[Prefix], out: Rollout) -> dict[str, list[Any]]:
        """Right where prefix and first token are of one parity; row 2 undecided."""
        even = [(one.row + int(t)) % 2 == 0 for one, t in zip(prefixes, out.tokens_BR[:, 0])]  # noqa: B905
        undecided = [one.row == 2 for one in prefixes]
        right = [a and not b for a, b in zip(even, undecided, strict=True)]
        return {"right": right, "undecided": undecided}

    return Completer(
        sampler, lambda: weights, LIMITS, jax.random.key(0), n=6, batch=6, judge=by_row,
        truncated_as="undecided",
    )  # fmt: skip


def test_the_batch_changes_nothing_and_a_wave_has_its_own_key(completer: Completer) -> None:
    one, all_at_once = dataclasses.replace(completer), dataclasses.replace(completer, batch=64)
    found = one(1, PREFIXES)
    assert found == all_at_once(1, PREFIXES) and one.tokens == all_at_once.tokens > 0
    assert [one(1, [prefix])[0] for prefix in reversed(PREFIXES)] == found[::-1]
    assert [sum(counts) for counts in found] == [6] * 3
    assert dataclasses.replace(completer)(2, PREFIXES) != found


def test_completions_of_a_store_are_not_drawn_again(
    completer: Completer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jsonl"
    kept = dataclasses.replace(completer, store=AnswerStore(path, {}))
    found = kept(1, PREFIXES)
    monkeypatch.setattr(Sampler, "generate", None)
    again = dataclasses.replace(completer, store=AnswerStore(path, {}))
    assert again(1, PREFIXES) == found and again.tokens == kept.tokens


@pytest.mark.parametrize(
    ("truncated_as", "expected"),
    # Four completions: right, wrong, undecided, each with EOS; right but cut.
    [("undecided", Counts(1, 1, 2)), ("wrong", Counts(1, 2, 1))],
)
def test_verdicts_on_what_the_limit_cut(
    completer: Completer, monkeypatch: pytest.MonkeyPatch, truncated_as: str, expected: Counts
) -> None:
    out = Rollout(
        np.ones((4, 4), np.int32),
        np.full(4, 4, np.int32),
        np.array([True, True, True, False]),
        np.zeros((4, 4), np.float32),
    )
    monkeypatch.setattr(Sampler, "generate", lambda *_, **__: out)
    verdicts = {"right": [True, False, False, True], "undecided": [False, False, True, False]}
    found = dataclasses.replace(
        completer, n=4, judge=lambda *_: verdicts, truncated_as=truncated_as
    )
    assert found(1, PREFIXES[:1]) == [expected] and found.tokens == 16
