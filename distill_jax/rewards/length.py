"""The reward of short answers: term `length`, a bonus for right answers of one of the FORMS.

Only right answers that ended get it, only where the policy already solves the problem, and it is
centred over those of the group: truncated, undecided and wrong answers get 0 and pay for nothing.
It stays outside the division by the group's spread, and `rewards/bonuses.py` bounds it. Plain
penalties of length collapse accuracy; a gate by the pass rate does not (GRPO-λ, arXiv 2505.18086).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.kernels import length_reward as kernels
from distill_jax.kernels.bonus import centred_over_right
from distill_jax.kernels.grpo import overlong_punishment


class Group(NamedTuple):
    """What a form reads of P groups of G samples: length_PG f32 in tokens, right_PG bool, and the
    longest answer that may be drawn, in tokens."""

    length_PG: jax.Array
    right_PG: jax.Array
    longest: int


@dataclass(frozen=True)
class Form:
    """One published form.

    Attributes:
        score: (group, settings) -> f32 [P, G], read at right answers alone.
        per_token: its default of `length.per_token`; None: it does not read that.
        reads: the other settings that it reads; they must be set.
    """

    score: Callable[[Group, "LengthSettings"], jax.Array]
    per_token: float | None = None
    reads: tuple[str, ...] = ()


def _o1_pruner(group: Group, settings: "LengthSettings") -> jax.Array:
    # The source's statistics are those of a frozen reference. The group's own follow the policy:
    # an answer is compared with what the policy writes now.
    mean_P = jnp.mean(group.length_PG, axis=1)
    accuracy_P = jnp.mean(group.right_PG.astype(jnp.float32), axis=1)
    return kernels.o1_pruner(group.length_PG, group.right_PG, mean_P, accuracy_P)


FORMS: dict[str, Form] = {
    # 2e-4 is the program-of-thought system's constant, there for a character.
    "linear": Form(lambda g, s: kernels.linear(g.length_PG, s.rate), per_token=2e-4),
    "kimi": Form(lambda g, s: kernels.kimi(g.length_PG, g.right_PG)),
    "lcpo_exact": Form(
        lambda g, s: kernels.lcpo_exact(g.length_PG, g.right_PG, s.target, s.rate),
        per_token=3e-4,
        reads=("target",),
    ),
    "lcpo_max": Form(
        lambda g, s: kernels.lcpo_max(g.length_PG, g.right_PG, s.target, s.rate),
        per_token=3e-4,
        reads=("target",),
    ),
    "alp": Form(lambda g, s: kernels.alp(g.length_PG, g.right_PG, s.rate), per_token=1e-4),
    "o1_pruner": Form(_o1_pruner),
    "dapo_overlong": Form(
        lambda g, s: overlong_punishment(g.length_PG, g.longest, s.buffer), reads=("buffer",)
    ),
}


@dataclass(frozen=True)
class LengthSettings:
    """Term length, a bonus for right answers that are short."""

    form: str = setting(
        "linear",
        "linear: −per_token for each token; kimi: ½ to −½ from the group's shortest to its "
        "longest; lcpo_exact, lcpo_max: near, or at most, target tokens; alp: linear × pass rate; "
        "o1_pruner: mean length / length; dapo_overlong: −1 over the last buffer tokens.",
        choices=tuple(FORMS),
    )
    gate: float = setting(0.75, "Least pass rate of a group that gets the term.", low=0.0, high=1.0)
    per_token: float | None = setting(
        None,
        "Price of one token (linear, lcpo_exact, lcpo_max, alp); None: the form's own, "
        "2e-4, 3e-4, 3e-4, 1e-4.",
        above=0.0,
    )
    target: int = setting(0, "Tokens n* of lcpo_exact and lcpo_max.", low=0)
    buffer: int = setting(
        0, "Last tokens before sampling.max_new_tokens that dapo_overlong punishes.", low=0
    )

    def __post_init__(self) -> None:
        form = FORMS.get(self.form)
        if form is None:
            raise ConfigError(f"form={self.form!r}", wanted=f"one of {', '.join(FORMS)}")
        if self.per_token is not None and form.per_token is None:
            raise _unread("per_token", self.per_token, self.form)
        for name in ("target", "buffer"):
            value = getattr(self, name)
            if value and name not in form.reads:
                raise _unread(name, value, self.form)
            if not value and name in form.reads:
                raise ConfigError(f"{name}=0 with form={self.form}", wanted="tokens, at least 1")

    @property
    def rate(self) -> float:
        """Price of one token."""
        return self.per_token or FORMS[self.form].per_token or 0.0


def _unread(name: str, value: float, form: str) -> ConfigError:
    got = f"{name}={value} with form={form}"
    return ConfigError(got, wanted="its default: this form does not read it")


def bonus(
    settings: LengthSettings,
    weight: float,
    right_B: jax.Array,
    ended_B: jax.Array,
    length_B: jax.Array,
    samples: int,
    longest: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted bonus, centred over the right answers that ended, and its figures.

    Args:
        settings, weight: of the term.
        right_B, ended_B: bool.
        length_B: f32, tokens that the model wrote, EOS included.
        samples: G; B = P·G. The pass rate is right answers / G, undecided ones counted.
        longest: the longest answer that may be drawn, in tokens.

    Returns:
        (f32 [B, 1], metrics). Where a batch has no right answer that ended, or no group whose gate
        is open, the figures of those are NaN.
    """
    right_PG = right_B.reshape(-1, samples)
    # Counted, not divided: 7/10 in float32 must pass a gate of .7.
    needed = math.ceil(settings.gate * samples - 1e-6)
    kept_PG = right_PG & ended_B.reshape(-1, samples)
    open_P = (jnp.sum(right_PG, axis=1) >= needed) & (jnp.sum(kept_PG, axis=1) >= 2)
    group = Group(length_B.astype(jnp.float32).reshape(-1, samples), right_PG, longest)
    value_B = FORMS[settings.form].score(group, settings).reshape(-1)
    paid_B = (kept_PG & open_P[:, None]).reshape(-1)
    ones_B1 = jnp.ones((len(value_B), 1), jnp.float32)
    centred_B1 = centred_over_right(value_B[:, None], paid_B, ones_B1, samples)
    bonus_B1 = weight * centred_B1
    return bonus_B1, {
        "rewards/length/mean": jnp.mean(value_B, where=paid_B),
        "rewards/length/std": jnp.std(value_B, where=paid_B),
        "length/bonus": jnp.mean(jnp.abs(bonus_B1[:, 0]), where=paid_B),
        "length/tokens_right": jnp.mean(length_B, where=kept_PG.reshape(-1)),
        "length/open": jnp.mean(open_P),
    }
