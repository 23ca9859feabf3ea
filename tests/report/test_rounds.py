"""What a report says of self-evolution and of preference training, from figures by hand."""

from distill_jax.report import guard, rounds
from distill_jax.report.run_data import RunData, StageRecord
from distill_jax.report.sections import Bullets, Text

HELD = {"problems": 64, "pass@1": 0.5, "pass@k": 0.75, "mean_tokens": 30.25}
FIGURES = {
    "k": 8, "threshold": 0.6, "student_of_round": 1, "stopped": "pass@k fell",
    "rounds": [
        {"round": 0, "held_out": HELD},
        {
            "round": 1, "tried": 800, "right": 300, "accepted": 120, "trained_on": 110,
            "newly_solved": 70, "problems": 100, "held_out": {**HELD, "pass@1": 0.625},
            "reward_model": {"precision": 0.875, "problems_it_may_know": 40},
            "exploration": {
                "problems": 9, "tokens": 120, "solved": 3,
                "fresh": {"problems": 5, "tokens": 118, "solved": 1},
            },
        },
        {
            "round": 2, "tried": 800, "right": 310, "accepted": 20, "trained_on": 115,
            "newly_solved": 4, "problems": 100, "held_out": HELD, "reward_model": None,
            "exploration": None,
        },
    ],
}  # fmt: skip
GUARD = {
    "problems": 200, "margin": 1.0, "right_in_both": 90,
    "accuracy": {
        "before": {"mean": 0.5, "low": 0.43, "high": 0.57},
        "after": {"mean": 0.47, "low": 0.4, "high": 0.54},
    },
    "difference": {"mean": -0.03, "low": -0.06, "high": 0.01, "p_value": 0.125},
    "tokens": {"before": 40.0, "after": 28.5},
    "terminated": {"before": 1.0, "after": 0.995},
}  # fmt: skip


def data(name, figures):
    return RunData("run", stages=[StageRecord(name, figures=figures)])


def test_rounds():
    (section,) = rounds.sections(data("evolve", FIGURES))
    table, remarks = section.blocks
    assert table.header[-2] == "pass@8"
    assert table.rows == [
        ["0", "", "", "", "", "", "0.500", "0.750", "30.2"],
        ["1", "300 of 800", "120", "110", "70", "0.875", "0.625", "0.750", "30.2"],
        ["2", "310 of 800", "20", "115", "4", "–", "0.500", "0.750", "30.2"],
    ]
    assert table.caption == "64 validation problems, 8 samples each"
    assert isinstance(remarks, Bullets) and len(remarks.items) == 3
    assert remarks.items[0] == "The student is that of round 1; pass@k fell."
    assert "may have been trained on 40 of these 100 problems" in remarks.items[1]
    assert "3 of 9 problems solved by writing on" in remarks.items[2]
    assert "fresh samples solved 1 of 5 (118 tokens)" in remarks.items[2]
    assert not list(rounds.sections(data("rl", {"steps": 3})))


def test_guard():
    (section,) = guard.sections(data("dpo", {"guard": GUARD, "regressed": False, "steps": 9}))
    (table,) = section.blocks
    assert table.rows == [
        ["before", "50.0 [43.0, 57.0]", "40.0", "100.0"],
        ["after", "47.0 [40.0, 54.0]", "28.5", "99.5"],
    ]
    assert "90 right in both; accuracy changed by -3.0 points [-6.0, +1.0], p = 0.125" in (
        table.caption
    )
    more = {"guard": GUARD, "regressed": True, "ended_by_drift": True, "chosen_drift": -0.25}
    (section,) = guard.sections(data("dpo", more | {"steps": 9}))
    _, regressed, ended = section.blocks
    assert isinstance(regressed, Text) and regressed.style == "warning"
    assert "Stage dpo regressed: accuracy fell by more than 1 points" in regressed.text
    assert "ended at step 9" in ended.text and "lost 0.250 nats per token" in ended.text
    none = {**GUARD, "tokens": {"before": None, "after": None}}
    (section,) = guard.sections(data("dpo", {"guard": none, "regressed": False}))
    assert [row[2] for row in section.blocks[0].rows] == ["–", "–"]
    assert not list(guard.sections(data("dpo", {"steps": 3})))
