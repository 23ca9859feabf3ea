"""The settings of stage kind prm."""

from dataclasses import dataclass, field
from typing import ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.data.step_rows import NEUTRAL
from distill_jax.kernels.process_reward import AGGREGATIONS
from distill_jax.models.process_head import HEADS
from distill_jax.models.reward_model_io import IMPLICIT
from distill_jax.reasoning.step_labels import LABELS
from distill_jax.reasoning.steps import StepSettings
from distill_jax.run.settings import BASE, Shared, TrainSettings
from distill_jax.stages.settings import STUDENT_TRAINING
from distill_jax.training.state import TRAINABLE

# Settings that head=implicit does not read: it has no head, trains an adapter only, since its
# reference is the same base model with another adapter, and learns from solutions, not steps.
OF_STEPS = ("trainable", "head_rate", "labels", "threshold", "neutral")


@dataclass(frozen=True)
class PRMSettings(TrainSettings, kind="prm", makes="reward_model"):
    """A process reward model: the student with a head that judges each step of a solution.

    With head=implicit it has no head: a step's reward is β times the log-ratio of its tokens under
    the trained adapter and the start's. Training and scoring need a forward pass of both.
    """

    # The last weights are evaluated whatever eval_every is.
    UNREAD: ClassVar = ()

    start: str = setting(
        BASE, "Student to start from: base, a stage, or a directory.", ref="student"
    )
    data: str = setting(
        "",
        "Rows with labelled steps: a stage that makes rows, or a file; with head=implicit those of "
        "stage traces, too.",
        ref="rows",
    )
    also: str = setting(
        "", "More rows with labelled steps, of any form, for the same training.", ref="rows"
    )
    head: str = setting(
        "linear",
        "linear: as transformers' token classification; mlp: as Qwen2.5-Math-PRM; implicit: no "
        "head, log-ratios to the start, learnt from right and wrong solutions alone.",
        choices=(*HEADS, IMPLICIT),
    )
    beta: float = setting(0.05, "β of head=implicit, whose rewards are β·log π/π_ref.", above=0.0)
    trainable: str = setting(
        "lora",
        "Parameters to train besides the head: LoRA's, or all of the student's.",
        choices=TRAINABLE,
    )
    head_rate: float = setting(
        10.0, "The head's learning rate is the optimizer's times this.", above=0.0
    )
    step_format: StepSettings = field(default_factory=StepSettings)
    labels: str = setting(
        "hard",
        "Labels of rows with counts: hard, the rate of right completions is above threshold; "
        "soft, the rate; relative, the rate over the bare prompt's.",
        choices=LABELS,
    )
    threshold: float = setting(0.0, "Rate above which a hard label is 1.", low=0.0, high=0.99)
    neutral: str = setting(
        "positive", "What PRM800K's rating 0 counts as; ignore: not labelled.", choices=NEUTRAL
    )
    balanced: bool = setting(
        False, "Weigh right and wrong steps so that both count for half of the loss."
    )
    # Rows of counts label no step after the first wrong one, so the last step that has a label is
    # nearly always right, and a model learns nothing from it.
    aggregation: str = setting(
        "min", "Score of a solution, from those of its steps; kept with it.", choices=AGGREGATIONS
    )
    max_length: int = setting(
        1024, "Most tokens of prompt and steps; later steps are dropped and counted.", low=2
    )
    batch_size: int = setting(32, "Solutions a step.", low=1)
    half: int = setting(
        0,
        "Half of the problems to learn on, by a hash of their text: 1 or 2; 0 is all. A model of "
        "one half can judge solutions of the other that its own training did not show it.",
        choices=(0, 1, 2),
    )
    validation_share: float = setting(
        0.1,
        "Share of the problems, by a hash of their text, that is held out for evaluation.",
        low=0.0,
        high=0.9,
    )

    def __post_init__(self) -> None:
        unread = OF_STEPS if self.head == IMPLICIT else ("beta",)
        for name in unread:
            if getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"{name}={getattr(self, name)} with head={self.head}",
                    wanted="its default: this head does not read it",
                )
        if self.labels != "hard" and self.threshold:
            raise ConfigError(
                f"threshold={self.threshold} with labels={self.labels}",
                wanted="0: hard labels alone have a threshold",
            )
        if self.eval_every and not self.validation_share:
            raise ConfigError(
                f"eval_every={self.eval_every} with validation_share=0",
                wanted="a share above 0: nothing is held out to evaluate on",
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the rows are."""
        return (self.data, self.also) if self.also else (self.data,)

    def shared(self) -> tuple[str, ...]:
        return STUDENT_TRAINING

    def roles(self) -> tuple[str, ...]:
        return ("student",)

    def splits(self) -> tuple[str, ...]:
        """Questions of these splits are dropped from the rows."""
        return ("validation", "test")

    def check_with(self, shared: Shared, name: str) -> None:
        self.check_best(shared, name)
        self.step_format.how.check_task(shared.task, f"{name}.step_format.split")
        if not self.data and name in shared.stages:
            raise ConfigError(
                f"{name}.data is empty",
                wanted="rows with labelled steps",
                fix=f"set {name}.data to a stage that makes rows, or to a file",
            )
        if self.also and self.also == self.data:
            raise ConfigError(
                f"{name}.also={self.also}, the rows of {name}.data", wanted="other rows, or empty"
            )
