"""python -m launch.main --config=configs/credit.py

What does a reward on every token add, and is it the teacher's knowledge that helps?

The student knows problems of three steps; of those of four and five steps it has seen one row in a
hundred. Every arm starts from that student and ends at equal training tokens. Controls: the student
as its own teacher, the teacher's rewards in another order, length, form and chance.
Presets: --config=configs/credit.py:smoke, see presets.py.
"""

import dataclasses

import ml_collections

from configs import presets
from configs.presets import changed
from distill_jax.run.config import RunConfig, to_config_dict
from distill_jax.run.settings import ExperimentSettings, ReportSettings
from distill_jax.training.distillation import DistillLossSettings
from distill_jax.training.optimizer import OptimizerSettings

_RL = "stages=('pretrain', 'rl', 'evaluate')"
_DISTILL = "stages=('pretrain', 'distill', 'evaluate')"
_NO_TEACHER = "rl.rewards.intrinsic_weight=0.0"
_NO_GOLD = "rl.rewards.correctness_weight=0.0"
_TEACHER = f"{_RL}; {_NO_GOLD}; rl.rewards.intrinsic_weight=1.0"
# On-policy distillation: log π_T − log π_S of each token is its advantage, as it is.
_TOKEN = (
    "rl.algorithm=bnpo; rl.rewards.credit=token; rl.rewards.student_weight=1.0; "
    "rl.rewards.normaliser=none"
)
_CONTROL = f"{_RL}; {_NO_GOLD}; {_NO_TEACHER}; rl.rewards.custom=distill_jax.rewards.controls"
# The exact divergence at the student's own samples, of as many prompts as RL has.
_EXACT = f"{_DISTILL}; distill.data=student_samples; distill.samples_per_prompt=8"
_SAMPLES = (
    f"{_DISTILL}; distill.data=teacher_samples; distill.teacher_samples.temperature=1.0; "
    "distill.loss.kd_weight=0.0; distill.loss.ce_weight=1.0"
)
_LOSS = DistillLossSettings(temperature=1.0, kd_weight=1.0, ce_weight=0.0)


def _tiny() -> RunConfig:
    base = presets.tiny()
    training = {
        "start": "base",
        "steps": 400,
        "max_tokens": 1_200_000,
        "eval_every": 25,
        "eval_problems": 200,
        # A constant learning rate: a schedule would end at other steps for arms whose answers are
        # longer.
        "optimizer": OptimizerSettings(
            learning_rate=1e-3, schedule="constant", warmup_steps=5, b2=0.99
        ),
    }
    plan = base.replace("rl", **training).replace("distill", batch_size=128, loss=_LOSS, **training)
    plan = plan.replace("evaluate", problems=500, samples=8)
    student = changed(base.student, steps=1300, level_shares=(1.0, 1.0, 1.0, 0.01, 0.01))
    return dataclasses.replace(plan, student=student, experiment=_experiment())


def _smoke() -> RunConfig:
    # One arm of each stage, one seed: each is a process of some 20 s.
    whole = _experiment()
    names = ("start", "token", "correctness", "reverse_kl")
    arms = tuple(arm for arm in whole.arms if arm.split(":")[0] in names)
    base = presets.smoke().replace("rl", start="base").replace("distill", start="base", loss=_LOSS)
    return dataclasses.replace(
        base,
        experiment=dataclasses.replace(whole, arms=arms, seeds=(0,)),
        report=ReportSettings(problems=0),
    )


def _experiment() -> ExperimentSettings:
    return ExperimentSettings(
        name="credit",
        arms=(
            "start: stages=('pretrain', 'evaluate')",
            f"token: {_TEACHER}; {_TOKEN}",
            f"reverse_kl: {_EXACT}; distill.loss.divergence=reverse",
            f"reverse_future: {_EXACT}; distill.loss.divergence=reverse; distill.loss.future=1.0",
            f"sft_teacher: {_SAMPLES}; distill.teacher_samples.only_right=False",
            f"intrinsic: {_TEACHER}",
            f"token_rest: {_TEACHER}; {_TOKEN}; rl.rewards.discount=1.0",
            f"both_token: {_RL}; rl.rewards.intrinsic_weight=1.0; {_TOKEN}",
            f"correctness: {_RL}; {_NO_TEACHER}",
            f"self: {_TEACHER}; rl.teacher.source=start",
            f"forward_kl: {_EXACT}; distill.loss.divergence=forward",
            f"sft_teacher_right: {_SAMPLES}",
            f"permuted: {_TEACHER}; rl.rewards.control=permuted",
            f"permuted_token: {_TEACHER}; {_TOKEN}; rl.rewards.control=permuted",
            f"intrinsic_ppo: {_TEACHER}; rl.algorithm=ppo; rl.ppo.kl_coef=0.0",
            f"length: {_CONTROL}:length_31",
            f"random: {_CONTROL}:coin",
            f"format: {_RL}; {_NO_GOLD}; {_NO_TEACHER}; rl.rewards.format_weight=1.0",
        ),
        references=("start", "token", "correctness"),
    )


PRESETS = {"tiny": _tiny, "smoke": _smoke}


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of the experiment."""
    return to_config_dict(PRESETS[preset]())
