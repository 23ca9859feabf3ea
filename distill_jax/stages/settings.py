"""The settings of stages pretrain and sft, and what stages that train a student share."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.evaluation.runner import EvaluateSettings as EvaluateSettings
from distill_jax.evaluation.solve_settings import SolveSettings as SolveSettings
from distill_jax.run.settings import (
    BASE,
    TASK,
    TRAINING_DATA,
    ModelSettings,
    Shared,
    StageSettings,
    TrainSettings,
)
from distill_jax.training.optimizer import OptimizerSettings

# Shared settings that every training of a student depends on, besides lengths and the teacher.
STUDENT_TRAINING = ("seed", "tokenizer_size", *TASK, *TRAINING_DATA, "student", "lora")
# A student that seldom ends has to learn that first: rewards and divergences do not teach it.
MAX_CLIPPED = 0.5
_LENGTH = "sampling.max_new_tokens"


def lengths_of_drawn() -> Any:
    """A setting of stages that train on what they draw."""
    return setting(
        0,
        "Different lengths that batches of drawn responses are padded to, at most, known before "
        "the first step; 0: each batch to its own.",
        low=0,
        affects="rounding",
    )


# Settings of the models that their training from scratch depends on.
_TO_TRAIN = tuple(
    f"{role}.{one.name}" for role in ("teacher", "student") for one in fields(ModelSettings)
)


@dataclass(frozen=True)
class PretrainSettings(StageSettings, kind="pretrain", makes="models"):
    """Training of the models without a path from scratch, on worked solutions."""

    batch_size: int = setting(32, "Rows a step.", low=1)
    accumulate: int = setting(1, "Microbatches a step.", low=1)
    max_skipped: int = setting(
        10, "Stop after this many skipped updates in a row.", low=1, affects="nothing"
    )
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)

    def shared(self) -> tuple[str, ...]:
        return ("seed", "tokenizer_size", *TASK, *TRAINING_DATA, *_TO_TRAIN, _LENGTH)

    def trained_roles(self, shared: Shared, name: str) -> tuple[str, ...]:
        """The models without a path; no teacher for stages that cannot read it.

        Where student.path alone is set, a stage that reads the run's teacher is refused
        (`RunConfig`): its teacher is trained where this stage runs alone, for another run.
        """
        if shared.student.path and shared.stages != (name,):
            return ()
        paths = {"teacher": shared.teacher.path, "student": shared.student.path}
        return tuple(role for role, path in paths.items() if not path)

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def check_with(self, shared: Shared, name: str) -> None:
        if shared.stages == (name,) and shared.teacher.path and shared.student.path:
            raise ConfigError(
                f"stage {name} with teacher.path and student.path set",
                wanted="an empty path: it trains the models that have none",
                fix="start with configs/sft.py",
            )


@dataclass(frozen=True)
class SFTSettings(TrainSettings, kind="sft", makes="student"):
    """Supervised fine-tuning of the student's LoRA parameters."""

    UNREAD: ClassVar = (*TrainSettings.UNREAD, Unread(("only_right",), ("data",), off))

    start: str = setting(
        BASE, "Student to start from: base, a stage, or a directory.", ref="student"
    )
    data: str = setting(
        "",
        "Solutions to learn on: a stage that makes rows, or a file; of rows with verdicts only "
        "the right ones. Empty: the solutions of the training problems.",
        ref="rows",
    )
    only_right: bool = setting(
        True, "Of rows with verdicts learn on the right ones alone; False: on all, as a control."
    )
    batch_size: int = setting(32, "Rows a step.", low=1)
    answer_only: float = setting(
        0.0, "Fraction of rows that show only the final answer.", low=0.0, high=1.0
    )
    sort_window: int = setting(
        1,
        "Steps whose rows are sorted by length into batches, for less padding, or with `packing` "
        "dealt into batches of nearly as many tokens; 1: as they are drawn.",
        low=1,
    )
    packing: int = setting(
        0,
        "Tokens of a packed row, at most: the examples of a step share few rows, positions and "
        "attention apart. 0: one example a row.",
        low=0,
    )

    def shared(self) -> tuple[str, ...]:
        return (*STUDENT_TRAINING, _LENGTH)

    def roles(self) -> tuple[str, ...]:
        return ("student",)
