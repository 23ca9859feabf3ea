"""Grouped-query attention over whole sequences, and the module with its projections."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from distill_jax.models.layers import RMSNorm, apply_rope
from distill_jax.models.lora import Linear, LoraConfig, project
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.splash import Splash

Named = Literal["products", "xla", "cudnn"]
Implementation = Named | Splash
_MASKED = -1e30  # finite, so that no score is NaN


class PromptSegments(NamedTuple):
    """Packed rows in which several responses share the prompt before them.

    Attributes:
        prompt_segment_BT: int32, a second segment that a token attends to: of a response's token
            its prompt's; of others their own.
        position_BT: int32, the tokens' positions; those of a response continue its prompt's.
    """

    prompt_segment_BT: jax.Array
    position_BT: jax.Array


def attention(
    q_BTHh: jax.Array,
    k_BTKh: jax.Array,
    v_BTKh: jax.Array,
    *,
    window: int | jax.Array | None = None,
    segment_BT: jax.Array | None = None,
    prompts: PromptSegments | None = None,
    implementation: Implementation = "products",
) -> jax.Array:
    """Causal attention of each sequence on itself; padding at the right is hidden by causality.

    Args:
        q_BTHh: queries; head j reads kv head j // (H / K).
        k_BTKh: keys.
        v_BTKh: values.
        window: W: a key is seen when 0 <= index_q − index_k < W; None sees all before it. May be
            a traced scalar (layers of both kinds in one scan).
        segment_BT: int32, for packed rows: a query sees only keys of the same segment. None: a row
            is one sequence, and no mask is made where the implementation needs none.
        prompts: of segments that share prompts. A Splash does not take it.
        implementation: "products" written here, the fastest on CPU, or "xla" or "cudnn" of
            `jax.nn.dot_product_attention`, or a Splash, which knows no window: where one hides
            anything it is not to be given.

    Returns:
        [B, T, H·h] in q's dtype; softmax in float32. Rows of padding hold arbitrary finite values.
    """
    batch, time, heads, size = q_BTHh.shape
    if isinstance(implementation, Splash):
        assert prompts is None, "the kernel takes no mask"
        out = implementation(q_BTHh, k_BTKh, v_BTKh, segment_BT)
        return out.reshape(batch, time, heads * size)
    static_window = window is None or isinstance(window, int)
    if implementation == "products" or segment_BT is not None or not static_window:
        mask_X1TT = _mask(time, window, segment_BT, prompts)
        return masked(q_BTHh, k_BTKh, v_BTKh, mask_X1TT, implementation=implementation)
    out = jax.nn.dot_product_attention(
        q_BTHh,
        k_BTKh,
        v_BTKh,
        is_causal=True,
        local_window_size=(window - 1, 0) if isinstance(window, int) else None,
        implementation=implementation,
    )
    return out.reshape(batch, time, heads * size)


def masked(
    q_BTHh: jax.Array,
    k_BSKh: jax.Array,
    v_BSKh: jax.Array,
    mask_X1TS: jax.Array,
    *,
    implementation: Named = "products",
) -> jax.Array:
    """As `attention`, [B, T, H·h], of T queries on S keys; mask_X1TS bool, X is 1 or B."""
    batch, time, heads, size = q_BTHh.shape
    if implementation == "products":
        out = _products(q_BTHh, k_BSKh, v_BSKh, mask_X1TS)
    else:
        out = jax.nn.dot_product_attention(
            q_BTHh, k_BSKh, v_BSKh, mask=mask_X1TS, implementation=implementation
        )
    return out.reshape(batch, time, heads * size)


def _mask(
    time: int,
    window: int | jax.Array | None,
    segment_BT: jax.Array | None,
    prompts: PromptSegments | None,
) -> jax.Array:
    """bool [1, 1, T, S], with segments [B, 1, T, S]: which keys a query sees."""
    distance_TS = jnp.arange(time)[:, None] - jnp.arange(time)[None, :]
    seen_XTS = (distance_TS >= 0)[None]
    if window is not None:
        distance_XTS = distance_TS[None]
        if prompts is not None:
            at_BT = prompts.position_BT
            distance_XTS = at_BT[:, :, None] - at_BT[:, None, :]
        seen_XTS &= distance_XTS < window
    if segment_BT is not None:
        same_BTS = segment_BT[:, :, None] == segment_BT[:, None, :]
        if prompts is not None:
            same_BTS |= prompts.prompt_segment_BT[:, :, None] == segment_BT[:, None, :]
        seen_XTS &= same_BTS
    return seen_XTS[:, None]


def _products(q_BTHh, k_BTKh, v_BTKh, mask_X1TS) -> jax.Array:
    """Batched products over (row, kv head); a group's queries are stacked, keys never repeated."""
    batch, time, heads, size = q_BTHh.shape
    kv_heads = k_BTKh.shape[2]
    group = heads // kv_heads
    q = q_BTHh.reshape(batch, time, kv_heads, group, size).transpose(0, 2, 3, 1, 4)
    q = (q * size**-0.5).reshape(batch, kv_heads, group * time, size)
    k, v = k_BTKh.transpose(0, 2, 1, 3), v_BTKh.transpose(0, 2, 1, 3)
    out = _attend(q, k, v, mask_X1TS)
    out = out.reshape(batch, kv_heads, group, time, size).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, time, heads, size)


@jax.custom_vjp
def _attend(q_BKQh, k_BKSh, v_BKSh, mask_X1TS) -> jax.Array:
    """softmax(q·kᵀ)·v, Q = group·T stacked queries of one kv head, q already scaled; X is 1 or B.

    Memory traffic over [Q, S] decides the time, so the weights stay unnormalised (the [Q, h]
    output is divided instead) and the backward pass takes Σ_s w·dw from the output (as
    FlashAttention does) instead of another sweep.
    """
    return _attend_forward(q_BKQh, k_BKSh, v_BKSh, mask_X1TS)[0]


def _attend_forward(q_BKQh, k_BKSh, v_BKSh, mask_X1TS):
    batch, kv_heads, queries, _ = q_BKQh.shape
    time, keys = mask_X1TS.shape[-2:]
    scores = jnp.einsum("bkqh,bksh->bkqs", q_BKQh, k_BKSh, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, kv_heads, queries // time, time, keys)
    scores = jnp.where(mask_X1TS[:, :, None], scores, _MASKED)
    raised = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    raised = raised.reshape(batch, kv_heads, queries, keys)
    inverse = 1.0 / jnp.sum(raised, axis=-1, keepdims=True)
    raised = raised.astype(v_BKSh.dtype)
    out = jnp.einsum("bkqs,bksh->bkqh", raised, v_BKSh) * inverse.astype(v_BKSh.dtype)
    return out, (q_BKQh, k_BKSh, v_BKSh, raised, inverse, out)


def _attend_backward(saved, dout):
    q, k, v, raised, inverse, out = saved
    dout = dout * inverse.astype(dout.dtype)
    shift = jnp.sum((dout * out).astype(jnp.float32), axis=-1, keepdims=True)
    dweights = jnp.einsum("bkqh,bksh->bkqs", dout, v, preferred_element_type=jnp.float32)
    dscores = (raised * (dweights - shift)).astype(q.dtype)
    dq = jnp.einsum("bkqs,bksh->bkqh", dscores, k)
    return dq, _over_queries(dscores, q), _over_queries(raised, dout), None


def _over_queries(x_BKQS: jax.Array, y_BKQh: jax.Array) -> jax.Array:
    """xᵀ·y [B, K, S, h], by sums along rows of yᵀ.

    Without a barrier XLA folds the transpose into the product, whose sums then run down columns of
    x: on CPU that takes twice as long.
    """
    keep = jax.lax.optimization_barrier
    y_BKhQ = keep(jnp.swapaxes(y_BKQh, 2, 3))
    return jnp.swapaxes(keep(jnp.einsum("bkhq,bkqs->bkhs", y_BKhQ, x_BKQS)), 2, 3)


_attend.defvjp(_attend_forward, _attend_backward)


class Attention(nnx.Module):
    """Projections, optional norms over heads (Qwen3), rope, attention, output projection."""

    def __init__(
        self, config: QwenConfig, lora: LoraConfig | None, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.config = config
        d, h = config.hidden_size, config.head_dim
        wide, narrow = config.num_heads * h, config.num_kv_heads * h
        make = functools.partial(
            Linear, lora=lora, stddev=config.initializer_range, dtype=dtype, rngs=rngs
        )
        self.q_proj = make("q_proj", d, wide, bias=config.qkv_bias)
        self.k_proj = make("k_proj", d, narrow, bias=config.qkv_bias)
        self.v_proj = make("v_proj", d, narrow, bias=config.qkv_bias)
        self.o_proj = make("o_proj", wide, d)
        norm = config.qk_norm
        self.q_norm = RMSNorm(h, config.rms_norm_eps, dtype=dtype) if norm else None
        self.k_norm = RMSNorm(h, config.rms_norm_eps, dtype=dtype) if norm else None

    def __call__(
        self,
        x_ND: jax.Array,
        rope: tuple[jax.Array, jax.Array],
        shape: tuple[int, int],
        *,
        attend: Callable[..., jax.Array] = attention,
        window: int | jax.Array | None = None,
        fuse: bool = True,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """x_ND: [B·T, D] with (B, T) = shape; returns [B·T, D].

        attend: (queries, keys, values, window=window) -> [B, T, H·h], as `attention` takes them.
        """
        q, k, v = project(
            x_ND, (self.q_proj, self.k_proj, self.v_proj), fuse=fuse, dropout_key=dropout_key
        )
        q, k, v = (y.reshape(*shape, -1, self.config.head_dim) for y in (q, k, v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        out = attend(apply_rope(q, rope), apply_rope(k, rope), v, window=window)
        out_ND = out.reshape(x_ND.shape[0], -1)
        return project(out_ND, (self.o_proj,), fuse=fuse, dropout_key=dropout_key)[0]
