"""Settings of stage distill, and what of them cannot go together."""

from dataclasses import dataclass, field

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.training.distillation import DistillLossSettings
from distill_jax.training.optimizer import OptimizerSettings
from distill_jax.training.state import TRAINABLE

STARTS = ("base", "sft")
DATA = ("solutions", "teacher_samples", "student_samples")


@dataclass(frozen=True)
class TeacherSampleSettings:
    """Solutions that the teacher writes once, before the first step, and that are kept on disk."""

    problems: int = setting(0, "Training problems to solve, the first ones; 0 is all.", low=0)
    temperature: float = setting(0.7, "Of the teacher's sampling; 0 is greedy.", low=0.0)
    only_right: bool = setting(True, "Leave out solutions whose answer is not the gold one.")
    batch: int = setting(256, "Solutions decoded at a time, and kept in one file.", low=1)


@dataclass(frozen=True)
class DistillSettings:
    """Distillation: the student learns the teacher's distribution over the next token."""

    start: str = setting(
        "base", "Student to start from: the bare one, or with the adapter of sft.", choices=STARTS
    )
    trainable: str = setting(
        "lora", "Parameters to train: LoRA's, or all of the student's.", choices=TRAINABLE
    )
    data: str = setting(
        "solutions",
        "Responses to learn on: given solutions, the teacher's samples, or the student's own.",
        choices=DATA,
    )
    lmbda: float = setting(
        0.0,
        "Odds that a step takes the student's samples in place of `data` (GKD's λ); for every "
        "step set data=student_samples.",
        low=0.0,
        high=1.0,
    )
    steps: int = setting(100, "Steps.", low=1)
    max_tokens: int = setting(
        0, "End after the step that reaches this many num_tokens; 0 is off.", low=0
    )
    batch_size: int = setting(32, "Rows a step, each of another problem.", low=1)
    accumulate: int = setting(1, "Microbatches a step.", low=1)
    max_skipped: int = setting(10, "Stop after this many skipped updates in a row.", low=1)
    eval_every: int = setting(0, "Steps between evaluations on validation; 0 is off.", low=0)
    eval_problems: int = setting(64, "Validation problems of such an evaluation.", low=1)
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)
    loss: DistillLossSettings = field(default_factory=DistillLossSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    teacher_samples: TeacherSampleSettings = field(default_factory=TeacherSampleSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)

    def __post_init__(self) -> None:
        if self.lmbda == 1.0:
            raise ConfigError(
                f"lmbda=1 with data={self.data}",
                wanted="less than 1: no step would take that data",
                fix="set distill.data=student_samples and distill.lmbda=0",
            )
        if self.data == "student_samples" and self.lmbda:
            raise ConfigError(
                f"lmbda={self.lmbda} with data=student_samples",
                wanted="0: every step takes the student's samples anyway",
            )
        if self.data == "student_samples" and self.loss.ce_weight:
            raise ConfigError(
                f"loss.ce_weight={self.loss.ce_weight} with data=student_samples",
                wanted="0: cross-entropy is taken on given tokens alone",
                fix="set distill.loss.ce_weight=0 and distill.loss.kd_weight=1",
            )

        if self.cache.megabytes and not self.loss.top_k:
            raise ConfigError(
                f"cache.megabytes={self.cache.megabytes} with loss.top_k=0",
                wanted="loss.top_k above 0: whole distributions are never stored",
            )

    @property
    def draws(self) -> bool:
        """Whether some step takes the student's own samples."""
        return self.data == "student_samples" or self.lmbda > 0.0
