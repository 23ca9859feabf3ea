"""Statistics over seeds, by hand and beside scipy."""

import json
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from distill_jax.experiments import comparison, results
from distill_jax.report.view import save
from tests.report.views import LONG


def row(arm: str, seed: int, greedy: float, curve=()) -> dict:
    return {"arm": arm, "seed": seed, "greedy": greedy, "curve": list(curve)}


def test_interval_by_hand() -> None:
    # mean 2, s = 1, t(2, .975) = 4.30265, half = 4.30265 / √3 = 2.48414
    assert comparison.over_seeds([1, 2, 3]) == pytest.approx((2, -0.48414, 4.48414), abs=1e-5)
    assert comparison.over_seeds([0.5]) == (0.5, None, None)
    # A share is within 0 and 1, a difference of shares within ±1.
    assert comparison.over_seeds([0.9, 1.0, 0.8], 0.0, 1.0).high == 1.0
    assert comparison.over_seeds([0.9, -0.9, 0.8], -1.0, 1.0)[1:] == (-1.0, 1.0)


def test_paired_p_is_scipys() -> None:
    a, b = np.array([0.1, 0.5, 0.3]), np.array([0.2, 0.9, 0.35])
    wanted = stats.ttest_rel(b, a).pvalue
    assert comparison.paired_p(list(b - a)) == pytest.approx(wanted, rel=1e-6)
    assert comparison.paired_p([0.25]) is None
    assert comparison.paired_p([0.0, 0.0, 0.0]) == 1.0
    assert comparison.paired_p([0.5, 0.5, 0.5]) == 0.25


def test_margin_of_equality_by_hand() -> None:
    # mean 1, s = 1, t(2, .95) = 2.91999, half = 2.91999 / √3 = 1.68585
    assert comparison.equal_within([0, 0.1, 0.2]) == pytest.approx(0.268585, abs=1e-6)
    assert comparison.equal_within([0, -0.1, -0.2]) == pytest.approx(0.268585, abs=1e-6)
    assert comparison.equal_within([0.0, 0.9]) == 1.0
    assert comparison.equal_within([0.25]) is None and comparison.equal_within([0, 0]) is None


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_margin_is_that_of_two_one_sided_tests(margin: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        found = rng.normal(0.01, 0.02, 5)
        low = stats.ttest_1samp(found, -margin, alternative="greater").pvalue
        high = stats.ttest_1samp(found, margin, alternative="less").pvalue
        least = comparison.equal_within(list(found))
        assert least is not None
        assert (least < margin) == (max(low, high) < 0.05)


def test_holm_by_hand() -> None:
    # Sorted .01·4, .02·3, .03·2, .5·1; each at least the one before it.
    assert comparison.holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert comparison.holm([]) == []


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_between_none_and_bonferroni(p_values: list[float]) -> None:
    found = comparison.holm(p_values)
    for p, adjusted in zip(p_values, found, strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p) + 1e-12


def test_changes_pair_by_seed_and_leave_lonely_seeds_out() -> None:
    rows = [row("a", 0, 0.1), row("a", 1, 0.6), row("b", 1, 0.8), row("b", 0, 0.2)]
    rows += [row("b", 2, 0.9), row("c", 7, 0.5)]
    found = comparison.changes(rows, ["a", "b", "c"], "a", "greedy")
    assert list(found) == ["b"]
    assert found["b"].interval.mean == pytest.approx(0.15)
    assert found["b"].p_value == pytest.approx(stats.ttest_rel([0.2, 0.8], [0.1, 0.6]).pvalue)


def test_more_arms_need_more_evidence() -> None:
    rng = np.random.default_rng(0)
    rows = [row("a", seed, 0.1 + 0.01 * rng.random()) for seed in range(3)]
    rows += [row("b", seed, 0.2 + 0.02 * rng.random()) for seed in range(3)]
    alone = comparison.changes(rows, ["a", "b"], "a", "greedy")["b"]
    rows += [row(f"n{k}", s, 0.1 + rng.random()) for k in range(9) for s in range(3)]
    names = ["a", "b", *(f"n{k}" for k in range(9))]
    among = comparison.changes(rows, names, "a", "greedy")["b"]
    assert alone.adjusted == alone.p_value and among.p_value == alone.p_value
    assert among.adjusted == pytest.approx(10 * alone.p_value)


def test_band_ends_with_the_shortest_curve() -> None:
    def curve(end: int, slope: float) -> list[dict]:
        return [{"tokens": t, "accuracy": slope * t} for t in range(0, end + 1, 10)]

    found = comparison.band(
        [row("a", 0, 0, curve(100, 0.002)), row("a", 1, 0, curve(60, 0.004))], points=7
    )
    assert found is not None
    np.testing.assert_allclose(found["tokens"], np.arange(0, 61, 10))
    np.testing.assert_allclose(found["mean"], 0.003 * np.arange(0, 61, 10))
    np.testing.assert_allclose(found["low"], 0.002 * np.arange(0, 61, 10))
    assert comparison.band([row("a", 0, 0)]) is None


def test_convergence_by_hand() -> None:
    # Five values: w = 1, no average. Wanted .2 + .95·(.9 − .2) = .865, reached at the third.
    accuracy = [0.2, 0.7, 0.88, 1.0, 0.9]
    curve = [
        {"step": 10 * i, "tokens": 100 * i, "accuracy": value} for i, value in enumerate(accuracy)
    ]
    assert results.convergence(curve) == {"gain_steps": 20, "gain_tokens": 200}
    nothing = {"gain_steps": None, "gain_tokens": None}
    assert results.convergence(curve[:2]) == results.convergence([]) == nothing
    assert results.convergence(curve[::-1][1:]) == nothing  # it fell


def test_a_curve_counts_the_tokens_of_the_stages_before(tmp_path: Path) -> None:
    def write(path: str, *rows: dict[str, float]) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    write("sft/metrics.jsonl", {"step": 1, "num_tokens": 40}, {"step": 2, "num_tokens": 100})
    first = {"step": 0, "eval/accuracy": 0.25}
    write(
        "rl/metrics.jsonl", first, {"step": 1, "num_tokens": 7}, {"step": 1, "eval/accuracy": 0.5}
    )
    measured = {"accuracy": {"mean": 0.5}, "mean_length": 1.0, "terminated": 1.0}
    sampled = {"pass@1": {"mean": 0.5}, "pass@k": {k: {"mean": int(k) / 20} for k in "12"}}
    sampled["pass@k"]["10"] = {"mean": 0.75}
    save(LONG, tmp_path)
    # Not of the chain that led to rl.
    write("distill/metrics.jsonl", {"step": 1, "num_tokens": 5000})
    result = {"greedy": measured, "sampled": sampled, "samples": 10, "problems": []}
    write("results/rl.json", result)
    found = results.collect(tmp_path, "arm", 0)
    assert [point["tokens"] for point in found["curve"]] == [100, 107]
    assert found["tokens"] == {"sft": 100, "rl": 7, "all": 107}
    assert found["pass@k"] == 0.75 and found["samples"] == 10
