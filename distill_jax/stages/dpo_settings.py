"""The settings of stage kind dpo."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread
from distill_jax.data.pair_rows import PREFER
from distill_jax.kernels import preference
from distill_jax.run.settings import Shared, TrainSettings
from distill_jax.stages.settings import STUDENT_TRAINING
from distill_jax.training.optimizer import OptimizerSettings
from distill_jax.training.preference import Objective

# Settings that rows of stage traces read, and pairs do not.
OF_TRACES = ("prefer", "pairs_per_problem", "length_ratio")
# Settings of sampling that greedy answers depend on.
_OF_ANSWERS = ("max_new_tokens", "rounds", "output_tokens")


@dataclass(frozen=True)
class DPOSettings(TrainSettings, kind="dpo", makes="student"):
    """Preference training (DPO and relatives) of the student's LoRA parameters on pairs."""

    UNREAD: ClassVar = (
        Unread(
            ("eval_problems", "eval_batch"),
            ("eval_every", "guard_margin"),
            lambda every, margin: not every and margin is None,
        ),
    )

    start: str = setting(
        "sft",
        "Student to start from, which is also the reference: base, a stage, or a directory.",
        ref="student",
    )
    data: str = setting(
        "",
        "Rows of {prompt, chosen, rejected}, or those of stage traces: a stage that makes rows, or "
        "a file.",
        ref="rows",
    )
    loss: str = setting(
        "sigmoid",
        "Loss of a pair. All but sigmoid_norm, simpo and ipo sum over tokens: if the lengths of "
        "pairs differ, use sigmoid_norm with beta=5 and sft_weight=0.2.",
        choices=tuple(preference.PREFERENCES),
    )
    beta: float = setting(0.1, "β; simpo wants about 2.", above=0.0)
    label_smoothing: float = setting(
        0.0, "Probability that a pair is the wrong way round (sigmoid: cDPO; robust).", low=0.0
    )
    target_margin: float = setting(0.0, "γ/β of simpo, about 0.5.", low=0.0)
    sft_weight: float = setting(
        0.0, "Weight of the cross-entropy of the chosen completions (TRL's sft).", low=0.0
    )
    prefer: str = setting(
        "right",
        "Pairs of traces: right, a right one over a wrong one; short, the shortest right one "
        "over a longer right one.",
        choices=PREFER,
    )
    length_ratio: float = setting(
        1.3,
        "With prefer=short: the rejected has at least this times the chosen's tokens.",
        above=1.0,
    )
    pairs_per_problem: int = setting(2, "Most pairs made of a problem's traces.", low=1)
    most: int = setting(0, "Most pairs, drawn by seed; 0 is all.", low=0)
    max_length: int = setting(
        0,
        "Most tokens of prompt and completion: longer pairs are dropped and counted; 0 is "
        "data.max_prompt_tokens + sampling.max_new_tokens.",
        low=0,
    )
    most_drift: float = setting(
        0.0,
        "End training once the chosen completions of a batch are less likely than under the "
        "reference by more than this many nats per token (logps/chosen_drift); 0 is off.",
        low=0.0,
    )
    guard_margin: float | None = setting(
        None,
        "Points (of 100) by which greedy accuracy on the eval_problems validation problems may "
        "fall from start to end; below, the stage is marked regressed and its student is the one "
        "that it started from. None: off.",
        low=0.0,
        high=100.0,
    )
    batch_size: int = setting(32, "Pairs a step.", low=1)
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=5e-6)
    )

    def __post_init__(self) -> None:
        preference.check(self.loss, smoothing=self.label_smoothing, target=self.target_margin)
        if self.most_drift and not self.uses_reference:
            raise ConfigError(
                f"most_drift={self.most_drift} with loss={self.loss}",
                wanted="0: this loss has no reference to compare with",
            )
        if self.prefer != "short" and self.length_ratio != type(self).length_ratio:
            raise ConfigError(
                f"length_ratio={self.length_ratio} with prefer={self.prefer}", wanted="prefer=short"
            )

    @property
    def objective(self) -> Objective:
        """The parameters of the loss."""
        return Objective(
            self.loss, self.beta, self.label_smoothing, self.target_margin, self.sft_weight
        )

    @property
    def uses_reference(self) -> bool:
        """Whether the loss reads the reference's log-probabilities."""
        return preference.PREFERENCES[self.loss].uses_reference

    def longest(self, shared: Shared) -> int:
        """Most tokens of prompt and completion."""
        return self.max_length or shared.data.max_prompt_tokens + shared.sampling.max_new_tokens

    def shared(self) -> tuple[str, ...]:
        limits = set() if self.max_length else {"sampling.max_new_tokens"}
        if self.guard_margin is not None:  # greedy answers decide which student it makes
            limits |= {f"sampling.{name}" for name in _OF_ANSWERS}
        return (*STUDENT_TRAINING, *sorted(limits))

    def roles(self) -> tuple[str, ...]:
        return ("student",)

    def splits(self) -> tuple[str, ...]:
        """Questions of these splits are dropped from the rows."""
        return ("validation", "test")

    def check_with(self, shared: Shared, name: str) -> None:
        self.check_best(shared, name)
        if not self.data and name in shared.stages:
            raise ConfigError(
                f"{name}.data is empty",
                wanted="rows of pairs, or of stage traces",
                fix=f"set {name}.data to a stage that makes rows, or to a file",
            )

    def summary(self, shared: Shared) -> dict[str, Any]:
        del shared
        return {"loss": self.loss, "beta": self.beta, "sft_weight": self.sft_weight}
