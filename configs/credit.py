"""python -m launch.main --config=configs/credit.py

What does a reward on every token add, and is it the teacher's knowledge that helps?

The student knows problems of three steps; of those of four and five steps it has seen one row in a
hundred. Every arm starts from that student and ends at equal training tokens. Controls: the student
as its own teacher, the teacher's rewards in another order, length, form and chance.
Presets: --config=configs/credit.py:smoke, see presets.py. `:teacher` has five seeds of the six arms
that docs/experiments.md reads at equal FLOPs. `:grpo` is another task: students that half of the
time answer without working, so that certainty alone has something to teach. In `:weak` the teacher
is worse than the student. `:ppo` asks what PPO lacks on the same reward.
"""

import dataclasses

import ml_collections

from configs import presets
from distill_jax.run.config import RunConfig, to_config_dict
from distill_jax.run.settings import ExperimentSettings, ReportSettings
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.training.distillation import DistillLossSettings
from distill_jax.training.optimizer import OptimizerSettings

# As many rows, of fewer problems.
_FOUR = "rl.prompts_per_step=32; rl.samples_per_prompt=4"
# Verdicts and one number a completion need several answers of a problem to compare. Their learning
# rate was chosen apart, from one seed (docs/log.md).
_GROUP = f"rl.algorithm=grpo; {_FOUR}; rl.optimizer.learning_rate=0.001"
_SEQUENCE = f"{_GROUP}; rl.rewards.credit=sequence; rl.rewards.student_weight=0.0"
_NO_TEACHER = f"{_SEQUENCE}; rl.rewards.intrinsic_weight=0.0"
_INTRINSIC = f"{_SEQUENCE}; rl.rewards.momentum=0.9"
_PPO = f"{_INTRINSIC.replace('grpo', 'ppo')}; rl.ppo.kl_coef=0.0"
_VAPO = "rl.ppo.critic_lam=1.0; rl.ppo.value_warmup_steps=20; rl.ppo.lam_alpha=0.05"
# On-policy distillation: log π_T − log π_S of each token is its advantage, cut and else as it is.
_TOKEN = "rl.rewards.credit=token; rl.rewards.token_clip=0.3; rl.rewards.normaliser=none"
_CUSTOM = f"{_NO_TEACHER}; rl.rewards.custom=distill_jax.rewards.controls"
_DISTILL = "stages=('pretrain', 'distill', 'evaluate')"
_OWN = f"{_DISTILL}; distill.data=student_samples; distill.samples_per_prompt"
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
            learning_rate=3e-3, schedule="constant", warmup_steps=5, b2=0.99
        ),
    }
    plan = base.replace("rl", **training).replace("distill", batch_size=128, loss=_LOSS, **training)
    plan = plan.replace("evaluate", problems=500, samples=8, teacher=False, distribution=False)
    return dataclasses.replace(plan, experiment=_experiment())


def _teacher() -> RunConfig:
    names = ("start", "exact", "exact_32", "token", "token_32", "intrinsic")
    whole = _tiny()
    arms = {arm.split(":")[0]: arm for arm in whole.experiment.arms}
    experiment = dataclasses.replace(
        whole.experiment,
        arms=tuple(arms[name] for name in names),
        seeds=(0, 1, 2, 3, 4),
        references=("start", "intrinsic", "exact_32"),
    )
    return dataclasses.replace(whole, preset="teacher", experiment=experiment)


def _smoke() -> RunConfig:
    # One arm of each kind, one seed: each is a process of some 20 s.
    whole, wide = _experiment(), presets.tiny()
    names = ("start", "exact", "token", "correctness", "sft_teacher")
    arms = tuple(arm for arm in whole.arms if arm.split(":")[0] in names)
    main = wide.plan["rl"]
    assert isinstance(main, RLSettings)
    base = presets.smoke().replace(
        "rl", start="base", algorithm=main.algorithm, rewards=main.rewards
    )
    return dataclasses.replace(
        base.replace("distill", start="base", loss=_LOSS),
        stages=wide.stages,
        experiment=dataclasses.replace(whole, arms=arms, seeds=(0,)),
        report=ReportSettings(problems=0),
    )


def _experiment() -> ExperimentSettings:
    return ExperimentSettings(
        name="credit",
        arms=(
            "start: stages=('pretrain', 'evaluate'); evaluate.teacher=True",
            # configs/rl.py; the gradient is that of stage distill with reverse KL on own samples.
            "exact:",
            f"sft_teacher: {_SAMPLES}; distill.teacher_samples.only_right=False",
            f"correctness: {_NO_TEACHER}; rl.rewards.correctness_weight=1.0",
            f"self: {_INTRINSIC}; rl.teacher.source=start",
            f"token: {_TOKEN}",
            f"intrinsic: {_INTRINSIC}",
            f"exact_32: {_FOUR}",
            "both: rl.prompts_per_step=64; rl.samples_per_prompt=2; "
            "rl.rewards.correctness_weight=0.1",
            "curriculum: rl.curriculum.method=self_evolving; rl.arm_signal=correctness",
            f"permuted_token: {_TOKEN}; {_FOUR}; rl.rewards.control=permuted",
            f"token_32: {_TOKEN}; {_FOUR}",
            f"random: {_CUSTOM}:coin",
            f"length: {_CUSTOM}:length_31",
            f"format: {_NO_TEACHER}; rl.rewards.format_weight=1.0",
            f"permuted: {_INTRINSIC}; rl.rewards.control=permuted",
            f"token_rest: {_TOKEN}; {_FOUR}; rl.rewards.discount=1.0",
            f"forward_kl: {_OWN}=1; distill.loss.divergence=forward",
            f"reverse_future: {_OWN}=4; distill.loss.divergence=reverse; distill.loss.future=1.0",
            f"sft_teacher_right: {_SAMPLES}",
            f"sft_curriculum: {_SAMPLES}; distill.teacher_samples.only_right=False; "
            "distill.curriculum.method=self_evolving",
            f"correctness_curriculum: {_NO_TEACHER}; rl.rewards.correctness_weight=1.0; "
            "rl.curriculum.method=self_evolving; rl.arm_signal=correctness",
            f"intrinsic_ppo: {_PPO}",
            # More of the rows that it was pretrained on, 2,000 tokens a step.
            "pretrain_longer: stages=('pretrain', 'evaluate'); student.steps=1900",
        ),
        references=("start", "exact"),
    )


def _ppo() -> RunConfig:
    reverse = "rl.rewards.student_weight=1.0"
    base = _tiny()
    experiment = ExperimentSettings(
        name="credit",
        arms=(
            "start: stages=('pretrain', 'evaluate'); evaluate.teacher=True",
            f"intrinsic: {_INTRINSIC}",
            f"intrinsic_ppo: {_PPO}",
            f"ppo_slow: {_PPO}; rl.optimizer.learning_rate=0.0003",
            f"ppo_vapo: {_PPO}; {_VAPO}",
            f"ppo_reverse: {_PPO}; {reverse}",
            f"ppo_reverse_vapo: {_PPO}; {reverse}; {_VAPO}",
        ),
        seeds=(0, 1),
        references=("start", "intrinsic_ppo"),
    )
    return dataclasses.replace(base, preset="ppo", experiment=experiment)


def _grpo() -> RunConfig:
    base = presets.grpo().replace(
        "rl", steps=400, max_tokens=600_000, eval_every=25, eval_problems=200
    )
    base = base.replace("evaluate", problems=500, samples=8, teacher=False, distribution=False)
    no_gold, no_teacher = "rl.rewards.correctness_weight=0.0", "rl.rewards.intrinsic_weight=0.0"
    noise = "rl.rewards.custom=distill_jax.rewards.controls:noisy"
    experiment = ExperimentSettings(
        name="credit",
        arms=(
            "start: stages=('pretrain', 'evaluate'); evaluate.teacher=True",
            f"correctness: {no_teacher}",
            f"intrinsic: {no_gold}",
            f"self: {no_gold}; rl.teacher.source=start",
            f"length: {no_gold}; {no_teacher}; "
            "rl.rewards.custom=distill_jax.rewards.controls:length_31",
            f"noisy_20: {no_gold}; {no_teacher}; {noise}_20",
            f"noisy_40: {no_gold}; {no_teacher}; {noise}_40",
            "both:",
            f"both_40: {no_gold}; {noise}_40",
        ),
        seeds=(0, 1, 2),
        references=("start", "intrinsic"),
    )
    return dataclasses.replace(base, experiment=experiment)


def _weak() -> RunConfig:
    base = _tiny()
    return dataclasses.replace(
        base,
        preset="weak",
        # Pretraining ends before the teacher has learnt the arithmetic.
        teacher=dataclasses.replace(base.teacher, steps=600),
        experiment=ExperimentSettings(
            name="credit",
            arms=(
                "start: stages=('pretrain', 'evaluate'); evaluate.teacher=True",
                "exact:",
                f"intrinsic: {_INTRINSIC}",
            ),
            seeds=(0, 1, 2),
            references=("start",),
        ),
    )


PRESETS = {
    "tiny": _tiny,
    "smoke": _smoke,
    "teacher": _teacher,
    "ppo": _ppo,
    "grpo": _grpo,
    "weak": _weak,
}


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of the experiment."""
    return to_config_dict(PRESETS[preset]())
