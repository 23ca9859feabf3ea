"""What is rewarded, and how much."""

import re
from dataclasses import dataclass, field, fields
from typing import ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.kernels.token_advantage import BASELINES
from distill_jax.rewards.length import LengthSettings
from distill_jax.rewards.normalise import NORMALISERS

# A setting of this ending is the weight of a term, an entry of `rewards.terms.TERMS`, but for the
# student's part of the intrinsic reward.
_WEIGHT, _OF_NO_TERM = "_weight", ("student_weight",)
# With term length the other terms must leave this much of correctness: less than 1, so that
# rounding to float32 cannot make a right and a wrong answer's rewards equal.
_MOST_OTHERS = 0.99
# Terms that are no part of what the group compares: of the teacher, and a bonus.
_APART = ("intrinsic", "length")
CREDITS = ("sequence", "token", "exact")
# What credit=exact needs: then the teacher's term is KL(π_S‖π_T) of the next token.
_OF_EXACT = {
    "student_weight": 1.0,
    "alpha": 1.0,
    "form": "canonical",
    "discount": 0.0,
    "control": "none",
}
AGGREGATIONS = ("sum", "gdpo")
CONTROLS = ("none", "permuted")
_CUSTOM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class RewardSettings:
    """What is rewarded, and how much."""

    # Not alpha: the report's colours of tokens have it, whatever was trained.
    UNREAD: ClassVar = (
        Unread(
            (
                "gamma",
                "form",
                "sequence",
                "normaliser",
                "clip",
                "student_weight",
                "credit",
                "discount",
                "token_clip",
                "token_baseline",
                "control",
            ),
            ("intrinsic_weight",),
            off,
        ),
        Unread(
            ("discount", "token_clip", "token_baseline"),
            ("credit",),
            lambda credit: credit != "token",
        ),
        Unread(("sequence", "normaliser", "clip"), ("credit",), lambda credit: credit == "exact"),
        Unread(("clip",), ("normaliser",), lambda normaliser: normaliser == "none"),
        Unread(
            ("momentum",),
            ("credit", "adaptive"),
            lambda credit, adaptive: credit == "exact" and not adaptive,
        ),
        Unread(
            ("momentum",),
            ("intrinsic_weight", "adaptive"),
            lambda weight, adaptive: not weight and not adaptive,
        ),
        Unread(
            ("momentum",),
            ("normaliser", "adaptive"),
            lambda normaliser, adaptive: (
                not adaptive and not (normaliser in NORMALISERS and NORMALISERS[normaliser].forgets)
            ),
        ),
        Unread(("length",), ("length_weight",), off),
        Unread(("custom_weight", "custom_deadline_s"), ("custom",), off),
        Unread(
            ("adaptive",),
            ("intrinsic_weight", "reasoning_weight", "format_weight", "custom"),
            lambda *weights: not any(weights),
        ),
        Unread(
            ("adaptive",),
            ("credit", "reasoning_weight", "format_weight", "custom"),
            lambda credit, *weights: credit == "exact" and not any(weights),
        ),
    )

    correctness_weight: float = setting(1.0, "Weight of the verified answer.", low=0.0)
    intrinsic_weight: float = setting(0.3, "Weight of the teacher's intrinsic reward.", low=0.0)
    reasoning_weight: float = setting(
        0.0, "Weight of the share of written equations that are true.", low=0.0
    )
    format_weight: float = setting(
        0.0, "Weight of an answer that is stated as one and ended.", low=0.0
    )
    custom: str = setting(
        "",
        "Your own reward, module:function, called as function(prompts, completions, gold, "
        "**columns) in a process of its own; a list of numbers or None comes back.",
        ref="function",
    )
    custom_weight: float = setting(1.0, "Weight of your own reward.", low=0.0)
    custom_deadline_s: float = setting(
        60.0, "Deadline per batch in seconds; a late batch gets no custom reward.", above=0.0
    )
    length_weight: float = setting(
        0.0,
        "Weight of the bonus for right answers that are short, added to the advantage outside "
        "the group's std and never more than half of what correctness is worth there.",
        low=0.0,
    )
    length: LengthSettings = field(default_factory=LengthSettings)
    adaptive: bool = setting(
        False,
        "Multiply the weights (not correctness') by ½ to 2, by how a term goes along with right "
        "answers (rewards/adaptive.py).",
    )
    right: float = setting(1.0, "Reward of a right answer.")
    wrong: float = setting(0.0, "Reward of a wrong or missing answer.")
    alpha: float = setting(1.0, "Soft temperature α of the teacher's policy.", above=0.0)
    gamma: float = setting(
        1.0, "Discount of the inverse soft Bellman operator.", above=0.0, high=1.0
    )
    form: str = setting(
        "canonical",
        "canonical: r = α·log π_T(a|s), independent of how logits are shifted; "
        "raw: r = Q − γ·V(next).",
        choices=("canonical", "raw"),
    )
    student_weight: float = setting(
        0.0,
        "Weight s of the student's own log-probability: the intrinsic reward of a token is "
        "α·(log π_T − s·log π_S). 0: its optimum is the teacher's mode; 1: the teacher.",
        low=0.0,
    )
    sequence: str = setting(
        "mean",
        "How the tokens' intrinsic rewards make a sequence's: their mean (length-normalised) or "
        "their sum. PPO gives each token its share of it. With credit=token only shown.",
        choices=("mean", "sum"),
    )
    credit: str = setting(
        "sequence",
        "Of group methods. sequence: all tokens of a completion share one advantage; token: the "
        "intrinsic reward of each token is added to its own (rewards/token_credit.py); exact: the "
        "loss has the exact KL(student‖teacher) at each token instead, which is token's "
        "expectation over the token drawn (training/exact_credit.py).",
        choices=CREDITS,
    )
    discount: float = setting(
        0.0,
        "Token credit: discount γ of a token's later rewards. 0: its own alone (on-policy "
        "distillation); 1: all of them.",
        low=0.0,
        high=1.0,
    )
    token_clip: float = setting(
        10.0, "Token credit: a token's own reward is cut to ± this, nats; 0 is off.", low=0.0
    )
    token_baseline: str = setting(
        "auto",
        "Token credit: what is subtracted. leave_one_out: mean of the group's other completions "
        "at the same token; auto: none with discount=0 and student_weight=1, whose expectation "
        "is a KL, leave_one_out otherwise.",
        choices=("auto", *BASELINES),
    )
    control: str = setting(
        "none",
        "permuted: the teacher's rewards go to other completions of the prompt, as a control "
        "(rewards/permuted.py).",
        choices=CONTROLS,
    )
    aggregation: str = setting(
        "sum",
        "sum: the group compares the weighted sum of all terms; gdpo: each term is normalised in "
        "its group, then summed and normalised over the batch (arXiv 2601.05242).",
        choices=AGGREGATIONS,
    )
    normaliser: str = setting(
        "rms",
        "Moving statistics that the intrinsic reward is normalised with: none; rms divides by the "
        "root mean square; mean_std, z_score (all values ever seen), min_max (to ±1) and robust "
        "(median and quartiles) centre sequences too. Tokens (PPO) are only ever divided.",
        choices=("none", *NORMALISERS),
    )
    momentum: float = setting(
        0.99, "Momentum of those statistics and of the adaptive weights.", low=0.0, high=0.9999
    )
    clip: float = setting(5.0, "Normalised intrinsic rewards are cut to ± this; 0 is off.", low=0.0)
    overlong_buffer: int = setting(
        0, "Soft overlong punishment over this many last tokens (DAPO); 0 is off.", low=0
    )

    def __post_init__(self) -> None:
        if self.right <= self.wrong:
            raise ConfigError(f"right={self.right} with wrong={self.wrong}", wanted="right > wrong")
        if not any(weight for name, weight in self.weights.items() if name != "length"):
            raise ConfigError(
                "all weights of rewards are 0",
                wanted="one above 0: there would be nothing to learn from",
            )
        if self.custom and not _CUSTOM.fullmatch(self.custom):
            raise ConfigError(f"custom={self.custom!r}", wanted="module:function")
        if self.form == "canonical" and self.gamma != 1.0:
            raise ConfigError(
                f"gamma={self.gamma} with form=canonical",
                wanted="gamma=1: in canonical form V is 0 and γ would do nothing",
                fix="set form=raw, or gamma=1",
            )
        if self.credit == "token" and self.form == "raw":
            raise ConfigError(
                "form=raw with credit=token",
                wanted="form=canonical: a raw reward holds the value of the state that follows",
            )
        if self.exact:
            self._check_exact()
        self._check_length()

    def _check_exact(self) -> None:
        for name, value in _OF_EXACT.items():
            if (got := getattr(self, name)) != value:
                raise ConfigError(
                    f"{name}={got} with credit=exact",
                    wanted=f"{name}={value}: the loss has KL(student‖teacher) at each token",
                    fix=f"set {name}={value}, or credit=token",
                )

    def _check_length(self) -> None:
        if not self.length_weight:
            return
        if self.aggregation != "sum":
            raise ConfigError(
                f"aggregation={self.aggregation} with length_weight={self.length_weight}",
                wanted="aggregation=sum: terms normalised apart may lift a wrong answer over a "
                "right one, and the bonus is bounded by their distance",
            )
        if self.overlong_buffer:
            raise ConfigError(
                f"overlong_buffer={self.overlong_buffer} with length_weight={self.length_weight}",
                wanted="one of them: overlong_buffer is inside the group's std",
                fix="set length.form=dapo_overlong and length.buffer",
            )
        if self.reach > _MOST_OTHERS * self.gap:
            raise ConfigError(
                f"length_weight={self.length_weight} with terms that pay up to {self.reach:g} "
                f"more for a wrong answer, and correctness {self.gap:g} more for a right one",
                wanted=f"at most {_MOST_OTHERS} of that: a short right answer must be worth more "
                "than any wrong one",
                fix="set intrinsic_weight=0 and no custom reward, or lower weights and clip",
            )

    @property
    def gap(self) -> float:
        """What correctness pays for a right answer more than for a wrong one."""
        return self.correctness_weight * (self.right - self.wrong)

    @property
    def reach(self) -> float:
        """The most that all other terms of a group method can pay for one answer over another.

        With credit=token the intrinsic reward pays tokens, and no answer; with exact, nothing.
        """
        infinite = float("inf")
        clipped = 2 * self.clip if self.clip and self.normaliser != "none" else infinite
        range_of = {"intrinsic": clipped, "custom": infinite, "reasoning": 1.0, "format": 1.0}
        total = sum(
            self.weights[name] * most
            for name, most in range_of.items()
            if self.weights[name] and not (name == "intrinsic" and self.credit != "sequence")
        )
        return (2 if self.adaptive else 1) * total

    @property
    def sequence_weight(self) -> float:
        """Sum of the weights of the terms that a group compares apart from the teacher's, under
        credit token and exact; 1 without."""
        return sum(w for name, w in self.weights.items() if name not in _APART) or 1.0

    @property
    def compares(self) -> bool:
        """Whether a group method needs other completions of the prompt to compare one with."""
        terms = [name for name, weight in self.weights.items() if weight and name != "intrinsic"]
        alone = self.credit == "token" and self.baseline_of_tokens == "none"
        dense = alone or self.credit == "exact"
        return bool(terms) or not dense or bool(self.overlong_buffer) or self.control != "none"

    @property
    def exact(self) -> bool:
        """Whether the teacher's term is in the loss, and no reward."""
        return self.credit == "exact" and self.intrinsic_weight > 0

    @property
    def baseline_of_tokens(self) -> str:
        """`token_baseline`, auto resolved.

        Where the expectation of D_t over a state's tokens is −KL the reward is 0 at the optimum
        and needs no baseline. Without −log π_S, or with the rest of the answer, D_t has a mean far
        from 0, which a baseline takes away.
        """
        if self.token_baseline != "auto":
            return self.token_baseline
        return "none" if not self.discount and self.student_weight == 1.0 else "leave_one_out"

    @property
    def weights(self) -> dict[str, float]:
        """Base weight of each term, 0 where it is off."""
        settings = [f.name for f in fields(self) if f.name not in _OF_NO_TERM]
        names = [name.removesuffix(_WEIGHT) for name in settings if name.endswith(_WEIGHT)]
        found = {name: float(getattr(self, f"{name}{_WEIGHT}")) for name in names}
        return found if self.custom else {**found, "custom": 0.0}
