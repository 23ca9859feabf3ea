"""results.json by hand: verification figures, tokens, curves, revision, plain samples."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from distill_jax.data.problem import Problem
from distill_jax.evaluation import judging, solve_results
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.evaluation.solved import Solved
from distill_jax.inference.agents import Agent
from distill_jax.inference.search import SearchResult
from distill_jax.report import solving
from distill_jax.tasks import Judged

NAN = float("nan")
AGENTS = [Agent("a"), Agent("b", weight=2.0)]
PROBLEMS = [Problem("p0", "What is 1 + 1?", "", "2"), Problem("p1", "What is 2 + 2?", "", "4")]


def one(agent, attempt, answer, right, tokens=10, **more):
    text = "?" if answer is None else f"#### {answer}"
    return Candidate(agent, attempt, text, (1,) * tokens, answer=answer, right=right, **more)


def verdict(said, right, tokens=3):
    return one(0, 0, "2", right, verdict=said, verdict_tokens=tokens)


# The first problem: 2 right, twice with .9 and .2, 5 wrong with .6 of the heavy agent; its first
# candidate was revised. The second: nobody is right, one is cut off without an answer.
FIRST = Solved(
    [
        one(0, 0, "2", True, 4, score=0.9, steps=(0.9,), round=1, revised_from=0, verdict="correct",
            verdict_tokens=3),
        one(0, 1, "2.0", True, 6, score=0.2, steps=(0.2,)),
        one(1, 0, "5", False, 8, score=0.6, steps=(0.6,), verdict="incorrect", verdict_tokens=5),
    ],
    [one(0, 0, "7", False, 10, score=0.1, steps=(0.1,), verdict="incorrect", verdict_tokens=2)],
)  # fmt: skip
SECOND = Solved(
    [
        one(0, 0, "5", False, 5, score=0.5, steps=(0.5,), verdict="correct", verdict_tokens=4),
        one(0, 1, None, False, 9, truncated=True),
        one(1, 0, "6", False, 5, score=0.4, steps=(0.4,), verdict="unsure", verdict_tokens=1),
    ],
    [],
)
PLAIN = [[one(0, 0, "7", False, 10), one(0, 1, "2.0", True, 6)], [one(0, 0, "4", True, 5)]]
SCORED = SolveSettings(
    reward_model="x", verify=1, rounds=1, attempts=2, selector="weighted_verdict"
)


def summary(settings=SCORED, plain=PLAIN):
    return solve_results.summary(
        PROBLEMS, [FIRST, SECOND], plain, AGENTS, settings, seed=0, seconds=1.5
    )


def test_verification_is_a_classifier_of_right_candidates():
    # Decided: correct/right, incorrect/wrong, incorrect/wrong, correct/wrong; of 7 candidates.
    found = solve_results.verification([FIRST, SECOND])
    assert found["verification_rate"] == 4 / 7
    assert found["verification_precision"] == 1 / 2 and found["verification_recall"] == 1
    assert found["verification_f1"] == pytest.approx(2 * 0.5 / 1.5)
    assert (found["verified"], found["verified_unsure"]) == (5, 1)


@pytest.mark.parametrize(
    ("verdicts", "wanted"),
    [
        ([(None, True)], (None, None, None)),
        ([("unsure", True)], (None, None, None)),
        ([("incorrect", False)], (None, None, None)),  # none is right, none is called so
        ([("incorrect", True)], (None, 0.0, None)),
        ([("correct", False)], (0.0, None, None)),
        ([("correct", False), ("incorrect", True)], (0.0, 0.0, None)),
        ([("correct", None), ("correct", True)], (1.0, 1.0, 1.0)),  # undecided by the check
    ],
)
def test_zero_by_zero_is_null(verdicts, wanted):
    found = solve_results.verification([Solved([verdict(*pair) for pair in verdicts], [])])
    names = ("precision", "recall", "f1")
    assert tuple(found[f"verification_{name}"] for name in names) == wanted


def test_selectors_tokens_and_gaps():
    found = summary()
    # weighted: 2 has 1·.9 + 1·.2 = 1.1, 5 has 2·.6 = 1.2; with verdicts 1.1 against 0.
    # majority: weights 1 + 1 against 2, a tie that the better score wins: .9.
    assert {name: one["mean"] for name, one in found["selectors"].items()} == {
        "first": 0.5, "majority": 0.5, "best": 0.5, "weighted": 0.0, "weighted_verdict": 0.5,
    }  # fmt: skip
    assert found["accuracy"] == 0.5 and found["pass_at_n"]["mean"] == 0.5
    assert found["oracle_gap"]["mean"] == 0.0
    # Pairs of the first problem: .9 above .6, .2 below; the second has no right candidate.
    assert found["score_auc"] == 0.5
    assert found["selectors"]["weighted"]["minus_majority"]["mean"] == -0.5
    # All: 4 + 6 + 8 + 10 and verdicts 3 + 5 + 2 = 38; 5 + 9 + 5 and 4 + 1 = 24. The first one
    # with an answer needs its own slot alone: 4 + 10 + 3 + 2 = 19, and 5 + 4 = 9.
    assert found["selectors"]["majority"]["tokens"] == 31
    assert found["selectors"]["first"]["tokens"] == 14
    assert found["tokens"] == {
        "sampled": (10 + 6 + 8 + 19) / 2, "revised": 2, "verified": (10 + 5) / 2, "total": 31,
    }  # fmt: skip
    assert found["truncation_rate"] == 1 / 6 and found["answer_rate"] == 1
    assert found["avg_time"] == 1.5 and found["candidates"] == 3


def test_a_row_shows_the_vote_and_what_each_selector_takes():
    row = summary()["results"][0]
    assert row["votes"] == {"2": 2, "5": 1} and solving.votes(row) == "2: 2, 5: 1"
    # Places among all four candidates; the replaced one comes first.
    assert row["selected"] == {
        "first": 1, "majority": 1, "best": 1, "weighted": 3, "weighted_verdict": 1,
    }  # fmt: skip
    assert [one["kept"] for one in row["candidates"]] == [False, True, True, True]
    assert (row["best_solution"], row["correct"], row["confidence"]) == ("#### 2", True, 1.0)
    assert row["candidates"][3]["agent"] == "b" and row["num_solutions"] == 4
    # The last one wins the weighted vote: 1.2 of 2.3.
    row = summary(dataclasses.replace(SCORED, selector="weighted"))["results"][0]
    assert row["answer"] == "5" and row["confidence"] == pytest.approx(1.2 / 2.3)
    assert json.dumps(row, allow_nan=False)


def test_curves_are_unbiased():
    found = summary()["curves"]
    assert list(found) == ["1", "2", "3"]
    # Problem 1 has 2 of 3 right: pass@1 2/3, pass@2 and pass@3 1. Best of two: scores .9 right,
    # .6 wrong, .2 right: pairs (.9,.6) and (.9,.2) are right, (.6,.2) is wrong: 2/3. Problem 2: 0.
    assert [found[k]["pass"]["mean"] for k in found] == pytest.approx([1 / 3, 1 / 2, 1 / 2])
    assert [found[k]["best"]["mean"] for k in found] == pytest.approx([1 / 3, 1 / 3, 1 / 2])
    # Weighted by agents: (2, 2.0) right, (2, 5) 1·.9 against 2·.6 wrong, (2.0, 5) wrong: 1/3.
    assert found["2"]["weighted"]["mean"] == pytest.approx(1 / 6)
    assert found["2"]["subsets"] == 3 and found["3"]["subsets"] == 1
    without = summary(SolveSettings(attempts=2))["curves"]
    assert list(without["1"]) == ["pass", "majority", "subsets"]


def test_best_of_k_takes_no_candidate_without_an_answer():
    two = [one(0, 0, "2", True, score=0.5), one(0, 1, None, False, score=0.9)]
    found = solve_results.curves([Solved(two, [])], [1.0], SCORED, 0)
    assert [found[k]["best"]["mean"] for k in ("1", "2")] == [0.5, 1.0]


def test_revision_is_in_the_results_where_there_are_rounds():
    assert summary()["revision"]["fixed"] == 1 and summary()["revision"]["resampled"] is None
    assert summary(SolveSettings(attempts=2))["revision"] is None


def test_plain_samples_are_compared_by_the_same_selector():
    found = summary()["plain"]
    assert found["samples"] == 1.5 and found["tokens"] == (16 + 5) / 2
    # majority: a tie of 7 and 2, the first wins: wrong; 4 is right.
    assert found["selectors"]["majority"]["mean"] == 0.5 and found["pass_at_n"]["mean"] == 1
    assert "weighted_verdict" not in found["selectors"]
    assert found["compared_with"] == "weighted"
    # weighted_verdict [1, 0] less weighted of plain samples [0, 1].
    assert found["difference"]["weighted_verdict"]["mean"] == 0
    assert summary(plain=None)["plain"] is None


def test_a_search_costs_all_that_it_drew():
    # Two candidates of 9 and 7 tokens share 4; of five steps of 20 tokens some were dropped.
    found = SearchResult(iterations=2, tokens=20, steps=5, duplicates=1, dropped=2)
    kept = [one(0, 0, "2", True, 9, score=0.5), one(0, 1, "5", False, 7, score=0.4)]
    settings = SolveSettings(
        reward_model="x", search="beam", width=2, verify=1, selector="weighted"
    )
    verified = dataclasses.replace(kept[0], verdict="correct", verdict_tokens=3)
    solved = [
        Solved([verified, kept[1]], [], found),
        Solved(kept[:1], [], SearchResult([], 3, tokens=10)),
    ]
    got = solve_results.summary(PROBLEMS, solved, PLAIN, AGENTS[:1], settings, seed=0, seconds=None)
    assert got["tokens"] == {"sampled": 15, "revised": 0, "verified": 1.5, "total": 16.5}
    costs = {name: one["tokens"] for name, one in got["selectors"].items()}
    assert costs == {**dict.fromkeys(costs, 15), "weighted_verdict": 16.5}
    assert got["search"]["tokens"] == 15 and got["search"]["steps"] == 2.5
    assert got["results"][0]["search"]["duplicates"] == 1 and got["curves"] == {}
    # Shares of .5 of .9, right, and of all votes, right: ECE (4/9 + 0)/2.
    assert got["calibration"]["weighted"]["ece"] == pytest.approx(2 / 9)
    # Plain samples: 7 wins with half of the votes and is wrong, 4 with all and is right.
    assert got["plain"]["calibration"]["majority"]["ece"] == pytest.approx(0.25)
    first, _ = solving.sections(SimpleNamespace(solved={"solve": got}))
    text = " ".join(first.blocks[-1].items)
    assert "2.5 steps and 15 tokens a problem, those of 1.0 dropped beams" in text
    assert "weighted 0.222" in text and "of plain samples majority 0.250" in text
    assert not any("subsets" in getattr(block, "header", ()) for block in first.blocks)


def test_nobody_has_an_answer():
    silent = [Solved([one(0, 0, None, False)], [])] * 2
    for settings in (SCORED, SolveSettings(attempts=1)):
        found = solve_results.summary(
            PROBLEMS, silent, None, AGENTS[:1], settings, seed=0, seconds=None
        )
        row = found["results"][0]
        assert row["best_solution"] is row["answer"] is row["confidence"] is None
        assert row["correct"] is False and row["votes"] == {}
        assert found["accuracy"] == found["answer_rate"] == 0 and found["avg_time"] is None
        assert json.dumps(found, allow_nan=False)


class Half:
    """Judges by the first letter of a text: r right, u undecided."""

    def judge(self, problems, texts, ended_B):
        self.seen = [(p.answer, text, bool(ended)) for p, text, ended in zip(
            problems, texts, ended_B, strict=True)]  # fmt: skip
        first = [text[0] for text in texts]
        right, undecided = (np.array([f == c for f in first]) for c in "ru")
        return Judged(right, undecided, [{} for _ in texts], [None for _ in texts])


def test_judging_is_three_valued_and_needs_a_gold_answer():
    task = Half()
    some = [Candidate(0, i, text, (1,), truncated=i == 1) for i, text in enumerate("rwu")]
    bare = Problem("p", "?", "", "")
    found = judging.judged(task, [PROBLEMS[0], bare], [some, some[:1]])
    assert [one.right for one in found[0]] == [True, False, None]
    assert [one.right for one in found[1]] == [None]
    assert task.seen == [("2", "r", True), ("2", "w", False), ("2", "u", True)]
    assert judging.judged(task, [bare], [some])[0][2].right is None
    undecided = Solved([found[0][2].__class__(0, 0, "u", (1,), answer="3")], [])
    row = solve_results.row(PROBLEMS[0], undecided, AGENTS, SolveSettings(), None)
    assert row["correct"] is None and row["pass_at_n"] is False


def test_steps_of_a_text_are_cut_where_the_scores_fit():
    shown = solving.steps("a\n\nb\nc", [0.95, 0.05])
    assert [(s.text, s.colour) for s in shown] == [("a", "t0"), ("b\nc", "t5")]
    assert [s.text for s in solving.steps("a\n\nb\nc", [0.5, 0.5, 0.5])] == ["a", "b", "c"]
    assert solving.steps("a\nb", [0.5] * 5) == solving.steps("a", []) == []
    # A program has its own steps, though as many paragraphs would fit, too.
    program = "```python\nx = 1\ny = (\n\n2)\n```"
    shown = solving.steps(program, [0.5, 0.95])
    assert [s.text for s in shown] == ["```python\nx = 1", "y = (\n\n2)\n```"]
    assert len(solving.steps(program, [0.5] * 5)) == 5  # of a reward model that reads lines


def test_the_report_shows_every_figure():
    found = summary()
    data = SimpleNamespace(solved={"solve": found})
    first, second = solving.sections(data)
    table = first.blocks[0]
    assert [row[0] for row in table.rows][:5] == list(found["selectors"])
    assert table.rows[3][1].startswith("0.0 [") and table.rows[3][3].startswith("-50.0 [")
    text = " ".join(first.blocks[-1].items)
    assert "precision 0.500, recall 1.000" in text
    # 2 has all votes and is right; 5 has 1·.5 of that and 2·.4·.5, wrong: ECE (0 + .5/.9)/2.
    assert [row[1] for row in first.blocks[3].rows][5:] == ["1", "0", "0", "0", "1"]
    assert "confidence of weighted_verdict: ECE 0.278" in first.blocks[3].caption
    assert "Oracle gap (pass@N less weighted_verdict): 0.0 [" in text
    assert second.only == "html" and len(second.blocks) == 4  # two headings, two problems
