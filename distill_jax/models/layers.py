"""RMSNorm, rotary positions and the gated MLP."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from distill_jax.models.lora import Linear, LoraConfig, project
from distill_jax.models.qwen_config import QwenConfig


def rms_norm(x: jax.Array, scale_D: jax.Array, eps: float) -> jax.Array:
    """x / sqrt(mean(x²) + eps) · scale over the last axis, in x's dtype; statistics in float32."""
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (x32 * inverse).astype(x.dtype) * scale_D.astype(x.dtype)


@jax.custom_vjp
def silu_gate(gate: jax.Array, up: jax.Array) -> jax.Array:
    """silu(gate) · up, the MLP's non-linearity; same shapes and dtypes.

    The backward pass computes the sigmoid again: cheaper than keeping two more [tokens, F] arrays.
    """
    return gate * jax.nn.sigmoid(gate) * up


def _silu_gate_backward(saved, dy):
    # Without the barrier XLA would find the forward's sigmoid, keep it and split both fusions.
    gate, up = jax.lax.optimization_barrier(saved)
    sigmoid = jax.nn.sigmoid(gate)
    silu = gate * sigmoid
    return dy * up * (sigmoid + silu * (1 - sigmoid)), dy * silu


silu_gate.defvjp(lambda gate, up: (silu_gate(gate, up), (gate, up)), _silu_gate_backward)


def rope_frequencies(config: QwenConfig) -> np.ndarray:
    """Radians a position for each pair of a head's dimensions: float32 [head_dim / 2].

    Plain rope: theta^(−2i/head_dim), then as the configuration's `rope_scaling` changes it. The
    power is rounded to float32 once, as torch's is: at position 8,000 another rounding would show
    in the logits.
    """
    size, theta = config.head_dim, config.rope_theta
    exponent = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    plain = np.float32(1.0) / (theta ** exponent.astype(np.float64)).astype(np.float32)
    scaling = config.rope_scaling
    return plain if scaling is None else scaling.frequencies(plain, theta)


def segment_positions(segment_BT: jax.Array) -> jax.Array:
    """Positions that begin at 0 in each run of equal segment numbers: int32 [B, T].

    segment_BT: int32, as `attention.attention` takes them.
    """
    index_T = jnp.arange(segment_BT.shape[1], dtype=jnp.int32)
    before_BT = jnp.pad(segment_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    begins_BT = jnp.where(segment_BT != before_BT, index_T, 0)
    return index_T - jax.lax.cummax(begins_BT, axis=1)


def rope_table(config: QwenConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin of the angles at positions (int [...]), YaRN's attention factor included.

    Both float32 [..., 2, head_dim / 2], one entry for each half of a head; the first half of sin
    is negated, so that a turn is `x·cos + swapped(x)·sin`.
    """
    angle = positions[..., None].astype(jnp.float32) * rope_frequencies(config)
    scale = config.rope_scaling.scale if config.rope_scaling else 1.0
    cos, sin = jnp.cos(angle) * scale, jnp.sin(angle) * scale
    return jnp.stack([cos, cos], axis=-2), jnp.stack([-sin, sin], axis=-2)


def apply_rope(x: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Heads x [..., heads, head_dim] turned by `rope_table` of positions [...], in float32.

    The result has x's shape and dtype.
    """
    cos, sin = (table[..., None, :, :] for table in rope)
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2).astype(jnp.float32)
    # Reversing an axis of size two swaps the halves without a concatenation, which XLA:CPU
    # would not vectorise.
    turned = halves * cos + jnp.flip(halves, axis=-2) * sin
    return turned.reshape(x.shape).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square norm with a learned scale [size], initially one."""

    def __init__(self, size: int, eps: float, *, dtype: jnp.dtype):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((size,), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: [..., size]; returns the same shape and dtype."""
        return rms_norm(x, self.scale[...], self.eps)


class MLP(nnx.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(
        self, config: QwenConfig, lora: LoraConfig | None, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        d, f = config.hidden_size, config.intermediate_size
        make = functools.partial(
            Linear, lora=lora, stddev=config.initializer_range, dtype=dtype, rngs=rngs
        )
        self.gate_proj = make("gate_proj", d, f)
        self.up_proj = make("up_proj", d, f)
        self.down_proj = make("down_proj", f, d)

    def __call__(
        self, x_ND: jax.Array, *, fuse: bool = True, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """x_ND: [tokens, D]; returns [tokens, D]."""
        gate, up = project(x_ND, (self.gate_proj, self.up_proj), fuse=fuse, dropout_key=dropout_key)
        hidden = silu_gate(gate, up)
        return project(hidden, (self.down_proj,), fuse=fuse, dropout_key=dropout_key)[0]
