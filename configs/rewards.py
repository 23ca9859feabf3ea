"""python -m launch.main --config=configs/rewards.py

Does a reward repair a student that answers without working? Several rewards, equal training tokens,
three seeds; controls that reward chance and form alone.
Presets: --config=configs/rewards.py:smoke, see presets.py.
"""

import dataclasses

import ml_collections

from configs import presets
from configs.presets import TINY_GRPO, WITH_SFT, changed
from distill_jax.run.config import RunConfig, to_config_dict
from distill_jax.run.settings import ExperimentSettings, ReportSettings
from distill_jax.training.optimizer import OptimizerSettings

_SFT_ONLY = "stages=('pretrain', 'sft', 'evaluate')"
_NO_TEACHER = "rl.rewards.intrinsic_weight=0.0"
# On-policy reverse KL: GKD with λ = 1 and the exact divergence at the student's own samples.
_REVERSE_KL = (
    "stages=('pretrain', 'sft', 'distill', 'evaluate'); distill.start=sft; "
    "distill.data=student_samples; distill.loss.divergence=reverse; distill.loss.temperature=1.0; "
    "distill.loss.kd_weight=1.0; distill.loss.ce_weight=0.0"
)
_NO_GOLD = "rl.rewards.correctness_weight=0.0"


def _tiny() -> RunConfig:
    base = presets.tiny()
    # As web data do, the rows of sft mix worked solutions and bare answers: the student learns to
    # answer without working, and reinforcement has something to repair.
    plan = {**base.plan, "sft": changed(base.plan["sft"], answer_only=0.7), "rl": TINY_GRPO}
    student = changed(base.student, steps=900, level_shares=())
    base = dataclasses.replace(base, stages=WITH_SFT, student=student, plan=plan)
    # A constant learning rate: a schedule would end at other steps for arms whose answers are
    # longer.
    optimizer = OptimizerSettings(learning_rate=1e-3, schedule="constant", warmup_steps=5, b2=0.99)
    longer = {
        "steps": 400,
        "max_tokens": 600_000,
        "eval_every": 15,
        "eval_problems": 200,
        "optimizer": optimizer,
    }
    base = base.replace("rl", **longer).replace("distill", batch_size=128, **longer)
    # Supervised arms: as many steps as make their tokens those of sft and rl together.
    return dataclasses.replace(base, experiment=_experiment(longer=481, worked=339))


def _smoke() -> RunConfig:
    # One arm of each stage, one seed: each is a process of some 20 s.
    whole = _experiment(longer=6, worked=6)
    names = ("start", "correctness", "reverse_kl")
    arms = tuple(arm for arm in whole.arms if arm.startswith(names))
    return dataclasses.replace(
        presets.smoke(),
        experiment=dataclasses.replace(whole, arms=arms, seeds=(0,)),
        report=ReportSettings(problems=0),
    )


def _experiment(*, longer: int, worked: int) -> ExperimentSettings:
    return ExperimentSettings(
        name="rewards",
        arms=(
            f"start: {_SFT_ONLY}",
            f"sft_longer: {_SFT_ONLY}; sft.steps={longer}",
            f"sft_worked: {_SFT_ONLY}; sft.steps={worked}; sft.answer_only=0.0",
            f"correctness: {_NO_TEACHER}",
            f"intrinsic: {_NO_GOLD}; rl.rewards.intrinsic_weight=1.0",
            "both:",
            f"reverse_kl: {_REVERSE_KL}",
            f"random: {_NO_GOLD}; {_NO_TEACHER}; "
            "rl.rewards.custom=distill_jax.rewards.controls:coin",
            f"format: {_NO_GOLD}; {_NO_TEACHER}; rl.rewards.format_weight=1.0",
        ),
        references=("start", "correctness"),
    )


PRESETS = {"tiny": _tiny, "smoke": _smoke}


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of the experiment."""
    return to_config_dict(PRESETS[preset]())
