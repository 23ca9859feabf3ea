"""TrainState: everything that a step changes, and how it lies on the mesh."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.models import value_head
from distill_jax.models.qwen import logical_axes

TRAINABLE = ("lora", "full")


@flax.struct.dataclass
class TrainState:
    """One atomic checkpoint.

    Fields: step int32 [] (loop steps done); trainable (parameter tree); opt_state (optax, for
    trainable only); reward_state (what the rewards carry: running statistics, adaptive weights);
    curriculum_state (values and counts of the arms, verdicts on problems); skipped int32 []
    (updates dropped as not finite); skipped_in_row int32 []; key (typed key of the run).
    """

    step: jax.Array
    trainable: Any
    opt_state: Any
    reward_state: Any
    curriculum_state: Any
    skipped: jax.Array
    skipped_in_row: jax.Array
    key: jax.Array


def split(params: dict[str, Any], mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trainable, frozen) of {"base", "lora"}: mode "lora" trains the adapter, "full" the base."""
    if mode not in TRAINABLE:
        raise ValueError(f"mode {mode!r}, wanted one of {TRAINABLE}")
    if mode == "lora":
        return {"lora": params["lora"]}, {"base": params["base"]}
    return {"base": params["base"]}, {"lora": params["lora"]}


def join(trainable: dict[str, Any], frozen: dict[str, Any]) -> dict[str, Any]:
    """The model's {"base", "lora"} again; heads, if any, stay aside."""
    both = {**frozen, **trainable}
    return {"base": both["base"], "lora": both["lora"]}


def with_value_head(trainable: dict[str, Any], hidden_size: int) -> dict[str, Any]:
    """Adds a value head of zeros, so that the first values are 0."""
    return {**trainable, "value_head": value_head.init(hidden_size)}


def param_shardings(params: dict[str, Any], mesh: sharding.AnyMesh) -> dict[str, Any]:
    """NamedShardings of {"base", "lora"} and of heads, which are whole everywhere, if any."""
    model_part: dict[str, Any] = {n: params[n] for n in ("base", "lora") if n in params}
    out = sharding.shardings(model_part, logical_axes(model_part), mesh)
    for name in params.keys() - out.keys():
        out[name] = jax.tree.map(lambda _: sharding.replicated(mesh), params[name])
    return out


def state_shardings(state: TrainState, tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """NamedShardings for a state (or its shapes): moments lie where their parameters do."""
    of_params = param_shardings(state.trainable, mesh)
    of_opt = opt_shardings(state.opt_state, state.trainable, tx, mesh)
    rest = jax.tree.map(lambda _: sharding.replicated(mesh), state)
    return rest.replace(trainable=of_params, opt_state=of_opt)


def opt_shardings(
    opt_state: Any,
    trainable: dict[str, Any],
    tx: optax.GradientTransformation,
    mesh: sharding.AnyMesh,
) -> Any:
    """NamedShardings of an optimiser's state (or its shapes): moments lie as their parameters."""
    return optax.tree.map_params(
        tx,
        lambda _, s: s,
        opt_state,
        param_shardings(trainable, mesh),
        transform_non_params=lambda _: sharding.replicated(mesh),
    )


def create(
    trainable: dict[str, Any],
    tx: optax.GradientTransformation,
    key: jax.Array,
    mesh: Mesh,
    reward_state: Any = (),
    curriculum_state: Any = (),
) -> tuple[TrainState, TrainState]:
    """A fresh state on the mesh, and the tree of its shardings."""
    build = functools.partial(_fresh, tx, reward_state, curriculum_state)
    where = state_shardings(jax.eval_shape(build, trainable, key), tx, mesh)
    return jax.jit(build, out_shardings=where)(trainable, key), where


def shapes(trainable: dict[str, Any], tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """What `create` would return without rewards and curriculum, as placed ShapeDtypeStructs."""
    build = functools.partial(_fresh, tx, (), ())
    found = jax.eval_shape(build, trainable, jax.eval_shape(lambda: jax.random.key(0)))
    return sharding.abstract(found, state_shardings(found, tx, mesh))


def _fresh(
    tx: optax.GradientTransformation,
    reward_state: Any,
    curriculum_state: Any,
    trainable: dict[str, Any],
    key: jax.Array,
) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        trainable=trainable,
        opt_state=tx.init(trainable),
        reward_state=reward_state,
        curriculum_state=curriculum_state,
        skipped=zero,
        skipped_in_row=zero,
        key=key,
    )
