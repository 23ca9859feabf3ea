"""Solving with programs: what is revised, what a reviser reads, and what a resumed run keeps."""

import dataclasses
import sys
from pathlib import Path

import pytest

from distill_jax.data.fences import fenced
from distill_jax.evaluation import evidence, resampling
from distill_jax.inference.store import AnswerStore
from distill_jax.tasks import program_check
from distill_jax.tasks.program_runs import Outcome
from tests.evaluation.scripted import CUT, prompts_of, solve, solver, tok
from tests.evaluation.test_solver import QUESTIONS, is_review

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp")

FOUR = "print(2 + 2)"
WRONG = "x = 2 + 3\nassert x == 4, 'no'\nprint(x)"


def programs(firsts, revise=FOUR):
    """Says these programs to a problem, and `revise` to a revision."""

    def say(prompt, number, attempt, key):
        return f"So:\n{fenced(revise if is_review(prompt, 'revise') else firsts[attempt])}\nIt is."

    return say


def quoted(prompt, part):
    lines = prompt.split(f"<{part}>\n")[1].split(f"\n</{part}>")[0].split("\n")
    assert all(line.startswith("> ") for line in lines)
    return "\n".join(line[2:] for line in lines)


def test_a_failed_assertion_is_revised_with_its_line():
    found = solver(programs([WRONG, FOUR, FOUR]), task="program", attempts=3, rounds=2)
    (solved,) = solve(found, QUESTIONS[:1])
    assert [(c.round, c.answer) for c in solved.kept] == [(1, "4"), (0, "4"), (0, "4")]
    assert [(r.kinds, r.kept) for r in solved.revisions] == [(("assertion",), True)]
    (prompt,) = [p for p in found.sampler.prompts if is_review(p, "revise")]
    # The question, the program without what was said around it, and how it failed.
    assert quoted(prompt, "problem") == QUESTIONS[0]
    assert quoted(prompt, "solution") == fenced(WRONG)
    lines = quoted(prompt, "evidence").split("\n")
    assert lines[-2:] == ["AssertionError: no", "line 2: assert x == 4, 'no'"]
    assert "An assertion of its program fails." in prompt


def test_less_of_the_evidence_is_quoted_where_there_is_less_room():
    def asked(positions):
        found = solver(programs([WRONG]), task="program", positions=positions, attempts=1, rounds=1)
        solve(found, QUESTIONS[:1])
        return [p for p in found.sampler.prompts if is_review(p, "revise")]

    (whole,) = asked(4096)
    length = len(tok()(whole, add_special_tokens=False)["input_ids"]) + 64  # and the completion
    assert asked(length) == [whole]
    (short,) = asked(length - 1)
    assert quoted(short, "evidence") == "AssertionError: no\nline 2: assert x == 4, 'no'"
    (bare,) = asked(length - 150)
    assert "<evidence>" not in bare and "An assertion of its program fails." in bare
    assert asked(200) == []


def test_a_revision_of_several_turns_quotes_less_rather_than_have_no_room_for_outputs():
    def asked(positions, rounds):
        found = solver(programs([WRONG]), task="program", positions=positions, attempts=1, rounds=1)
        limits = dataclasses.replace(found.limits, rounds=rounds, output_tokens=64)
        found.run.config.sampling = limits
        solve(found, QUESTIONS[:1])
        return [p for p in found.sampler.prompts if is_review(p, "revise")]

    (whole,) = asked(4096, 2)
    length = len(tok()(whole, add_special_tokens=False)["input_ids"]) + 64  # and the model's tokens
    assert asked(length + 64, 2) == [whole]
    (short,) = asked(length + 63, 2)
    assert "<evidence>" in short and len(short) < len(whole)
    assert asked(length + 63, 1) == [whole]
    # Where not even the shortest leaves room for an output, the most evidence that fits.
    (bare,) = asked(length - 150, 1)
    assert asked(length - 150, 2) == [bare]


def test_a_failing_revision_is_not_kept():
    firsts = ["print(5)", FOUR, FOUR, "1 / 0"]
    found = solver(programs(firsts, "print(4"), task="program", attempts=4, rounds=2)
    (solved,) = solve(found, QUESTIONS[:1])
    assert [(c.round, c.answer) for c in solved.kept] == [(0, a) for a in ("5", "4", "4", None)]
    assert [(r.slot[1], r.kinds, r.kept) for r in solved.revisions] == [
        (0, ("disagreement",), False), (3, ("crash",), False),
    ] * 2  # fmt: skip


@pytest.mark.parametrize(("rounds", "answer"), [(1, "4"), (2, None)])
def test_of_several_turns_the_answer_of_what_did_not_end_does_not_vote(rounds, answer):
    found = solver(lambda *_: fenced(FOUR) + f"\nSo{CUT}", task="program", attempts=1)
    found.run.data.task.rounds = rounds
    (solved,) = solve(found, QUESTIONS[:1])
    assert [(c.answer, c.truncated) for c in solved.kept] == [(answer, True)]
    reasons = evidence.found(solved.kept[0], solved.kept, 0.5)
    assert [one.kind for one in reasons] == ["truncated"]


def test_what_was_observed_is_kept_for_a_resumed_run(tmp_path: Path, monkeypatch):
    firsts = [WRONG, FOUR, "1 / 0"]

    def made(path):
        found = solver(programs(firsts), task="program", attempts=3, rounds=2, batch=2)
        return dataclasses.replace(found, store=AnswerStore(path, {}))

    def both(found):
        plain, prompts = prompts_of(found, QUESTIONS)
        solved = found.solve(QUESTIONS, plain, prompts)
        return str((solved, resampling.resampled(found, QUESTIONS, plain, prompts, solved)))

    whole = tmp_path / "whole.jsonl"
    wanted = both(made(whole))
    lines = whole.read_bytes().splitlines(keepends=True)
    assert all(b'"observed"' in line for line in lines[1:])
    # Whatever a later run of the programs would find, and wherever the first one was killed.
    timeouts = lambda some, **_: [Outcome("timeout")] * len(some)  # noqa: E731
    monkeypatch.setattr(program_check, "run_programs", timeouts)
    assert both(made(whole)) == wanted
    monkeypatch.undo()
    for number in range(1, len(lines), 2):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(b"".join(lines[:number]) + b'{"deco')
        assert both(made(path)) == wanted and path.read_bytes() == b"".join(lines)
