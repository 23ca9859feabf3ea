"""New samples in the place of revisions: the same slots and tokens, the same rule; by hand."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill_jax.evaluation import resampling, solve_results
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.resampling import extra_tokens
from distill_jax.evaluation.revision_results import by_kind, summary
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.evaluation.solved import Revision, Solved
from distill_jax.inference.agents import Agent
from distill_jax.inference.store import AnswerStore
from distill_jax.report import solving
from tests.evaluation.scripted import CUT, prompts_of, solver
from tests.evaluation.test_solve_results import PROBLEMS
from tests.evaluation.test_solver import AGENTS, EVERYTHING, QUESTIONS, is_review, noisy


def both(found, questions):
    """(solved with revisions, the control)."""
    plain, prompts = prompts_of(found, questions)
    solved = found.solve(questions, plain, prompts)
    return solved, resampling.resampled(found, questions, plain, prompts, solved)


def test_slots_with_evidence_are_drawn_again_from_their_own_prompt():
    asked = []

    def say(prompt, number, attempt, key):
        if is_review(prompt, "revise"):
            return "is it now 7 or 8 or even 9, then\n#### 9"
        asked.append(prompt)
        firsts = [f"lost{CUT}", "#### 4", "#### 4"]
        return firsts[attempt] if len(asked) <= len(firsts) else "#### 4"

    found = solver(say, attempts=3, rounds=1)
    (solved,), (other,) = both(found, QUESTIONS[:1])
    assert [c.answer for c in solved.kept] == ["9", "4", "4"]
    assert [r.kinds for r in solved.revisions] == [("truncated", "no_answer")]
    # One short sample does not take the tokens of the long revision: so there are several.
    spent, budget = extra_tokens(other), extra_tokens(solved)
    samples = [c for c in other.all if c.round]
    assert [c.slot for c in samples] == [(0, 0)] * len(samples) and len(samples) > 1
    assert budget <= spent < budget + len(samples[-1].tokens)
    # The first replaces the one without an answer, the others are no better.
    assert [(c.round, c.answer) for c in other.kept] == [(1, "4"), (0, "4"), (0, "4")]
    assert other.first == solved.first and other.revisions == ()
    assert len(set(asked)) == 1 and len(asked) == 3 + len(samples)


def test_slots_whose_prompt_had_no_room_are_not_drawn_again():
    found = solver(lambda *_: "#### 4", attempts=4, rounds=1)
    plain, prompts = prompts_of(found, QUESTIONS[:1])
    (other,) = resampling.resampled(found, QUESTIONS[:1], plain, prompts, [FIRST])
    # 18 tokens of revisions; slots 0 and 1 in turn.
    samples = [c.slot[1] for c in sorted(other.all, key=lambda c: c.round) if c.round]
    assert samples == [0, 1] * (len(samples) // 2) + [0] * (len(samples) % 2) and samples


def test_nothing_is_drawn_where_nothing_was_revised():
    found = solver(lambda *_: "#### 4", attempts=3, rounds=2)
    (solved,), (other,) = both(found, QUESTIONS[:1])
    assert solved.revisions == () and other == Solved(solved.kept, [])
    assert found.sampler.calls == [3]


def test_with_everything_it_does_not_depend_on_batches_or_a_kill(tmp_path: Path):
    def made(path=None, **more):
        found = solver(noisy, AGENTS, **EVERYTHING, **more)
        return dataclasses.replace(found, store=AnswerStore(path, {}) if path else None)

    whole = made(tmp_path / "whole.jsonl", batch=2)
    solved, other = both(whole, QUESTIONS)
    for one, control in zip(solved, other, strict=True):
        assert extra_tokens(control) >= extra_tokens(one) > 0
        revised = {r.slot for r in one.revisions if r.revised}
        assert {c.slot for c in control.all if c.round} <= revised
    assert any(c.verdict for one in other for c in one.all if c.round)
    assert str(both(made(batch=5), QUESTIONS)) == str((solved, other))
    assert str(both(made(), QUESTIONS[:1])[1]) == str(other[:1])
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if b"resample" in line)
    for number in (first, first + 1, len(lines) - 1):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(b"".join(lines[:number]) + b'{"deco')
        assert str(both(made(path, batch=2), QUESTIONS)) == str((solved, other))
        assert path.read_bytes() == b"".join(lines)


# --- figures --------------------------------------------------------------------------------------


def one(attempt, right, round_=0, tokens=10, **more):
    return Candidate(0, attempt, "", (1,) * tokens, answer="1", round=round_, right=right, **more)


def revision(attempt, round_, kinds, old=0, kept=False, revised=True):
    return Revision((0, attempt), round_, kinds, old, revised, kept)


# Four slots: fixed in the second round; broken; wrong and its prompt without room; right, no
# evidence. A second problem of four: right, undecided and two wrong ones without evidence.
FIRST = Solved(
    [one(0, True, 2, 7), one(1, False, 1, 5), one(2, False), one(3, True)],
    [one(0, False), one(0, False, 1, 6), one(1, True)],
    None,
    (
        revision(0, 1, ("crash",)),
        revision(1, 1, ("step", "disagreement"), kept=True),
        revision(2, 1, ("crash",), revised=False),
        revision(0, 2, ("crash", "step"), kept=True),
        revision(2, 2, ("crash",), revised=False),
    ),
)
SECOND = Solved([one(0, True), one(1, None), one(2, False), one(3, False)], [])


def test_kinds_count_candidates_in_each_round():
    assert by_kind([FIRST, SECOND]) == {
        "step": {"triggered": 2, "wrong": 1, "fixed": 1, "broken": 1},
        "crash": {"triggered": 4, "wrong": 4, "fixed": 1, "broken": 0},
        "disagreement": {"triggered": 1, "wrong": 0, "fixed": 0, "broken": 1},
    }


def test_before_and_after():
    found = summary([FIRST, SECOND], None)
    # Triggered: slots 0, 1, 2; wrong of them 0 and 2. Wrong of all: these and two of the second.
    assert (found["triggered"], found["revised"]) == (3, 2)
    assert found["precision"] == 2 / 3 and found["recall"] == 2 / 4
    assert (found["fixed"], found["broken"], found["unchanged"]) == (1, 1, 1)
    # First 2 of 4 and 1 of 4; kept 2 of 4 and 1 of 4. More tokens: 7 + 6 + 5 and none.
    assert found["pass@1_before"]["mean"] == found["pass@1_after"]["mean"] == 3 / 8
    assert found["difference"]["mean"] == 0 and found["tokens"] == 9
    assert found["resampled"] is None


def test_the_control_has_the_same_first_candidates():
    control = Solved(
        [one(0, True, 1, 9), one(1, True), one(2, False), one(3, True)],
        [one(0, False), one(1, False, 1, 9)],
    )
    found = summary([FIRST, SECOND], [control, SECOND])["resampled"]
    assert (found["samples"], found["tokens"]) == (2, 9)
    # Of the two slots that were drawn again one is fixed.
    assert (found["fixed"], found["broken"], found["unchanged"]) == (1, 0, 1)
    assert found["pass@1_after"]["mean"] == (3 / 4 + 1 / 4) / 2
    # 2/4 less 3/4, and 0: paired by problem.
    assert found["revision_less_this"]["mean"] == -1 / 8


def test_no_evidence_at_all():
    found = summary([SECOND], [SECOND])
    assert found["precision"] is None and found["recall"] == 0 and found["kinds"] == {}
    assert found["resampled"]["samples"] == 0 == found["tokens"]


def test_the_report_has_both_in_one_table():
    settings = SolveSettings(attempts=4, rounds=2)
    found = solve_results.summary(
        PROBLEMS, [FIRST, SECOND], None, [Agent("a")], settings, seed=0, seconds=None,
        resampled=[FIRST, SECOND],
    )  # fmt: skip
    assert [r["kinds"] for r in found["results"][0]["revisions"]][1] == ("step", "disagreement")
    section, _ = solving.sections(SimpleNamespace(solved={"solve": found}))
    tables = [block for block in section.blocks if hasattr(block, "header")]
    (table,) = [block for block in tables if "unchanged" in block.header]
    assert [row[0] for row in table.rows] == [
        "first candidates", "after revision", "new samples instead",
    ]  # fmt: skip
    assert table.rows[1][3:] == ["1", "1", "1", "9"]
    assert "revision less new samples, points: 0.0 [" in table.caption
    (kinds,) = [block for block in tables if block.header[0] == "evidence"]
    assert kinds.rows[1] == ["crash", "4", "4", "1", "0"]
    texts = " ".join(getattr(block, "text", "") for block in section.blocks)
    assert "evidence against 3 candidates; 66.7% of them were wrong" in texts
    assert "prompts of 1 had no room" in texts


@pytest.mark.parametrize("rounds", [0, 2])
def test_without_rounds_there_is_no_control(rounds):
    found = solver(noisy, attempts=3, rounds=rounds)
    solved, other = both(found, QUESTIONS)
    assert any(one.revisions for one in solved) == bool(rounds)
    assert any(c.round for one in other for c in one.all) == bool(rounds)
