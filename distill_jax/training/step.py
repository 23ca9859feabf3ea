"""The update: gradients (accumulated over microbatches), clipping, optimiser, non-finite skip."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_jax.core import rng, row_groups
from distill_jax.core.errors import ConfigError
from distill_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
# loss(trainable, frozen, batch, totals, key) -> (part of the loss, parts of the metrics).
# `totals` are sums over the whole batch, so that the parts of all microbatches add up.
LossFn = Callable[[Any, Any, Any, Any, jax.Array], tuple[jax.Array, Metrics]]
TotalsFn = Callable[[Any], Any]


def make_update(
    loss: LossFn,
    totals: TotalsFn,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    shardings: TrainState,
    *,
    accumulate: int = 1,
) -> Callable[[TrainState, Any, Any, Any, Any], tuple[TrainState, Metrics]]:
    """A jitted update(state, frozen, batch, number, advance) -> (state, metrics).

    `number` tells the updates of one loop step apart (int32; with the state's key and step it
    seeds dropout); `advance` (0 or 1) is added to `state.step`: 1 in a loop step's last update.

    Args:
        loss: see LossFn; metrics add over microbatches, except names ending in `max` or `min`.
        totals: whole-batch normalisers from the batch.
        tx: optimiser over state.trainable.
        mesh: the rows of a microbatch are split over it.
        shardings: of the state; kept by the result.
        accumulate: microbatches; without dropout the update equals that of the whole batch up to
            rounding, with dropout their masks differ. If the batch has arrays [P, ...] and
            [P·G, ...], a microbatch holds whole groups.

    The state is donated. A loss or gradient that is not finite leaves parameters, optimiser and
    its step count as they were and adds to `skipped`.
    Metrics added here: loss, grad_norm (before clipping), skipped, and learning_rate where the
    optimiser's state holds it.

    Equal arguments give the same function, so that stages with equal updates share a program.

    Raises:
        ConfigError: when traced with a batch whose rows, or groups, `accumulate` does not divide.
    """
    leaves, tree = jax.tree.flatten(shardings)
    return _jitted(loss, totals, tx, mesh, accumulate, tree, *leaves)


@functools.lru_cache(maxsize=32)
def _jitted(loss, totals, tx, mesh, accumulate, tree, *leaves):
    shardings = jax.tree.unflatten(tree, leaves)

    def gradients(state: TrainState, frozen: Any, batch: Any, key: jax.Array):
        sums = totals(batch)
        grad = jax.value_and_grad(loss, has_aux=True)
        if accumulate == 1:
            return grad(state.trainable, frozen, batch, sums, key)

        @functools.partial(jax.jit, inline=True)  # traced once, for its shapes and in the loop
        def one(index: jax.Array, micro: Any):
            return grad(state.trainable, frozen, micro, sums, jax.random.fold_in(key, index))

        cut = functools.partial(_cut, row_groups.group_count(batch), accumulate, mesh)
        inputs = jnp.arange(accumulate), jax.tree.map(cut, batch)
        start = _empty(jax.eval_shape(one, *jax.tree.map(lambda leaf: leaf[0], inputs)))
        return jax.lax.scan(lambda done, x: (_add(done, one(*x)), None), start, inputs)[0]

    def update(state: TrainState, frozen: Any, batch: Any, number: Any, advance: Any):
        key = rng.stream_key(state.key, "update", state.step, number)
        (value, metrics), grads = gradients(state, frozen, batch, key)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        changes, opt_state = tx.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, changes)
        keep = functools.partial(jax.tree.map, lambda new, old: jnp.where(finite, new, old))
        missed = 1 - finite.astype(jnp.int32)
        state = dataclasses.replace(
            state,
            step=state.step + advance,
            trainable=keep(trainable, state.trainable),
            opt_state=keep(opt_state, state.opt_state),
            skipped=state.skipped + missed,
            skipped_in_row=(state.skipped_in_row + missed) * missed,
        )
        metrics = {**metrics, "loss": value, "grad_norm": norm, "skipped": missed}
        # Besides the number, optax keeps a state of its schedule under the same name.
        rate = optax.tree.get(
            opt_state, "learning_rate", filtering=lambda _, leaf: isinstance(leaf, jax.Array)
        )
        if rate is not None:
            metrics["learning_rate"] = rate
        return state, metrics

    return jax.jit(update, donate_argnums=0, out_shardings=(shardings, None))


def _cut(count: int, parts: int, mesh: Mesh, leaf: jax.Array) -> jax.Array:
    """[count·k, ...] -> [parts, count·k/parts, ...], of whole groups of k rows.

    Strided, so that each device keeps those it has.
    """
    if count % parts:
        raise ConfigError(
            f"accumulate={parts} microbatches of {count} rows or groups of rows",
            wanted="a divisor of their number",
        )
    each, rest = leaf.shape[0] // count, leaf.shape[1:]
    strided = jnp.swapaxes(leaf.reshape(count // parts, parts, each, *rest), 0, 1)
    strided = strided.reshape(parts, count // parts * each, *rest)
    where = NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))
    return jax.lax.with_sharding_constraint(strided, where)


def _empty(shapes: Any) -> Any:
    """What changes nothing when `_add` is given it."""
    (value, metrics), grads = shapes
    none = {"max": -jnp.inf, "min": jnp.inf}
    metrics = {name: jnp.full_like(x, none.get(name[-3:], 0)) for name, x in metrics.items()}
    return (jnp.zeros_like(value), metrics), jax.tree.map(jnp.zeros_like, grads)


def _add(left: Any, right: Any) -> Any:
    (value_l, some), grads_l = left
    (value_r, more), grads_r = right
    how = {"max": jnp.maximum, "min": jnp.minimum}
    metrics = {name: how.get(name[-3:], jnp.add)(x, more[name]) for name, x in some.items()}
    return (value_l + value_r, metrics), jax.tree.map(jnp.add, grads_l, grads_r)
