"""Projection kernels held as int8 with one scale an output channel: half the bytes of bfloat16.

Weights alone are quantised (absolute maximum, symmetric, by qwix); products run in the dtype of the
states. Embedding, head, norms and biases stay as they are, so scores are summed as ever.
"""

import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from distill_jax.core.errors import MissingExtraError

QUANTISE = ("none", "int8")


def library() -> ModuleType:
    """qwix; MissingExtraError if it is not installed."""
    try:
        import qwix
    except ImportError as error:
        raise MissingExtraError(
            f"quantise=int8 without qwix ({error})",
            fix="pip install -e '.[int8]' or set teacher.quantise=none",
        ) from error
    return qwix


def is_quantised(path: tuple[str, ...]) -> bool:
    """Whether int8 takes the leaf at this path of a base tree: the kernels of projections."""
    return path[0] == "layers" and path[-1] == "kernel"


def quantise(kernel_LIO: jax.Array, dtype: Any) -> Any:
    """A stacked kernel as qwix's QArray, where the kernel lies; MissingExtraError, see `library`.

    Its qvalue is int8 [L, in, out], its scale [L, 1, out] of the dtype that products are done in.
    """
    return _quantised(kernel_LIO, jnp.dtype(dtype), kernel_LIO.sharding)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _quantised(kernel_LIO: jax.Array, dtype: jnp.dtype, where: Sharding) -> Any:
    # Divided in float32: in bfloat16 a quotient near 100 would be rounded to halves.
    x_LIO, how = kernel_LIO.astype(jnp.float32), {"channelwise_axes": (0, 2)}
    found = library().quantize(x_LIO, jnp.int8, scale_dtype=dtype, **how)
    if not isinstance(where, NamedSharding):
        return found
    parts = (*where.spec, *[None] * (kernel_LIO.ndim - len(where.spec)))

    def like(leaf: jax.Array) -> jax.Array:
        kept = [None if extent == 1 else p for p, extent in zip(parts, leaf.shape, strict=True)]
        lies = NamedSharding(where.mesh, PartitionSpec(*kept))
        return jax.lax.with_sharding_constraint(leaf, lies)

    return jax.tree.map(like, found)


def join(kernels: list[Any]) -> Any:
    """Kernels [in, out] side by side, all arrays or all quantised."""
    if len(kernels) == 1:
        return kernels[0]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *kernels)


def product(x_NI: jax.Array, kernel_IO: Any) -> jax.Array:
    """x·kernel [N, out] in x's dtype; a quantised kernel's scales must be of that dtype."""
    if isinstance(kernel_IO, jax.Array):
        return x_NI @ kernel_IO
    return library().dot_general(x_NI, kernel_IO, (((1,), (0,)), ((), ())))
