"""Settings that a user gives and that nothing reads are refused; those of a preset are not."""

import re
from pathlib import Path
from typing import Any

import pytest

from configs import presets
from distill_jax.core import unread
from distill_jax.core.errors import ConfigError
from distill_jax.run.config import RunConfig, build, to_config_dict
from distill_jax.run.given import ignored, refuse_ignored
from distill_jax.run.run import Run
from distill_jax.run.settings import StageSettings
from distill_jax.stages import checks, runner
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.evolve_settings import EvolveSettings


def given(**changes: Any) -> tuple[RunConfig, set[str]]:
    """The preset smoke, all its stages running, with these settings; and their names."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    flat = to_config_dict(presets.smoke())
    flat.stages = flat.plan
    flat.update_from_flattened_dict(named)
    return build(flat), set(named)


NO_TEACHER = {"rl__rewards__intrinsic_weight": 0.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({**NO_TEACHER, "rl__cache__megabytes": 9.0}, "rl.cache.megabytes=9.0 with rl.rewards.int"),
        ({**NO_TEACHER, "rl__buckets__lengths": 4}, "rl.buckets.lengths=4 with rl.rewards.intri"),
        ({**NO_TEACHER, "rl__rewards__form": "raw"}, "rl.rewards.form='raw' with rl.rewards.in"),
        ({**NO_TEACHER, "rl__rewards__sequence": "sum"}, "rl.rewards.sequence='sum' with rl.r"),
        ({**NO_TEACHER, "rl__rewards__normaliser": "robust"}, "rl.rewards.normaliser='robust' w"),
        ({**NO_TEACHER, "rl__rewards__clip": 1.0}, "rl.rewards.clip=1.0 with rl.rewards.intrins"),
        (
            {**NO_TEACHER, "rl__rewards__momentum": 0.5},
            "rl.rewards.momentum=0.5 with rl.rewards.intrinsic_weight=0.0 and rl.rewards.adaptive=",
        ),
        ({**NO_TEACHER, "rl__rewards__adaptive": True}, "rl.rewards.adaptive=True with rl.rewards"),
        (
            {"rl__rewards__normaliser": "z_score", "rl__rewards__momentum": 0.5},
            "rl.rewards.momentum=0.5 with rl.rewards.normaliser='z_score'",
        ),
        ({"rl__rewards__length__gate": 0.5}, "rl.rewards.length.gate=0.5 with rl.rewards.length_w"),
        ({"rl__rewards__custom_weight": 2.0}, "rl.rewards.custom_weight=2.0 with rl.rewards.cust"),
        ({"rl__buckets__rows": 8}, "rl.buckets.rows=8 with rl.buckets.lengths=1"),
        ({"rl__cache__rows": 8}, "rl.cache.rows=8 with rl.cache.megabytes=0.0"),
        ({"rl__group__scale": "none", "rl__group__ddof": 0}, "rl.group.ddof=0 with rl.group.scal"),
        (
            {"rl__group__importance": "none", "rl__group__importance_cap": 3.0},
            "rl.group.importance_cap=3.0 with rl.group.importance='none'",
        ),
        (
            {"rl__group__clip__max_completion_length": 9},
            "rl.group.clip.max_completion_length=9 with rl.algorithm='grpo'",
        ),
        (
            {"rl__algorithm": "cispo", "rl__group__clip__clip_low": 0.1},
            "rl.group.clip.clip_low=0.1 with rl.algorithm='cispo'",
        ),
        (
            {"rl__algorithm": "sapo", "rl__group__clip__clip_high": 0.1},
            "rl.group.clip.clip_high=0.1 with rl.algorithm='sapo'",
        ),
        (
            {"rl__group__clip__temperature_neg": 1.5},
            "rl.group.clip.temperature_neg=1.5 with rl.algorithm='grpo'",
        ),
        (
            {"rl__algorithm": "gmpo", "rl__group__clip__delta": 4.0},
            "rl.group.clip.delta=4.0 with rl.algorithm='gmpo'",
        ),
        (
            {"rl__group__importance": "none", "rl__group__importance_floor": 0.5},
            "rl.group.importance_floor=0.5 with rl.group.importance='none'",
        ),
        ({"rl__group__kl": "unbiased"}, "rl.group.kl='unbiased' with rl.group.beta=0.0"),
        (
            {"rl__algorithm": "ppo", "rl__ppo__lam": 0.5, "rl__ppo__lam_alpha": 0.05},
            "rl.ppo.lam=0.5 with rl.ppo.lam_alpha=0.05",
        ),
        (
            {"rl__algorithm": "ppo", "rl__ppo__value_warmup_explained": 0.1},
            "rl.ppo.value_warmup_explained=0.1 with rl.ppo.value_warmup_steps=0",
        ),
        ({"rl__curriculum__temperature": 0.5}, "rl.curriculum.temperature=0.5 with rl.curriculum"),
        ({"distill__curriculum__pace_steps": 9}, "distill.curriculum.pace_steps=9 with distill.c"),
        (
            {"rl__curriculum__method": "pools", "rl__curriculum__target": 0.4},
            "rl.curriculum.target=0.4 with rl.curriculum.method='pools'",
        ),
        (
            {"rl__curriculum__method": "posterior", "rl__curriculum__pool_weight": 0.4},
            "rl.curriculum.pool_weight=0.4 with rl.curriculum.method='posterior'",
        ),
        ({"rl__curriculum__memory": 1.0}, "rl.curriculum.memory=1.0 with rl.curriculum.method="),
        (
            {"sampling__output_tokens": 99},
            "sampling.output_tokens=99 with sampling.rounds=1",
        ),
        ({"programs__wall_s": 9.0}, "programs.wall_s=9.0 with task='text'"),
        ({"sft__eval_problems": 9}, "sft.eval_problems=9 with sft.eval_every=0"),
        (
            {"sft__optimizer__schedule": "constant", "sft__optimizer__final_fraction": 0.5},
            "sft.optimizer.final_fraction=0.5 with sft.optimizer.schedule='constant'",
        ),
        ({"distill__teacher_samples__problems": 9}, "distill.teacher_samples.problems=9 with dis"),
        (
            {"evaluate__distribution": False, "evaluate__compare_batch": 9},
            "evaluate.compare_batch=9 with evaluate.distribution=False",
        ),
        ({"checkpoint__best_mode": "min"}, "checkpoint.best_mode='min' with checkpoint.keep_best"),
        ({"records__wandb_mode": "offline"}, "records.wandb_mode='offline' with records.wandb=F"),
        ({"data__answer_column": "gold"}, "data.answer_column='gold' with data.source='embedded'"),
        ({"experiment__seeds": (4,)}, "experiment.seeds=(4,) with experiment.arms=()"),
        (
            {"teacher__path": "t", "student__path": "s", "teacher__num_layers": 9},
            "teacher.num_layers=9 with teacher.path='t'",
        ),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    config, names = given(**changes)
    with pytest.raises(ConfigError, match=re.escape(said)):
        refuse_ignored(config, tmp_path, names)


@pytest.mark.parametrize(
    "changes",
    [
        # The preset's momentum is not the user's.
        NO_TEACHER,
        {**NO_TEACHER, "rl__rewards__alpha": 2.0},  # the report's tokens have it
        {**NO_TEACHER, "rl__rewards__format_weight": 1.0, "rl__rewards__adaptive": True,
         "rl__rewards__momentum": 0.5},
        {"rl__cache__megabytes": 9.0, "rl__cache__rows": 8, "rl__buckets__lengths": 4},
        # Several teachers score in buckets in any case.
        {"rl__buckets__rows": 8, "rl__teacher__models": ("a=b",), "rl__teacher__column": "level"},
        # The standard deviation of the batch, with terms that are not divided.
        {"rl__group__scale": "none", "rl__group__ddof": 0, "rl__rewards__aggregation": "gdpo"},
        {"rl__algorithm": "dr_grpo", "rl__group__clip__max_completion_length": 9},
        {"rl__algorithm": "sapo", "rl__group__clip__temperature_pos": 2.0},
        {"rl__algorithm": "gmpo", "rl__group__clip__clip_low": 0.2},
        {"rl__algorithm": "gspo", "rl__group__clip__delta": 4.0},
        {"rl__curriculum__method": "competence", "rl__curriculum__pace_steps": 9},
        {"rl__curriculum__method": "posterior", "rl__curriculum__target": 0.4,
         "rl__curriculum__memory": 1.0},
        {"rl__curriculum__method": "pools", "rl__curriculum__pool_weight": 0.4,
         "rl__curriculum__memory": 1.0},
        {"distill__data": "teacher_samples", "distill__teacher_samples__problems": 9},
        {"rl__eval_every": 0},
        {"task": "program", "sampling__rounds": 2, "sampling__output_tokens": 99,
         "programs__wall_s": 9.0},
        {"evaluate__task": "program", "programs__wall_s": 9.0},
        {"checkpoint__keep_best": "loss", "checkpoint__best_mode": "min"},
    ],
)  # fmt: skip
def test_a_setting_that_is_read_is_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    config, names = given(**changes)
    refuse_ignored(config, tmp_path, names)


def test_stages_that_answer_validation_problems_outside_of_training_read_how_many() -> None:
    def found(settings: StageSettings) -> list[str]:
        return [one.name for one in unread.find(settings)]

    evaluation = {"eval_problems": 9, "eval_batch": 9}
    assert found(DPOSettings(**evaluation)) == ["eval_problems", "eval_batch"]
    assert found(DPOSettings(**evaluation, guard_margin=0.0)) == []
    assert found(EvolveSettings(**evaluation)) == ["eval_batch"]
    assert found(EvolveSettings(**evaluation, eval_every=1)) == []


def test_a_stage_that_has_begun_keeps_what_it_has(tmp_path: Path) -> None:
    config, names = given(**NO_TEACHER, rl__buckets__lengths=4, records__wandb_mode="offline")
    assert {one.name for one in ignored(config, tmp_path)} >= names - {
        "rl.rewards.intrinsic_weight"
    }
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "settings.json").write_text("{}")
    refuse_ignored(config, tmp_path, names)


# Importing it registers the kinds.
assert runner.BUILT_IN


def test_what_a_preset_brings_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = given(**NO_TEACHER)
    run, lines = Run(config, tmp_path), []
    monkeypatch.setattr(run, "say", lines.append)
    checks.prepare(run)
    wanted = "not read with rl.rewards.intrinsic_weight=0.0 and rl.rewards.adaptive=False: "
    assert f"{wanted}rl.rewards.momentum=0.9" in lines


def test_every_table_names_settings() -> None:
    """A name that a table misspells would be found never."""
    shared = {name for name, _ in _names(presets.smoke())}
    assert {"checkpoint", "checkpoint.every"} <= shared
    for settings in (presets.smoke(), *(cls() for cls in StageSettings.kinds.values())):
        for group, known in _groups(settings):
            for entry in getattr(type(group), "UNREAD", ()):
                assert {*entry.names, *entry.causes} <= known, (type(group), entry)


def _names(settings: Any, path: str = "") -> list[tuple[str, Any]]:
    out = []
    for name in settings.__dataclass_fields__:
        value = getattr(settings, name)
        out.append((path + name, value))
        if hasattr(value, "__dataclass_fields__"):
            out += _names(value, f"{path}{name}.")
    return out


def _groups(settings: Any) -> list[tuple[Any, set[str]]]:
    groups = [settings, *(v for _, v in _names(settings) if hasattr(v, "__dataclass_fields__"))]
    return [(group, {name for name, _ in _names(group)}) for group in groups]
