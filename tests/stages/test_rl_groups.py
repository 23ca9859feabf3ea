"""Stage rl with each prompt computed once learns what it learns with prompts in each row."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.models.qwen import QwenModel
from distill_jax.rewards.length_buckets import BucketSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.stages import runner
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.training.replay import ReplaySettings
from tests.stages.small import copy_stages, rows, small

pytestmark = pytest.mark.slow

WAYS: dict[str, dict[str, Any]] = {
    "grpo": {"algorithm": "grpo", "group__beta": 0.1, "accumulate": 2},
    "ppo": {"algorithm": "ppo", "ppo__kl_coef": 0.1, "num_iterations": 2, "minibatches": 2},
    "exact": {"rewards__credit": "exact", "rewards__student_weight": 1.0},
    "exact, own prompts": {
        "rewards__credit": "exact",
        "rewards__student_weight": 1.0,
        "minibatches": 2,
        "teacher__prompt": "{question} Think.",
        "teacher__max_prompt_tokens": 64,
    },
    "teacher": {"rewards__intrinsic_weight": 0.5},
    "lengths": {"algorithm": "dapo", "drawn_lengths": 2, "num_iterations": 2},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stage_learns_what_it_learns_with_whole_rows(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    grouped: set[bool] = set()
    real = QwenModel.hidden

    def hidden(
        model: QwenModel, params: Any, tokens: Any, *, groups: Any = None, **how: Any
    ) -> Any:
        grouped.add(groups is not None)
        return real(model, params, tokens, groups=groups, **how)

    monkeypatch.setattr(QwenModel, "hidden", hidden)
    how: dict[str, Any] = {f"rl__{name}": value for name, value in WAYS[way].items()}
    found = []
    for shared in (True, False):
        jax.clear_caches()  # traced again
        monkeypatch.setattr(RLSettings, "shares_prompts", lambda self, shards, to=shared: to)
        workdir = copy_stages(begun, tmp_path / str(shared), "pretrain", "sft")
        grouped.clear()
        runner.run(small(stages=("rl",), rl__steps=3, **how), workdir)
        assert (True in grouped) == shared
        found.append(rows(workdir, "rl"))
    for got, want in zip(*found, strict=True):
        assert got.keys() == want.keys()
        for figure in want:
            np.testing.assert_allclose(
                got[figure], want[figure], rtol=2e-3, atol=1e-4, err_msg=figure
            )


def settings(**changes: Any) -> RLSettings:
    return RLSettings(prompts_per_step=8, samples_per_prompt=4, **changes)


def test_prompts_are_shared_where_each_device_has_whole_groups() -> None:
    assert settings().shares_prompts(8)
    assert settings(accumulate=4).shares_prompts(2)
    assert not settings(accumulate=4).shares_prompts(4)
    assert not settings(minibatches=2).shares_prompts(8)
    assert not RLSettings(algorithm="ppo", samples_per_prompt=1).shares_prompts(1)
    assert settings().teacher_shares_prompts(8) and not settings().teacher_shares_prompts(16)
    assert not settings(cache=CacheSettings(megabytes=1.0)).teacher_shares_prompts(8)
    assert not settings(buckets=BucketSettings(lengths=2)).teacher_shares_prompts(8)
    rewards = RewardSettings(intrinsic_weight=0.0)
    assert settings(rewards=rewards).shares_prompts(8)
    assert not settings(rewards=rewards, replay=ReplaySettings(groups=8)).shares_prompts(8)


def test_minibatches_hold_whole_groups_where_these_divide() -> None:
    assert settings(minibatches=2).drawn_parts == 8
    assert settings(minibatches=16).drawn_parts == 32
