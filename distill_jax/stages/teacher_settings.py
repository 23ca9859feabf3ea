"""The settings of the teacher that a stage learns from: which model it is."""

from dataclasses import dataclass

from distill_jax.core.settings import setting

MODEL, START = "model", "start"


@dataclass(frozen=True)
class StageTeacherSettings:
    """The teacher that scores this stage's tokens."""

    source: str = setting(
        MODEL,
        "model: the run's teacher. start: the student that the stage starts from, whose frozen "
        "weights are in memory once: a control without any knowledge of a teacher.",
        choices=(MODEL, START),
    )

    @property
    def is_model(self) -> bool:
        """Whether the run's teacher is loaded."""
        return self.source == MODEL
