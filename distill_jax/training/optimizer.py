"""The optax chain: clip by global norm, then AdamW under warm-up and a schedule."""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import optax

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule."""

    UNREAD: ClassVar = (
        Unread(("final_fraction",), ("schedule",), lambda schedule: schedule == "constant"),
    )

    learning_rate: float = setting(1e-4, "Peak learning rate.", above=0.0)
    schedule: str = setting("cosine", "Shape after warm-up.", choices=SCHEDULES)
    warmup_steps: int = setting(
        0, "Updates of linear warm-up; the first uses peak/warmup_steps.", low=0
    )
    final_fraction: float = setting(
        0.1, "Last learning rate as a fraction of the peak (linear, cosine).", low=0.0, high=1.0
    )
    b1: float = setting(0.9, "Decay of the first moment.", low=0.0, high=0.9999)
    b2: float = setting(0.95, "Decay of the second moment.", low=0.0, high=0.99999)
    eps: float = setting(1e-8, "Added to the root of the second moment.", above=0.0)
    weight_decay: float = setting(0.0, "Decoupled weight decay.", low=0.0)
    max_grad_norm: float = setting(1.0, "Gradients are scaled down to this global norm.", above=0.0)


def learning_rate(settings: OptimizerSettings, total_updates: int) -> optax.Schedule:
    """Learning rate as a function of the update's number, counted from 0.

    Raises:
        ConfigError: the warm-up is longer than the run.
    """
    peak, warm = settings.learning_rate, settings.warmup_steps
    if warm >= total_updates and warm > 0:
        raise ConfigError(
            f"warmup_steps={warm} of {total_updates} updates",
            wanted="fewer than all updates",
            fix="lower warmup_steps",
        )
    rest = max(total_updates - warm, 1)
    last = peak * settings.final_fraction
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, last, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, settings.final_fraction),
    }[settings.schedule]()
    if warm == 0:
        return after
    # The first update already moves: (1/warm)·peak, …, peak.
    rise = optax.linear_schedule(peak / warm, peak, max(warm - 1, 1))
    return optax.join_schedules([rise, after], [warm])


@functools.lru_cache(maxsize=32)
def make(settings: OptimizerSettings, total_updates: int) -> optax.GradientTransformation:
    """clip_by_global_norm(max_grad_norm) then AdamW.

    The state holds moments for the tree given to `init`, and the last update's `learning_rate`.
    """
    static = ("b1", "b2", "eps", "eps_root", "mu_dtype", "weight_decay", "mask", "nesterov")
    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.inject_hyperparams(optax.adamw, static_args=static)(
            learning_rate=learning_rate(settings, total_updates),
            b1=settings.b1,
            b2=settings.b2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        ),
    )


@functools.lru_cache(maxsize=32)
def make_with_head(
    settings: OptimizerSettings, total_updates: int, head: str, scale: float
) -> optax.GradientTransformation:
    """`make`, with the learning rate of the subtree `head` multiplied by `scale`."""

    def faster(changes: dict[str, Any], params: Any = None) -> dict[str, Any]:
        del params
        return {**changes, head: jax.tree.map(lambda x: scale * x, changes[head])}

    return optax.chain(make(settings, total_updates), optax.stateless(faster))
