"""python -m launch.main --config=configs/curriculum.py

Curriculum distillation: the self-evolving curriculum against its baselines, equal training tokens,
three seeds. Presets: --config=configs/curriculum.py:smoke, the quick self-test; math, on MATH.
"""

import dataclasses

import ml_collections

from configs import presets
from distill_jax.curriculum.methods import CURRICULA
from distill_jax.run.config import RunConfig, to_config_dict
from distill_jax.run.settings import ExperimentSettings, ReportSettings
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.training.optimizer import OptimizerSettings

_START = "start: stages=('pretrain', 'evaluate')"
_ARMS = (
    # Those by verdicts are for stage rl.
    *(f"{name}: distill.curriculum.method={name}" for name, one in CURRICULA.items() if one.choose),
    # Besides the gap to the teacher, an arm's value counts its gain, its loss and its transfer.
    "multi_objective: distill.curriculum.method=self_evolving; "
    "distill.curriculum.progress_weight=1.0; distill.curriculum.retention_weight=1.0; "
    "distill.curriculum.transfer_weight=1.0",
)
_STAGES = ("pretrain", "distill", "evaluate")


def _with_arms(
    base: RunConfig, start: str = _START, stages: tuple[str, ...] = _STAGES
) -> RunConfig:
    experiment = ExperimentSettings(
        name="curriculum", arms=(start, *_ARMS), references=("uniform", "start")
    )
    return dataclasses.replace(base, stages=stages, experiment=experiment)


def _with_distill(base: RunConfig, distill: DistillSettings) -> RunConfig:
    return dataclasses.replace(base, plan={**base.plan, "distill": distill})


def _tiny() -> RunConfig:
    base = presets.tiny()
    plain = base.plan["distill"]
    assert isinstance(plain, DistillSettings)
    distill = dataclasses.replace(
        plain,
        steps=400,
        max_tokens=400_000,
        batch_size=32,
        eval_every=20,
        eval_problems=200,
        # Gaps to the teacher differ by hundredths between levels here.
        curriculum=dataclasses.replace(plain.curriculum, pace_steps=180, temperature=0.05),
        # A constant learning rate: harder problems have more tokens, so that arms take other
        # numbers of steps.
        optimizer=OptimizerSettings(learning_rate=3e-3, schedule="constant", warmup_steps=10),
    )
    # A student of all levels that has begun to calculate: after many more steps nothing is left
    # to learn.
    student = dataclasses.replace(base.student, steps=400, level_shares=())
    return _with_arms(_with_distill(dataclasses.replace(base, student=student), distill))


def _smoke() -> RunConfig:
    base = presets.smoke()
    # Solutions of both levels fit: a curriculum over one arm would do nothing.
    sampling = dataclasses.replace(base.sampling, max_new_tokens=40)
    whole = _with_arms(dataclasses.replace(base, sampling=sampling))
    # Few arms, one seed: each is a process of some 20 s. Tests run the other curricula.
    names = ("start", "uniform", "self_evolving")
    arms = tuple(arm for arm in whole.experiment.arms if arm.startswith(names))
    experiment = dataclasses.replace(whole.experiment, arms=arms, seeds=(0,))
    return dataclasses.replace(whole, experiment=experiment, report=ReportSettings(problems=0))


def _math() -> RunConfig:
    # The published system's batch of 4 × 4 and 5 × 200 steps, on arms of level and subject.
    base = presets.qwen_1_5b()
    plain = base.plan["distill"]
    assert isinstance(plain, DistillSettings)
    curriculum = dataclasses.replace(plain.curriculum, arms="level_subject")
    distill = dataclasses.replace(
        plain, steps=1000, batch_size=16, packing=0, accumulate=4, curriculum=curriculum
    )
    base = _with_distill(base, distill).replace("evaluate", problems=500)
    whole = _with_arms(base, "start: stages=('evaluate',)", ("distill", "evaluate"))
    return dataclasses.replace(
        whole,
        preset="math",
        data=dataclasses.replace(base.data, source="math"),
    )


PRESETS = {"tiny": _tiny, "smoke": _smoke, "math": _math}


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of the experiment."""
    return to_config_dict(PRESETS[preset]())
