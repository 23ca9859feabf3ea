"""The report's tables, from rows that are written down here."""

from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.experiments import figures, report
from distill_jax.experiments.arms import Arm
from distill_jax.report import markdown


def row(arm: str, seed: int, greedy: float) -> dict[str, Any]:
    return {
        "arm": arm, "seed": seed, "greedy": greedy, "pass@1": greedy, "pass@k": 1.0, "samples": 8,
        "agreement": None, "mean_length": 8.0, "tokens": {"all": 1000}, "seconds": {"all": 2.0},
        "gain_steps": None, "gain_tokens": None, "levels": {"level 1": {"greedy": greedy}},
        "subjects": {}, "curve": [], "curriculum": [],
    }  # fmt: skip


def render(directory: Path, *rows: dict[str, Any], failed: tuple[dict[str, Any], ...] = ()) -> str:
    arms = [Arm(name, {}) for name in ("first", "second", "third")]
    path = directory / "experiment_report.md"
    markdown.write(report.build(arms, ["first"], rows, failed, command="run"), path, directory)
    return path.read_text(encoding="utf-8")


def test_differences_by_hand(tmp_path: Path) -> None:
    text = render(
        tmp_path,
        *(row("first", s, 0.5) for s in (0, 1)),
        row("second", 0, 0.6),
        row("second", 1, 0.8),
    )
    # Mean .2 of .1 and .3; half the interval is t(1, .975) = 12.7062 times .1.
    assert "| second | +20.0 [-100.0, +100.0] | 0.295 |" in text
    # Equal within 20 + t(1, .95)·10 = 20 + 6.3138·10 points of pass@1.
    assert "| +0.0 [+0.0, +0.0] | 1.000 | 83.1 |" in text and "| pass@8 |" in text
    assert "### Less first\n" in text and "Less second" not in text
    assert "| second | 2 | 70.0 [0.0, 100.0] |" in text


def test_one_arm_differs_from_nothing(tmp_path: Path) -> None:
    text = render(
        tmp_path, row("first", 0, 0.5), failed=({"arm": "second", "seed": 0, "error": "broke"},)
    )
    other = render(tmp_path, row("second", 0, 0.5), row("third", 0, 0.5))
    assert "## Differences" not in text + other and "Less first" not in text
    assert "| first | 1 | 50.0 |" in text and "- second, seed 0: broke" in text


def test_a_significant_difference_is_bold_and_the_figure_is_drawn(tmp_path: Path) -> None:
    seeds = range(3)
    first = [row("first", seed, 0.5) for seed in seeds]
    second = [row("second", seed, 0.6 + 0.001 * seed) for seed in seeds]
    for made in second:
        made["curve"] = [{"tokens": t, "accuracy": t / 20} for t in (0, 10)]
        made["curriculum"] = [{"step": step, "p": {"easy": 0.75, "hard": 0.25}} for step in (1, 2)]
        made["gain_tokens"] = 10
    text = render(tmp_path, *first, *second)
    assert "| second | **+10.1 [" in text and "![comprehensive_comparison](compre" in text
    assert (tmp_path / "comprehensive_comparison.png").stat().st_size > 10_000
    curves, levels, _, selection = figures.plots([*first, *second], ["first", "second", "third"])
    (band,) = curves.series
    assert band.label == "second" and band.y_K[0] == 0 and band.y_K[-1] == 0.5
    assert [bars.colour for bars in levels.series] == [0, 1]
    np.testing.assert_allclose([s.high_K[0] for s in selection.series], [0.75, 1.0])
    assert [s.low_K[0] for s in selection.series] == [0.0, 0.75]  # stacked


def spending(arm: str, seed: int, gain: float, each: float) -> dict[str, Any]:
    """.5 before training; `gain` more after each of two evaluations, which cost 1e12·each."""
    parts = {"sampling": 0.5e12, "update": 1e12, "teacher": 0.5e12, "other": 0.0, "all": 2e12}
    spent = {name: each * value for name, value in parts.items()}
    curve = [
        {
            "flops": each * n * 1e12, "seconds": each * n * 40.0, "tokens": 500 * n,
            "accuracy": 0.5 + gain * n,
        }
        for n in range(3)
    ]  # fmt: skip
    flops = {"parts": spent, "estimated": arm == "third", "missing": ""}
    return {**row(arm, seed, 0.5), "curve": curve, "flops": flops}


def start(seed: int) -> dict[str, Any]:
    parts = dict.fromkeys(("sampling", "update", "teacher", "other", "all"), 0.0)
    return {
        **row("first", seed, 0.5), "tokens": {"all": 0},
        "flops": {"parts": parts, "estimated": False, "missing": ""},
    }  # fmt: skip


def test_arms_at_equal_budgets(tmp_path: Path) -> None:
    seconds = [spending("second", seed, 0.1 + 0.1 * seed, 1.0) for seed in (0, 1)]
    text = render(tmp_path, start(0), start(1), *seconds)
    assert "at the most that all these runs have spent: 2e+12 FLOPs." in text
    assert "| arm | seeds | all, 1e12 FLOPs | sampling | update | teacher | other |" in text
    assert "| first | 2 | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 | 0 | 50.0 [50.0, 50.0] |" in text
    # .7 and .9; t(1, .975) = 12.7 times .1.
    assert "| second | 2 | 2.00 | 0.50 | 1.00 | 0.50 | 0.00 | 1,000 | 80.0 [0.0, 100.0] |" in text
    of_flops, of_seconds = text.split("## At equal FLOPs")[1].split("## At equal seconds")
    for part in (of_flops, of_seconds):
        assert "### Less first" in part and "| second | +30.0 [-97.1, +100.0] | 0.205 |" in part
    assert "have spent: 80 s." in of_seconds and "1e12" not in of_seconds
    assert "alone on equal machines" in of_seconds and "alone on" not in of_flops
    assert "earlier version" not in text and "Not read" not in text


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    unknown = spending("first", 0, 0.0, 1.0)
    unknown["flops"] = {"parts": None, "estimated": False, "missing": "no counts"}
    for point in unknown["curve"]:
        point["flops"] = None
    text = render(tmp_path, unknown, spending("second", 0, 0.1, 1.0), spending("third", 0, 0.2, 2))
    of_flops, of_seconds = text.split("## At equal FLOPs")[1].split("## At equal seconds")
    assert "Not read:\n\n- first, seed 0: no counts" in of_flops and "Less first" not in of_flops
    assert "| third | 1 | 4.00 |" in of_flops and "| 500 | 70.0 |" in of_flops
    assert "Some runs are of an earlier version" in of_flops
    assert "| first | 1 | 1,000 | 50.0 |" in of_seconds and "earlier version" not in of_seconds
    assert "At equal" not in render(tmp_path, row("first", 0, 0.5), row("second", 0, 0.6))
