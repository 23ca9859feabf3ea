"""Replay: a group without an advantage gives its place in the update to an earlier, unequal group.

A group that is all right, or all wrong, adds nothing to the gradient. With replay its place is
taken by a group of the last steps, with the tokens, log-probabilities and advantages of then: the
ratio of the loss is that to the policy that drew it. A group's score is Σ|Â|·σ, of its advantages
and the standard deviation of its rewards, as in the replay buffer that TRL once had.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from distill_jax.core.masked import masked_mean
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.training.batch import Advantages, PolicyBatch

KEY = "replay"
# Advantages below it are rounding of equal rewards.
_NONE = 1e-5


@dataclass(frozen=True)
class ReplaySettings:
    """Groups that later steps learn from again."""

    UNREAD: ClassVar = (Unread(("max_age",), ("groups",), off),)

    groups: int = setting(
        0,
        "Groups with unequal rewards that are kept; in later steps those that fit into the padded "
        "batch take the places of groups whose rewards are equal. 0 is off.",
        low=0,
    )
    max_age: int = setting(
        8, "Steps after which a kept group is dropped: an older policy drew it.", low=1
    )


@flax.struct.dataclass
class Buffer:
    """N groups of G completions, widest first axes [N, G]; a score of 0 marks an empty place.

    Attributes:
        rows: policy batch with leaves [N, G, ...].
        length_NG: int32, tokens of each response.
        score_N: f32.
        step_N: int32, the step that drew the group.
    """

    rows: PolicyBatch
    length_NG: jax.Array
    score_N: jax.Array
    step_N: jax.Array


def fresh(
    settings: ReplaySettings,
    samples: int,
    tokens: int,
    responses: int,
    *,
    reference: bool,
    top_entropy: bool,
) -> dict[str, Buffer]:
    """What the reward state holds of it before the first step: {} where it is off.

    Args:
        settings: how many groups.
        samples: G.
        tokens: T of a kept row, prompt and response; longer ones are not kept.
        responses: R of a kept row.
        reference, top_entropy: whether the batch has ref_logp_BR and top_entropy_BR.
    """
    if not settings.groups:
        return {}
    of_group = (settings.groups, samples)

    def response(dtype: Any = jnp.float32) -> jax.Array:
        return jnp.zeros((*of_group, responses), dtype)

    rows = PolicyBatch(
        tokens_BT=jnp.zeros((*of_group, tokens), jnp.int32),
        prompts_PS=None,
        prompt_len_B=jnp.zeros(of_group, jnp.int32),
        targets_BR=response(jnp.int32),
        loss_mask_BR=response(),
        behaviour_logp_BR=response(),
        old_logp_BR=response(),
        ref_logp_BR=response() if reference else None,
        advantages=Advantages(response(), top_entropy_BR=response() if top_entropy else None),
    )
    count = settings.groups
    empty = jnp.zeros((count,), jnp.int32)
    return {KEY: Buffer(rows, jnp.zeros(of_group, jnp.int32), jnp.zeros((count,)), empty)}


def held_bytes(
    settings: ReplaySettings, samples: int, tokens: int, responses: int, **has: bool
) -> int:
    """Bytes of the rows that `fresh` makes, by its arguments."""
    return 4 * settings.groups * samples * (tokens + (5 + sum(has.values())) * responses)


@functools.lru_cache(maxsize=32)
def program(rows: Any, whole: Any, **how: Any) -> Callable[..., Any]:
    """`mix`, jitted once for equal keywords; the batch is split as `rows`."""
    return jax.jit(functools.partial(mix, **how), out_shardings=(rows, whole, whole))


def mix(
    buffer: Buffer,
    policy: PolicyBatch,
    length_B: jax.Array,
    reward_B: jax.Array,
    key: jax.Array,
    step: Any,
    *,
    samples: int,
    max_age: int,
) -> tuple[PolicyBatch, Buffer, dict[str, jax.Array]]:
    """Fills the places of groups without an advantage, and keeps this step's other groups.

    Kept groups are drawn without a repeat, in proportion to their scores, from those at most
    `max_age` steps old that fit into the batch's T and R. The buffer keeps the highest scores.

    Args:
        buffer: as `fresh` has it.
        policy: this step's batch of B = P·samples rows; with old_logp_BR.
        length_B: int32, tokens of each response.
        reward_B: f32, of each completion.
        key: of the draw.
        step: number of the step, int32 [].
        samples: G.
        max_age: as in the settings.

    Returns:
        (policy batch, buffer, metrics: "replay/share" of the groups, their mean "replay/age" in
        steps, "replay/kept", and "step_tokens" and "step_response_tokens" of the whole batch).
    """
    now = jax.tree.map(lambda leaf: leaf.reshape(-1, samples, *leaf.shape[1:]), policy)
    length_PG, reward_PG = length_B.reshape(-1, samples), reward_B.reshape(-1, samples)
    mask_PGR, advantage_PGR = now.loss_mask_BR, now.advantages.advantage_BR
    size_PG = masked_mean(jnp.abs(advantage_PGR), mask_PGR, axis=2)
    equal_P = jnp.max(jnp.abs(advantage_PGR) * mask_PGR, axis=(1, 2)) < _NONE
    score_P = jnp.where(equal_P, 0.0, jnp.sum(size_PG, axis=1) * jnp.std(reward_PG, axis=1))
    # --- which kept group goes where ---
    age_N = step - buffer.step_N
    kept_N = (buffer.score_N > 0) & (age_N <= max_age)
    usable_N = kept_N & _fits(buffer.rows.prompt_len_B, buffer.length_NG, now)
    chance_N = jnp.log(buffer.score_N) + jax.random.gumbel(key, buffer.score_N.shape)
    order_N = jnp.argsort(-jnp.where(usable_N, chance_N, -jnp.inf))
    rank_P = jnp.cumsum(equal_P) - 1
    replaced_P = equal_P & (rank_P < jnp.sum(usable_N))
    source_P = order_N[jnp.clip(rank_P, 0, len(order_N) - 1)]
    earlier = jax.tree.map(lambda leaf: leaf[source_P], (buffer.rows, buffer.length_NG))
    rows, length_PG_after = _where(
        replaced_P, (_resized(earlier[0], now), earlier[1]), (now, length_PG)
    )
    # --- what is kept for later ---
    fits_P = _fits(now.prompt_len_B, length_PG, buffer.rows)
    born_P = jnp.full(score_P.shape, step, jnp.int32)
    every = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b]),  # of equal scores the newer ones stay
        Buffer(_resized(now, buffer.rows), length_PG, jnp.where(fits_P, score_P, 0.0), born_P),
        dataclasses.replace(
            buffer, score_N=jnp.where(kept_N & (age_N < max_age), buffer.score_N, 0.0)
        ),
    )
    best_N = jax.lax.top_k(every.score_N, len(buffer.score_N))[1]
    after = jax.tree.map(lambda leaf: leaf[best_N], every)
    replaced = jnp.sum(replaced_P)
    metrics = {
        "replay/share": jnp.mean(replaced_P.astype(jnp.float32)),
        "replay/age": jnp.sum(jnp.where(replaced_P, age_N[source_P], 0)) / jnp.maximum(replaced, 1),
        "replay/kept": jnp.sum(after.score_N > 0),
        "step_tokens": jnp.sum(rows.prompt_len_B) + jnp.sum(length_PG_after),
        "step_response_tokens": jnp.sum(length_PG_after),
    }
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows), after, metrics


def _where(replaced_P: jax.Array, earlier: Any, now: Any) -> Any:
    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(replaced_P.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(one, earlier, now)


def _fits(prompt_NG: jax.Array, length_NG: jax.Array, target: PolicyBatch) -> jax.Array:
    """Whether all rows of a group fit into the widths of `target`, bool [N]."""
    T, R = target.tokens_BT.shape[-1], target.targets_BR.shape[-1]
    return jnp.all((prompt_NG + length_NG <= T) & (length_NG <= R), axis=1)


def _resized(rows: PolicyBatch, target: PolicyBatch) -> PolicyBatch:
    """The rows with the widths of `target`: cut off, or padded with zeros, which nothing reads."""

    def to(leaf: jax.Array, like: jax.Array) -> jax.Array:
        if leaf.ndim < 3:
            return leaf
        width = like.shape[2]
        return jnp.pad(leaf[:, :, :width], ((0, 0), (0, 0), (0, max(width - leaf.shape[2], 0))))

    return jax.tree.map(to, rows, target)
