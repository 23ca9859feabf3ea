"""Arms as text, their settings, and what they share with the base."""

from pathlib import Path
from typing import Any

import pytest

from configs import presets
from distill_jax.core.errors import ConfigError
from distill_jax.experiments import arms
from tests.stages.small import small

BASE = presets.smoke()


def test_parse_by_hand() -> None:
    found = arms.parse(["both:", "long: sft.steps=7; stages=('sft', 'evaluate')", "plain"], BASE)
    assert found == [
        ("both", {}),
        ("long", {"sft.steps": 7, "stages": ("sft", "evaluate")}),
        ("plain", {}),
    ]
    text = "x: rl.rewards.custom=a.b:c; rl.algorithm=ppo"
    assert arms.parse([text], BASE)[0].changes == {
        "rl.rewards.custom": "a.b:c",
        "rl.algorithm": "ppo",
    }


@pytest.mark.parametrize(
    "texts, said",
    [
        ([""], "a new name"),
        (["a b: seed=1"], "a new name"),
        (["../up:"], "a new name"),
        (["shared:"], "a new name"),
        (["a:", "a: seed=1"], "a new name"),
        (["a: rl.steps"], "setting=value"),
        (["a: rl.stesp=3"], "rl.steps"),
        (["a: seed=3"], "experiment.seeds"),
        (["..: rl.steps=3"], "a new name"),
        (["all_results.json: rl.steps=3"], "a new name"),
        (["a: experiment.seeds=(1,)"], "settings of a run"),
    ],
)
def test_wrong_arms_are_told(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arms.parse(texts, BASE)


def test_an_arm_without_samples_is_refused() -> None:
    (arm,) = arms.parse(["a: evaluate.samples=0"], BASE)
    with pytest.raises(ConfigError, match="arm a has evaluate.samples=0; wanted: at least 1"):
        arms.config_of(BASE, arm, 0)


def test_an_arm_that_sets_what_it_ignores_is_refused(tmp_path: Path) -> None:
    def check(*texts: str, given: tuple[str, ...] = (), **changes: Any) -> None:
        base = small(**changes)
        arms.refuse_ignored(base, arms.parse(texts, base), tmp_path, given)

    off = "rl.rewards.intrinsic_weight=0.0"
    check(f"a: {off}", f"b: {off}; rl.rewards.format_weight=1.0")  # the preset's momentum
    with pytest.raises(ConfigError, match=r"rl.rewards.clip=1.0 with rl.rewards.intrinsic_weight"):
        check("a:", f"b: {off}; rl.rewards.clip=1.0")
    # A setting of the command line is for all arms: one that reads it is enough.
    clip = {"rl__rewards__clip": 1.0, "given": ("rl.rewards.clip",)}
    check("a:", f"b: {off}", **clip)
    with pytest.raises(ConfigError, match=r"rl.rewards.clip=1.0 with"):
        check(f"a: {off}", f"b: {off}", **clip)


def test_settings_of_a_run() -> None:
    base = small(experiment__arms=("a:",))
    (arm,) = arms.parse(["a: rl.rewards.correctness_weight=2; rl.rewards.form=raw"], BASE)
    config = arms.config_of(base, arm, 5)
    assert (config.seed, config.experiment.arms) == (5, ())
    assert (
        config.plan["rl"].rewards.correctness_weight == 2.0
        and config.plan["rl"].rewards.form == "raw"
    )
    assert arms.config_of(base, None, 1).plan == base.plan
    for wrong in ("stages=rl", "rl.algorithm=2", "rl.steps='few'"):
        with pytest.raises(ConfigError, match="arm a has .*; wanted: as "):
            arms.config_of(base, arms.parse([f"a: {wrong}"], BASE)[0], 0)
    with pytest.raises(ConfigError, match="above|more than|at least"):
        arms.config_of(base, arms.parse(["a: rl.steps=0"], BASE)[0], 0)


@pytest.mark.parametrize(
    "change, shared",
    [
        ("rl.steps=9", ("pretrain", "sft")),
        ("evaluate.samples=1", ("pretrain", "sft", "rl")),
        ("sft.steps=9", ("pretrain",)),
        ("lora.rank=2", ("pretrain",)),
        ("sampling.temperature=0.5", ("pretrain", "sft")),
        ("sampling.max_new_tokens=20", ()),
        ("sampling.segment=4", ("pretrain", "sft", "rl")),
        ("rl.max_skipped=3", ("pretrain", "sft", "rl")),
        ("stages=('pretrain', 'rl', 'evaluate')", ("pretrain",)),
    ],
)
def test_stages_in_common(change: str, shared: tuple[str, ...]) -> None:
    base = arms.config_of(small(), None, 0)
    arm = arms.config_of(small(), arms.parse([f"a: {change}"], BASE)[0], 0)
    assert arms.shared_stages(base, arm) == shared
