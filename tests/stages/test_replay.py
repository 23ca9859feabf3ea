"""Stage rl with replay: groups of earlier steps are trained on, and stopped it goes on the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.stages.rl_step import RLStep
from distill_jax.training.records import read_rows
from tests.stages import test_credit
from tests.stages.small import small, weights
from tests.stages.stopping import sigterm

pytestmark = pytest.mark.slow

# Half of the groups of two coins are equal. With what else a policy batch can hold.
REPLAY: dict[str, Any] = {
    "rl__rewards__credit": "sequence",
    "rl__rewards__student_weight": 0.0,
    "rl__rewards__intrinsic_weight": 0.0,
    "rl__rewards__correctness_weight": 0.0,
    "rl__rewards__custom": "distill_jax.rewards.controls:coin",
    "rl__replay__groups": 3,
    "rl__samples_per_prompt": 2,
    "rl__prompts_per_step": 8,
    "rl__minibatches": 2,
    "rl__group__beta": 0.01,
    "rl__group__top_entropy": 0.8,
    "rl__steps": 4,
}


def test_stopped_it_goes_on_to_the_same_bits(begun: Path, tmp_path: Path) -> None:
    whole = test_credit.run(begun, tmp_path / "whole", **REPLAY)
    shares = [row["replay/share"] for row in whole]
    assert shares[0] == 0 and max(shares) > 0 and len(whole) == 4
    for row in whole:
        assert np.isfinite(row["loss"]) and row["replay/kept"] <= 3
        # An equal group stays where nothing is kept for it.
        assert row["replay/share"] <= row["frac_reward_zero_std"] + 1e-6
    shown = read_rows(tmp_path / "whole" / "rl" / "completions.jsonl")
    assert {row["custom"] for row in shown} == {0.0, 1.0}
    with sigterm(RLStep, 1, "saved at step 2 of 4"):
        test_credit.run(begun, tmp_path / "broken", **REPLAY)
    assert test_credit.run(begun, tmp_path / "broken", **REPLAY) == whole
    assert weights(tmp_path / "broken", "rl") == weights(tmp_path / "whole", "rl")
    # With one update a rollout, too, replay stores the log-probabilities before the update.
    one = test_credit.run(begun, tmp_path / "one", **{**REPLAY, "rl__minibatches": 1})
    assert max(row["replay/share"] for row in one) > 0 and one[0]["replay/share"] == 0
    without = test_credit.run(begun, tmp_path / "off", **{**REPLAY, "rl__replay__groups": 0})
    # Without replay prompts are shared: other last bits.
    assert without[0]["grad_norm"] == pytest.approx(whole[0]["grad_norm"], rel=1e-5)
    assert weights(tmp_path / "off", "rl") != weights(tmp_path / "whole", "rl")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm": "ppo"}, "replay.groups=3 with algorithm=ppo"),
        ({"rewards__intrinsic_weight": 0.5}, "replay.groups=3 with rewards.intrinsic_weight=0.5"),
    ],
)
def test_refused_where_no_group_is_without_an_advantage(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small(rl__replay__groups=3, **{f"rl__{name}": value for name, value in changes.items()})
