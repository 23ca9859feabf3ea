"""Stage rl with term length in each of its forms, and with more samples than it trains on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.rewards.length import FORMS
from distill_jax.rollout.sampler import Rollout, Sampler
from distill_jax.stages import runner
from distill_jax.stages.rl_step import RLStep
from distill_jax.tasks import Judged, TextTask
from tests.stages.small import copy_stages, rows, small, weights
from tests.stages.stopping import sigterm

pytestmark = pytest.mark.slow

BASE: dict[str, Any] = {
    "stages": ("rl",),
    "rl__start": "base",
    "rl__algorithm": "dapo",
    "rl__rewards__intrinsic_weight": 0.0,
    "rl__eval_every": 0,
    "records__every": 1,
}
ON = {"rl__rewards__length_weight": 1.0, "rl__rewards__length__gate": 0.5}
NEEDS = {
    "lcpo_exact": {"rl__rewards__length__target": 4},
    "lcpo_max": {"rl__rewards__length__target": 4},
    "dapo_overlong": {"rl__rewards__length__buffer": 20},
}


def judged(right_B: np.ndarray) -> Judged:
    count = len(right_B)
    return Judged(right_B, np.zeros(count, bool), [{}] * count, [None] * count)


def train_at_once(patch: pytest.MonkeyPatch) -> None:
    """Completions of the tiny model end after 2 to 9 tokens, or not at all, and 7 of 8 are right:
    as it is, it never ends one and is never right."""
    real = Sampler.generate

    def ending(self: Sampler, *args: Any, **how: Any) -> Rollout:
        out = real(self, *args, **how)
        length_B = np.where(
            out.tokens_BR[:, 1] % 8 == 7, out.tokens_BR.shape[1], 2 + out.tokens_BR[:, 0] % 8
        ).astype(np.int32)
        keep_BR = np.arange(out.tokens_BR.shape[1]) < length_B[:, None]
        return Rollout(
            np.where(keep_BR, out.tokens_BR, self.pad_id), length_B,
            length_B < out.tokens_BR.shape[1], np.where(keep_BR, out.behaviour_logp_BR, 0),
        )  # fmt: skip

    def judge(self: TextTask, problems: Any, texts: Any, ended_B: np.ndarray) -> Judged:
        return judged(np.array([sum(text.encode()) % 8 != 0 for text in texts]))

    patch.setattr(Sampler, "generate", ending)
    patch.setattr(TextTask, "judge", judge)


@pytest.fixture(autouse=True)
def trained_already(monkeypatch: pytest.MonkeyPatch) -> None:
    train_at_once(monkeypatch)


def run(begun: Path, workdir: Path, **changes: Any) -> list[dict[str, Any]]:
    """Metrics of each step."""
    if not workdir.exists():
        copy_stages(begun, workdir, "pretrain")
    runner.run(small(**{**BASE, **changes}), workdir)
    return [row for row in rows(workdir, "rl") if "loss" in row]


@pytest.fixture(scope="module")
def plain(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps without the term."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        train_at_once(patch)
        run(begun, workdir)
    return workdir


@pytest.mark.parametrize("form", FORMS)
def test_two_steps(begun: Path, plain: Path, tmp_path: Path, form: str) -> None:
    how = {**ON, "rl__rewards__length__form": form, **NEEDS.get(form, {})}
    found = run(begun, tmp_path / "run", **how)
    assert len(found) == 2 and all(np.isfinite(row["loss"]) for row in found)
    for row in found:
        assert row["length/open"] > 0 and row["length/bonus"] > 0
        assert row["length/reversed"] == 0 and 2 <= row["length/tokens_right"] <= 9
        assert "completions/mean_length" in row and "rewards/length/mean" in row
    assert weights(tmp_path / "run", "rl") != weights(plain, "rl")


def test_a_weight_of_0_is_without_the_term_to_the_bit(
    begun: Path, plain: Path, tmp_path: Path
) -> None:
    found = run(begun, tmp_path / "run", rl__rewards__length_weight=0.0, rl__oversample=1)
    assert found == [row for row in rows(plain, "rl") if "loss" in row]
    assert not any(name.startswith(("length", "oversample")) for row in found for name in row)
    assert weights(tmp_path / "run", "rl") == weights(plain, "rl")


def test_stopped_it_goes_on_to_the_same_bits(begun: Path, tmp_path: Path) -> None:
    how = {**ON, "rl__oversample": 2, "rl__dynamic_sampling": 1, "rl__steps": 3}
    whole = run(begun, tmp_path / "whole", **how)
    for row in whole:
        kept = row["oversample/kept_right"] + row["oversample/kept_wrong"]
        dropped = row["oversample/dropped_right"] + row["oversample/dropped_wrong"]
        assert kept == dropped and kept % 16 == 0
        assert 0.5 < row["oversample/accuracy"] <= 1 and row["oversample/dropped_tokens"] > 0
    # All draws count, what dynamic sampling discards as well.
    totals = ("num_sampled_tokens", "num_response_tokens")
    sampled, trained = (np.diff([0, *(row[name] for row in whole)]) for name in totals)
    dropped_tokens = [row["oversample/dropped_tokens"] for row in whole]
    rounds = [(r["oversample/kept_right"] + r["oversample/kept_wrong"]) // 16 for r in whole]
    more = sampled - trained - dropped_tokens
    np.testing.assert_array_equal(more > 0, [n > 1 for n in rounds])
    with sigterm(RLStep, 1, "saved at step 2 of 3"):
        run(begun, tmp_path / "broken", **how)
    assert run(begun, tmp_path / "broken", **how) == whole
    assert weights(tmp_path / "broken", "rl") == weights(tmp_path / "whole", "rl")
    with pytest.raises(ConfigError, match=r"rl\.rewards\.length_weight=1\.0, now 0\.5"):
        run(begun, tmp_path / "broken", **{**how, "rl__rewards__length_weight": 0.5})


def test_groups_all_right_are_drawn_again_without_the_term_only(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def right(self: TextTask, problems: Any, texts: Any, ended_B: np.ndarray) -> Judged:
        return judged(np.ones(len(texts), bool))

    monkeypatch.setattr(TextTask, "judge", right)
    drawn: list[int] = []
    real = RLStep._draw

    def draw(self: RLStep, weights: Any, ids_P: Any, step: int, number: int) -> Any:
        drawn.append(number)
        return real(self, weights, ids_P, step, number)

    monkeypatch.setattr(RLStep, "_draw", draw)
    with_term = run(begun, tmp_path / "with", rl__dynamic_sampling=1, **ON)
    assert drawn == [0, 0] and all(row["grad_norm"] > 0 for row in with_term)
    drawn.clear()
    without = run(begun, tmp_path / "without", rl__dynamic_sampling=1)
    assert drawn == [0, 1] * 2 and all(row["grad_norm"] == 0 for row in without)
