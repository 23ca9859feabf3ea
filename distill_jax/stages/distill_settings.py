"""The settings of stage kind distill."""

from dataclasses import dataclass, field
from typing import ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread
from distill_jax.curriculum.methods import CURRICULA
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.evaluation.runner import EvaluateSettings as EvaluateSettings
from distill_jax.evaluation.solve_settings import SolveSettings as SolveSettings
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.run.settings import (
    BASE,
    Shared,
    TrainSettings,
)
from distill_jax.stages.settings import MAX_CLIPPED, STUDENT_TRAINING, lengths_of_drawn
from distill_jax.stages.teacher_settings import StageTeacherSettings
from distill_jax.training.distillation import DistillLossSettings
from distill_jax.training.state import TRAINABLE

DATA = ("solutions", "teacher_samples", "student_samples")


@dataclass(frozen=True)
class TeacherSampleSettings:
    """Solutions that the teacher writes once, before the first step, and that are kept on disk."""

    problems: int = setting(0, "Training problems to solve, the first ones; 0 is all.", low=0)
    temperature: float = setting(
        0.7, "Temperature of the teacher's sampling; 0 is greedy.", low=0.0
    )
    samples: int = setting(1, "Solutions of each problem.", low=1)
    only_right: bool = setting(True, "Drop solutions whose answer is not the gold one.")
    batch: int = setting(256, "Solutions decoded at a time.", low=1)


@dataclass(frozen=True)
class DistillSettings(TrainSettings, kind="distill", makes="student"):
    """Distillation: the student learns the teacher's distribution over the next token."""

    UNREAD: ClassVar = (
        *TrainSettings.UNREAD,
        Unread(("teacher_samples",), ("data",), lambda data: data != "teacher_samples"),
        Unread(("packing",), ("data",), lambda data: data == "student_samples"),
        Unread(
            ("drawn_lengths",),
            ("data", "lmbda"),
            lambda data, lmbda: data != "student_samples" and not lmbda,
        ),
        Unread(
            ("samples_per_prompt", "max_clipped"),
            ("data",),
            lambda data: data != "student_samples",
        ),
    )

    start: str = setting(
        BASE, "Student to start from: base, a stage, or a directory.", ref="student"
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
        "Probability that a step takes the student's samples instead of `data` (GKD's λ); for "
        "every step set data=student_samples.",
        low=0.0,
        high=1.0,
    )
    batch_size: int = setting(32, "Rows a step, of batch_size/samples_per_prompt problems.", low=1)
    packing: int = setting(
        0,
        "Tokens of a packed row, at most: the given examples of a step share few rows, positions "
        "and attention apart. 0: one example a row.",
        low=0,
    )
    samples_per_prompt: int = setting(
        1, "Samples of each problem that a step draws, with data=student_samples.", low=1
    )
    drawn_lengths: int = lengths_of_drawn()
    max_clipped: float = setting(
        MAX_CLIPPED,
        "Refuse to train where more of the first rollout's completions than this share are cut "
        "off without EOS, with data=student_samples; 1 never refuses.",
        low=0.0,
        high=1.0,
        affects="nothing",
    )
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)
    teacher: StageTeacherSettings = field(default_factory=StageTeacherSettings)
    loss: DistillLossSettings = field(default_factory=DistillLossSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    teacher_samples: TeacherSampleSettings = field(default_factory=TeacherSampleSettings)

    def __post_init__(self) -> None:
        if self.lmbda == 1.0:
            raise ConfigError(
                f"lmbda=1 with data={self.data}",
                wanted="less than 1: no step would take that data",
                fix="set data=student_samples and lmbda=0",
            )
        if self.data == "student_samples" and self.lmbda:
            raise ConfigError(
                f"lmbda={self.lmbda} with data=student_samples",
                wanted="0: every step takes the student's samples anyway",
            )
        if self.data == "student_samples" and self.loss.ce_weight:
            raise ConfigError(
                f"loss.ce_weight={self.loss.ce_weight} with data=student_samples",
                wanted="0: cross-entropy needs given tokens",
                fix="set loss.ce_weight=0 and loss.kd_weight=1",
            )
        if self.draws and not self.loss.kd_weight:
            raise ConfigError(
                f"loss.kd_weight=0 with data={self.data} and lmbda={self.lmbda}",
                wanted="given data in every step: cross-entropy needs given tokens",
                fix="set data=teacher_samples and lmbda=0, or loss.kd_weight",
            )
        if CURRICULA[self.curriculum.method].place is not None:
            by_arms = [name for name, one in CURRICULA.items() if one.place is None]
            raise ConfigError(
                f"curriculum.method={self.curriculum.method}",
                wanted=f"one of {', '.join(by_arms)}: this one counts right and wrong samples of "
                "each problem, and this stage measures gaps to the teacher",
                fix="use a stage of kind rl",
            )
        if self.batch_size % self.samples_per_prompt:
            raise ConfigError(
                f"batch_size={self.batch_size} of samples_per_prompt={self.samples_per_prompt}",
                wanted="a multiple",
            )
        if self.loss.future:
            self._check_future()
        if self.teacher.models:
            raise ConfigError(
                f"teacher.models={self.teacher.models}",
                wanted="none: one teacher's distributions enter the loss",
                fix="use a stage of kind rl",
            )
        if self.teacher.is_remote:
            raise ConfigError(
                "teacher.source=endpoint",
                wanted="model or start: the loss compares whole distributions, and a server gives "
                "the log-probability of each drawn token",
                fix="use a stage of kind rl",
            )
        if self.teacher.prompt and self.data != "student_samples":
            raise ConfigError(
                f"teacher.prompt={self.teacher.prompt!r} with data={self.data}",
                wanted="data=student_samples: the prompt may show the solution that is learnt on",
            )
        if self.packing:
            self._check_packing()
        if self.cache.megabytes and not self.loss.top_k:
            raise ConfigError(
                f"cache.megabytes={self.cache.megabytes} with loss.top_k=0",
                wanted="loss.top_k above 0: whole distributions are never stored",
            )

    def _check_packing(self) -> None:
        if self.loss.kd_weight and self.loss.top_k:
            raise ConfigError(
                f"packing={self.packing} with loss.top_k={self.loss.top_k}",
                wanted="loss.top_k=0: the teacher's top k is stored for whole rows",
            )
        if self.data != "student_samples" and not CURRICULA[self.curriculum.method].one_shuffle:
            one_shuffle = [name for name, one in CURRICULA.items() if one.one_shuffle]
            raise ConfigError(
                f"packing={self.packing} with curriculum.method={self.curriculum.method}",
                wanted=f"{', '.join(one_shuffle)}: rows are chosen from batches that are known "
                "before the first step",
            )

    def _check_future(self) -> None:
        got = f"loss.future={self.loss.future} with "
        if self.data != "student_samples":
            raise ConfigError(
                f"{got}data={self.data}",
                wanted="data=student_samples: given tokens are not the student's choices",
            )
        if self.samples_per_prompt < 2:
            raise ConfigError(
                f"{got}samples_per_prompt=1",
                wanted="at least 2: a prompt's other samples are the baseline",
                fix="set samples_per_prompt=8 and batch_size to 8 times the problems of a step",
            )
        if self.prompts % self.accumulate:
            raise ConfigError(
                f"{got}{self.prompts} problems a step and accumulate={self.accumulate}",
                wanted="problems that it divides: a microbatch holds all samples of a problem",
            )

    @property
    def samples(self) -> int:
        """Rows of each problem in a step."""
        return self.samples_per_prompt if self.data == "student_samples" else 1

    @property
    def prompts(self) -> int:
        """Problems of a step."""
        return self.batch_size // self.samples

    @property
    def draws(self) -> bool:
        """Whether some step takes the student's own samples."""
        return self.data == "student_samples" or self.lmbda > 0.0

    def shared(self) -> tuple[str, ...]:
        teacher = ("teacher",) if self.teacher.is_model else ()
        return (*STUDENT_TRAINING, *teacher, "sampling")

    def roles(self) -> tuple[str, ...]:
        return ("teacher", "student") if self.teacher.is_model else ("student",)

    def check_with(self, shared: Shared, name: str) -> None:
        self.check_best(shared, name)
        if shared.sampling.temperature == 0.0 and self.draws:
            raise ConfigError(
                f"sampling.temperature=0 in stage {name}, which learns on the student's samples",
                wanted="above 0; greedy samples contain no exploration",
            )
        if self.loss.future and (shared.sampling.top_p < 1.0 or shared.sampling.top_k):
            raise ConfigError(
                f"{name}.loss.future={self.loss.future} with sampling.top_p="
                f"{shared.sampling.top_p} and sampling.top_k={shared.sampling.top_k}",
                wanted="1 and 0: its policy gradient is of the whole distribution",
            )
