"""CurriculumSettings: which curriculum, over which arms, and what an arm is valued for."""

from dataclasses import dataclass
from typing import ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.curriculum.arms import KINDS, UNLEVELLED
from distill_jax.curriculum.methods import CURRICULA

PACED = ("easy_to_hard", "hard_to_easy", "competence")


@dataclass(frozen=True)
class CurriculumSettings:
    """Which problems are drawn when."""

    # The values of arms are recorded under every method, so what they depend on is read.
    UNREAD: ClassVar = (
        Unread(("temperature", "floor"), ("method",), lambda method: method != "self_evolving"),
        Unread(("pace_steps",), ("method",), lambda method: method not in PACED),
        Unread(("competence_start",), ("method",), lambda method: method != "competence"),
        Unread(("target",), ("method",), lambda method: method != "posterior"),
        Unread(("pool_weight",), ("method",), lambda method: method != "pools"),
        Unread(("memory",), ("method",), lambda method: CURRICULA[method].place is None),
        Unread(("learnt",), ("retention_weight",), off),
    )

    method: str = setting(
        "uniform",
        "Entry of CURRICULA; posterior and pools count verdicts, which stage rl alone has.",
        choices=tuple(CURRICULA),
    )
    arms: str = setting("level", "What the curriculum chooses from.", choices=KINDS)
    unlevelled: str = setting(
        "own_arm",
        "Problems without a level: an arm of their own, dropped, or refused.",
        choices=UNLEVELLED,
    )
    temperature: float = setting(
        0.2, "τ of self_evolving; 1 is nearly uniform for values within 0 to 1.", above=0.0
    )
    learning_rate: float = setting(0.5, "α of the TD(0) update.", above=0.0, high=1.0)
    floor: float = setting(
        0.1, "Share that self_evolving spreads evenly over the arms.", low=0.0, high=1.0
    )
    initial_q: float = setting(0.0, "Value of an arm before its first reward.")
    pace_steps: int = setting(
        0, "Steps that ordered curricula take to the end; 0: the stage's steps.", low=0
    )
    competence_start: float = setting(
        0.01, "Share of the problems that competence begins with (c₀).", above=0.0, high=1.0
    )
    target: float = setting(
        0.5, "Success rate that posterior looks for in problems.", low=0.0, high=1.0
    )
    pool_weight: float = setting(
        0.2, "Weight in pools of hard and of easy problems; 1 for the others.", above=0.0
    )
    memory: float = setting(
        0.5,
        "What a problem's earlier verdicts count when it is drawn again (posterior, pools).",
        low=0.0,
        high=1.0,
    )
    signal_weight: float = setting(
        1.0, "Weight of mean |advantage| (rl) or teacher-student gap (distill).", low=0.0
    )
    progress_weight: float = setting(
        0.0, "Weight of an arm's own gain in mastery: knowledge transfer from the teacher.", low=0.0
    )
    retention_weight: float = setting(
        0.0, "Weight of what an arm once learnt has lost since.", low=0.0
    )
    transfer_weight: float = setting(
        0.0, "Weight of the gain of other arms after an arm was drawn.", low=0.0
    )
    learnt: float = setting(
        0.5, "Moving mastery from which an arm counts as learnt (retention).", low=0.0, high=1.0
    )
    momentum: float = setting(
        0.8, "Memory of an arm's moving mastery and transfer.", low=0.0, high=0.9999
    )

    def __post_init__(self) -> None:
        names = ("signal", "progress", "retention", "transfer")
        weights = [getattr(self, f"{name}_weight") for name in names]
        if self.method == "self_evolving" and not any(weights):
            raise ConfigError(
                "self_evolving with signal, progress, retention and transfer weights of 0",
                wanted="some weight: else no arm is ever worth more than another",
            )
