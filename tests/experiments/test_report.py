"""The report's tables, from rows that are written down here."""

from typing import Any

from distill_jax.experiments import report
from distill_jax.experiments.arms import Arm


def row(arm: str, seed: int, greedy: float) -> dict[str, Any]:
    return {
        "arm": arm, "seed": seed, "greedy": greedy, "pass@1": greedy, "agreement": None,
        "mean_length": 8.0, "tokens": {"all": 1000}, "seconds": {"all": 2.0}, "gain_steps": None,
        "gain_tokens": None, "levels": {"level 1": {"greedy": greedy}}, "subjects": {},
    }  # fmt: skip


def render(*rows: dict[str, Any], failed: tuple[dict[str, Any], ...] = ()) -> str:
    arms = [Arm(name, {}) for name in ("first", "second", "third")]
    return report.render(arms, ["first"], rows, failed, command="run", figure="figure.png")


def test_differences_by_hand() -> None:
    text = render(
        *(row("first", s, 0.5) for s in (0, 1)), row("second", 0, 0.6), row("second", 1, 0.8)
    )
    # Mean .2 of .1 and .3; half the interval is t(1, .975) = 12.7062 times .1.
    assert "| second | +20.0 [-100.0, +100.0] | 0.295 |" in text
    assert "Less first:" in text and "Less second:" not in text
    assert "| second | 2 | 70.0 [0.0, 100.0] |" in text


def test_one_arm_differs_from_nothing() -> None:
    text = render(row("first", 0, 0.5), failed=({"arm": "second", "seed": 0, "error": "broke"},))
    other = render(row("second", 0, 0.5), row("third", 0, 0.5))
    assert "## Differences" not in text + other and "Less first:" not in text
    assert "| first | 1 | 50.0 |" in text and "- second, seed 0: broke" in text
