"""The settings of stage kind evolve."""

from dataclasses import dataclass
from typing import Any, ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.run.settings import BASE, Shared, TrainSettings
from distill_jax.stages.settings import STUDENT_TRAINING

TRAINED_FROM = ("start", "previous")
# Settings that are read with a reward model alone.
_OF_REWARDS = ("reward_model_other", "threshold", "explore")


@dataclass(frozen=True)
class EvolveSettings(TrainSettings, kind="evolve", makes="student", byproducts=("rows",)):
    """Self-evolution: rounds in which a student learns on its own right solutions; `steps` each.

    A round draws solutions of training problems, takes right ones (and of these the ones that a
    reward model scores high), and trains on them and on given solutions.
    """

    # Not eval_problems: pass@1 and pass@k of every round are of those.
    UNREAD: ClassVar = (Unread(("eval_batch",), ("eval_every",), off),)

    start: str = setting(
        BASE, "Student that is trained: base, a stage, or a directory.", ref="student"
    )
    model: str = setting(
        BASE,
        "Student that writes the first round's solutions: base, a stage, or a directory.",
        ref="student",
    )
    trained_from: str = setting(
        "start",
        "What a round's training starts from: start, or the student of the previous round.",
        choices=TRAINED_FROM,
    )
    rounds: int = setting(3, "Most rounds.", low=1)
    problems: int = setting(0, "Training problems to solve, the first ones; 0 is all.", low=0)
    samples: int = setting(8, "Solutions drawn of each problem.", low=1)
    temperature: float = setting(
        0.8, "Temperature of the sampling, that of held-out problems included.", above=0.0
    )
    batch: int = setting(256, "Solutions decoded at a time.", low=1, affects="rounding")
    reward_model: str = setting(
        "",
        "Reward model that filters right solutions: a stage or a directory; empty: none. One with "
        "prm.half scores only problems of the other half.",
        ref="reward_model",
    )
    reward_model_other: str = setting(
        "", "The reward model of the other half (prm.half) of the problems.", ref="reward_model"
    )
    threshold: float = setting(
        0.6, "Right solutions are accepted whose score is above.", low=0.0, high=1.0
    )
    per_problem: int = setting(2, "Most solutions of a problem that are learnt on.", low=1)
    level_ratio: float = setting(
        1.5,
        "A level has at most this many times an equal share of the solutions that are learnt on; "
        "0 is off.",
        low=0.0,
    )
    base_share: float = setting(
        0.5,
        "Share of each batch that shows given solutions of training problems.",
        low=0.0,
        high=1.0,
    )
    batch_size: int = setting(32, "Rows a step.", low=1)
    k: int = setting(
        8, "Samples of each of the eval_problems validation problems, for pass@1 and pass@k.", low=1
    )
    patience: int = setting(2, "Stop after so many rounds in which pass@1 did not rise.", low=1)
    pass_k_margin: float = setting(
        0.02, "Stop when pass@k falls by more than this from one round to the next.", low=0.0
    )
    explore: bool = setting(
        False,
        "Of each problem without a right solution, cut a wrong one at its first low-scored step, "
        "write the rest once more, and compare with fresh samples of as many tokens.",
    )

    def __post_init__(self) -> None:
        for name in _OF_REWARDS:
            if not self.reward_model and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"{name}={getattr(self, name)} without reward_model", fix="set reward_model"
                )
        if self.reward_model and self.reward_model == self.reward_model_other:
            raise ConfigError(
                f"reward_model_other={self.reward_model_other}, the same as reward_model",
                wanted="the one of the other half of the problems",
            )
        if self.base_share == 1.0:
            raise ConfigError("base_share=1", wanted="below 1: no own solution would be learnt on")

    @property
    def scorers(self) -> tuple[str, ...]:
        """The reward models' references."""
        return tuple(one for one in (self.reward_model, self.reward_model_other) if one)

    @property
    def own_rows(self) -> int:
        """Rows of a batch that show the student's own solutions: at least one."""
        return max(1, self.batch_size - round(self.base_share * self.batch_size))

    def shared(self) -> tuple[str, ...]:
        return (*STUDENT_TRAINING, "sampling")

    def roles(self) -> tuple[str, ...]:
        return ("student",)

    def splits(self) -> tuple[str, ...]:
        return ("train", "validation")

    def check_with(self, shared: Shared, name: str) -> None:
        self.check_best(shared, name)

    def summary(self, shared: Shared) -> dict[str, Any]:
        del shared
        return {"rounds": self.rounds, "samples": self.samples, "threshold": self.threshold}
