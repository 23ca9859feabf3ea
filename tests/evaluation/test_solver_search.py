"""Search with a scripted model: beams by score, steps drawn from a prefix, resumed after a kill."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.evaluation import candidates as many
from distill_jax.inference.store import AnswerStore
from distill_jax.reasoning.steps import Format
from tests.evaluation.scripted import CUT, solve, solver
from tests.evaluation.test_solver import QUESTIONS, noisy


def stepwise(prompt, number, attempt, key):
    """A step, or the end of a solution, by all that a draw may depend on and the prefix."""
    value = (number * 31 + attempt * 7 + key + len(prompt) * 3) % 13
    step = f"{'?' if value % 3 else ''} {value}\n"
    return f"#### {value % 4}" if value % 4 == 0 else step + f"more {value}{CUT}"


SEARCH = {"scores": True, "attempts": 4, "width": 2}


@pytest.mark.parametrize("method", ["beam", "dvts"])
def test_a_search_does_not_depend_on_the_batch_and_goes_on_after_a_kill(method, tmp_path: Path):
    questions = [*QUESTIONS, "Tom has 5 pens and buys 3. How many pens has he now?"]

    def made(path=None, **more):
        found = solver(stepwise, **SEARCH, search=method, verify=1, **more)
        return dataclasses.replace(found, store=AnswerStore(path, {}) if path else None)

    whole = made(tmp_path / "whole.jsonl")
    solved = solve(whole, questions)
    wanted = str(solved)
    assert all(one.search.iterations > 2 and one.search.dropped for one in solved)
    assert {"? 5", "#### 0"} & {line for s in solved for c in s.kept for line in c.text.split("\n")}
    # What was written is put to the model as it was drawn, and scored as a whole.
    assert all(len(c.tokens) <= 64 and len(c.steps) >= 1 for one in solved for c in one.kept)
    for batch in (1, 6):
        assert str(solve(made(batch=batch), questions)) == wanted
    assert str(solve(made(), questions[:1])) == str(solved[:1])
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + len(whole.sampler.calls) > 4
    for number in range(1, len(lines) + 1, 2):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(b"".join(lines[:number]) + b'{"deco')
        again = made(path)
        assert str(solve(again, questions)) == wanted
        assert len(again.sampler.calls) == len(lines) - number
        assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("method", ["beam", "dvts"])
@pytest.mark.parametrize("width", [2, 4])
def test_a_search_of_one_step_is_best_of_n(method, width):
    alone = solve(solver(noisy, scores=True, attempts=4), QUESTIONS)
    one_step = {**SEARCH, "width": width, "search": method, "max_steps": 1}
    found = solve(solver(noisy, **one_step), QUESTIONS)
    assert [one.kept for one in found] == [one.kept for one in alone]
    for one, other in zip(found, alone, strict=True):
        assert one.search.tokens == sum(c.cost for c in other.kept)
        for name in ("best", "weighted", "majority"):
            assert many.choose(one.kept, [1.0], name) == many.choose(other.kept, [1.0], name)


def test_a_search_keeps_beams_by_score_and_those_without_room_last():
    # Two first steps, one with a ?; then each says what its prefix was.
    drawn = []

    def say(prompt, number, attempt, key):
        drawn.append(("go " in prompt, number, attempt, key))
        if "go " not in prompt:
            return f"go {attempt}{' ?' if attempt in (0, 3) else ''}\nmore"
        return "#### " + prompt.rsplit("go ", 1)[1][0]

    (solved,) = solve(solver(say, **SEARCH, search="beam"), QUESTIONS[:1])
    assert [c.answer for c in solved.kept] == ["1", "1", "2", "2"]
    # Plain samples' numbers at first; then problem and slot, another key.
    assert [one[:3] for one in drawn] == [
        *((False, 0, g) for g in range(4)), *((True, slot, g) for slot in (0, 1) for g in (0, 1)),
    ]  # fmt: skip
    assert len({one[3] for one in drawn[:4]}) == 1 and drawn[0][3] != drawn[4][3] == drawn[7][3]
    (solved,) = solve(solver(say, **SEARCH, search="dvts"), QUESTIONS[:1])
    assert [c.answer for c in solved.kept] == ["1", "1", "2", "2"]
    # No room for the first step of attempts 1 and 2: the next are those with a ?.
    found = solver(say, **SEARCH, search="beam")
    score = found.scorer.score

    for cut in ([np.nan], [0.9, np.nan]):  # of the second step alone, too

        def short(prompts, completions, cut=cut):
            return [np.array(cut) if r[0] > 0.5 else r for r in score(prompts, completions)]

        found.scorer.score = short
        found.scorer.aggregate = lambda rows: [r[0] for r in rows]
        (solved,) = solve(found, QUESTIONS[:1])
        assert [c.answer for c in solved.kept] == ["0", "0", "3", "3"]
    found.scorer.score = lambda prompts, some: [np.array([0.5, np.inf, 0.1])] * len(some)
    with pytest.raises(DataError, match="the reward model gives"):
        solve(found, QUESTIONS[:1])
    found.scorer.score = lambda prompts, some: [np.array([np.nan])] * len(some)
    with pytest.raises(DataError, match="scores no step"):
        solve(found, QUESTIONS[:1])


def test_a_search_over_a_program_draws_a_group_of_statements_at_a_time():
    first = "```py\n# {}\nn = {}\n"
    rest = ["#\nn += 2\n\nn += 3\n", "#\nprint(n)\n```"]
    seen = []

    def say(prompt, number, attempt, key):
        written = prompt.rpartition("<|im_start|>assistant\n")[2]
        seen.append(written)
        firsts = [first.format("?" if one in (0, 3) else "", one) for one in range(4)]
        begun = [one for one in firsts if written.startswith(one)] or [firsts[attempt]]
        return "".join([*begun, *rest])[len(written) :]

    found = solver(say, **{**SEARCH, "search": "beam"})
    found.scorer.how = Format("program")
    (solved,) = solve(found, QUESTIONS[:1])
    begun = [first.format("", attempt) for attempt in (1, 2)]
    # Four first steps; two of each kept beam; the last step ends with the solution.
    assert seen[:4] == [""] * 4 and seen[4:8] == [begun[0], begun[0], begun[1], begun[1]]
    assert {*seen[8:]} <= {one + rest[0] for one in begun} and len(seen) == 12
    assert {c.text for c in solved.kept} <= {"".join([one, *rest]) for one in begun}


def test_a_search_that_does_not_end_is_cut_at_the_longest_completion():
    found = solver(lambda *about: "again and again ?\nmore", **SEARCH, search="beam")
    (solved,) = solve(found, QUESTIONS[:1])
    assert {(len(c.tokens), c.truncated) for c in solved.kept} == {(64, True)}
