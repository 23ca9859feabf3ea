"""Linear layers with an optional low-rank adapter (LoRA, arXiv 2106.09685), and its merging."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.linalg import block_diag

from distill_jax.core import rng
from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.models.quantised import join, product

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraConfig:
    """A low-rank adapter: y = x·W + scale · dropout(x)·A·B."""

    rank: int = setting(8, "Inner size r of the adapter.", low=1)
    alpha: float = setting(16.0, "The adapter's output is multiplied by alpha / rank.", above=0)
    use_rslora: bool = setting(
        False, "Multiply it by alpha / √rank instead, whose updates keep their size at high ranks."
    )
    dropout: float = setting(
        0.0,
        "Probability that an entry of the adapter's input is dropped in sft; rl drops nothing.",
        low=0,
        high=0.999,
    )
    targets: tuple[str, ...] = setting(
        PROJECTIONS, "Projections that carry an adapter.", choices=PROJECTIONS
    )

    def __post_init__(self) -> None:
        if not self.targets or set(self.targets) - set(PROJECTIONS):
            wanted = "one or more of " + ", ".join(PROJECTIONS)
            raise ConfigError(f"lora targets={self.targets!r}", wanted=wanted)

    @property
    def scale(self) -> float:
        """alpha / rank, or alpha / √rank (rsLoRA, arXiv 2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


class Linear(nnx.Module):
    """x·kernel + bias, kernel [in, out]; with an adapter when `lora` targets this name.

    The adapter is float32 whatever the base's dtype: small updates vanish in bfloat16. A is drawn
    uniformly within ±1/sqrt(in), as peft does, and B is zero, so that nothing changes at first.
    """

    def __init__(
        self,
        name: str,
        into: int,
        out: int,
        *,
        bias: bool = False,
        lora: LoraConfig | None = None,
        stddev: float = 0.02,
        dtype: jnp.dtype | type = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.name = name
        self.lora = lora if lora is not None and name in lora.targets else None
        self.kernel = nnx.Param(stddev * jax.random.normal(rngs.params(), (into, out), dtype))
        self.bias = nnx.Param(jnp.zeros((out,), dtype)) if bias else None
        if self.lora is not None:
            bound = into**-0.5
            shape_A, shape_B = (into, self.lora.rank), (self.lora.rank, out)
            self.lora_A = nnx.LoRAParam(
                jax.random.uniform(rngs.lora(), shape_A, minval=-bound, maxval=bound)
            )
            self.lora_B = nnx.LoRAParam(jnp.zeros(shape_B))


@jax.custom_vjp
def merged_matmul(
    x_NI: jax.Array, kernel_IO: jax.Array, a_IR: jax.Array, b_RO: jax.Array
) -> jax.Array:
    """x·(kernel + A·B): one product forward, and only thin ones for the adapter's gradients.

    Differentiating the formula as it stands would form the kernel's whole gradient [in, out]
    first; here A and B get theirs by way of [tokens, rank] matrices.
    """
    return x_NI @ (kernel_IO + a_IR @ b_RO)


def _merged_forward(x_NI, kernel_IO, a_IR, b_RO):
    merged_IO = kernel_IO + a_IR @ b_RO
    return x_NI @ merged_IO, (x_NI, merged_IO, a_IR, b_RO)


def _merged_backward(saved, dy_NO):
    x_NI, merged_IO, a_IR, b_RO = saved
    dx_NI = dy_NO @ merged_IO.T
    # Sums over tokens run along rows of [rank, tokens]. Without the barriers XLA folds each
    # transpose into the product next to it, whose sums then run down columns: on CPU they take four
    # times as long.
    keep = jax.lax.optimization_barrier
    down_NR, up_NR = keep((x_NI @ a_IR, dy_NO @ b_RO.T))
    down_RN, up_RN = keep((down_NR.T, up_NR.T))
    da_IR = keep(up_RN @ x_NI).T
    db_RO = down_RN @ dy_NO
    # The kernel is frozen: nobody asks for this gradient, and the compiler drops the product.
    return dx_NI, x_NI.T @ dy_NO, da_IR, db_RO


merged_matmul.defvjp(_merged_forward, _merged_backward)


def project(
    x_NI: jax.Array,
    linears: Sequence[Linear],
    *,
    fuse: bool = True,
    dropout_key: jax.Array | None = None,
) -> list[jax.Array]:
    """The outputs [tokens, out] of several linears on one input, by one product where `fuse`.

    Args:
        x_NI: [tokens, in], in the dtype to compute in.
        linears: layers that share the input.
        fuse: join the kernels first. Off under tensor parallelism, where joining moves weights.
        dropout_key: key of this block's dropout, or None to drop nothing.
    """
    if not fuse and len(linears) > 1:
        return [project(x_NI, (one,), dropout_key=dropout_key)[0] for one in linears]
    dtype = x_NI.dtype
    kernel_IO = join([one.kernel[...].astype(dtype) for one in linears])
    adapted = [one for one in linears if one.lora is not None]
    if not adapted:
        y_NO = product(x_NI, kernel_IO)
    elif dropout_key is not None and any(one.lora and one.lora.dropout for one in linears):
        drops = join([_dropped_adapter(x_NI, one, dropout_key) for one in linears])
        y_NO = x_NI @ kernel_IO + drops
    else:
        a_IR, b_RO = join_adapters(
            [
                (one.lora_A[...], one.lora_B[...] * one.lora.scale) if one.lora else None
                for one in linears
            ],
            [one.kernel.shape[1] for one in linears],
        )
        # In bfloat16 a small A·B would be rounded away against the kernel, and for few tokens
        # adding A·B to the kernel costs more than it saves.
        if dtype == jnp.float32 and x_NI.shape[0] * 2 >= x_NI.shape[1]:
            y_NO = merged_matmul(x_NI, kernel_IO, a_IR, b_RO)
        else:
            y_NO = x_NI @ kernel_IO + (x_NI @ a_IR.astype(dtype)) @ b_RO.astype(dtype)
    cuts = list(accumulate(one.kernel.shape[1] for one in linears))[:-1]
    outputs = jnp.split(y_NO, cuts, axis=1) if cuts else [y_NO]
    return [
        y if one.bias is None else y + one.bias[...].astype(dtype)
        for y, one in zip(outputs, linears, strict=True)
    ]


def join_adapters(
    adapters: Sequence[tuple[jax.Array, jax.Array] | None], outs: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """Adapters of linears that share an input, as one adapter of their joined kernel.

    From (A [in, r], B [r, out], already scaled) of each linear, or None, and the linears' output
    sizes: A [in, R] side by side and B [R, Σ out] block-diagonal, R = Σ r.
    """
    if len(adapters) == 1 and adapters[0] is not None:
        return adapters[0]
    left = [pair[0] for pair in adapters if pair is not None]
    dtype = left[0].dtype
    blocks = [
        jnp.zeros((0, out), dtype) if pair is None else pair[1]
        for pair, out in zip(adapters, outs, strict=True)
    ]
    return join(left), block_diag(*blocks)


def _dropped_adapter(x_NI: jax.Array, linear: Linear, key: jax.Array) -> jax.Array:
    """Adapter's output [tokens, out] with dropout on its own copy of the input; 0 without one."""
    if linear.lora is None:
        return jnp.zeros((x_NI.shape[0], linear.kernel.shape[1]), x_NI.dtype)
    keep = 1.0 - linear.lora.dropout
    key = jax.random.fold_in(key, zlib.crc32(linear.name.encode()))
    x_NI = jnp.where(rng.kept(key, keep, x_NI.shape), x_NI / keep, 0).astype(x_NI.dtype)
    down = x_NI @ linear.lora_A[...].astype(x_NI.dtype)
    return down @ (linear.lora_B[...] * linear.lora.scale).astype(x_NI.dtype)


def merge(
    base: dict[str, Any], lora: dict[str, Any], scale: float, dtype: Any = None
) -> dict[str, Any]:
    """A new base tree with every adapter added to its kernel.

    base holds {"kernel": [L, in, out]} where lora, unless it is {}, holds {"lora_A": [L, in, r],
    "lora_B": [L, r, out]}. The sum is formed in float32 and rounded once, to `dtype`, or to the
    kernel's own where that is None; leaves without an adapter keep theirs.
    """
    if not lora:
        return base
    if "lora_A" in lora:
        delta = jnp.einsum("...ir,...ro->...io", lora["lora_A"], lora["lora_B"]) * scale
        kernel = base["kernel"]
        total = kernel.astype(jnp.float32) + delta
        return {**base, "kernel": total.astype(dtype or kernel.dtype)}
    return {**base, **{name: merge(base[name], lora[name], scale, dtype) for name in lora}}
