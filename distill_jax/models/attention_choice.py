"""Which implementation of attention a model takes where none is asked for."""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from distill_jax.core import sharding
from distill_jax.core.sharding import AnyMesh
from distill_jax.models import splash
from distill_jax.models.attention import Implementation, attention
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.splash import Splash

_log = logging.getLogger(__name__)


def chosen(
    config: QwenConfig,
    dtype: Any,
    mesh: AnyMesh | None,
    time: int,
    *,
    segments: bool,
    scanned: bool,
) -> Implementation:
    """The implementation for a model of this geometry that computes in `dtype` on a mesh.

    On CPU "products". For 16-bit numbers on GPU "cudnn", if it compiles there (asked once), but not
    with a mask in an array, which cuDNN reads as a bias [B, H, T, T]; on TPU jax's kernel for rows
    that `splash.takes`. Else "xla".

    Args:
        mesh: of devices that need not be here; None: the model runs where the process does.
        time: tokens of a row.
        segments: rows hold several sequences.
        scanned: layers of both kinds share a traced window.
    """
    device = jax.devices()[0] if mesh is None else sharding.first_device(mesh)
    platform = None if device is None else device.platform
    if platform == "cpu":
        return "products"
    if jnp.dtype(dtype).itemsize != 2:
        return "xla"
    if platform == "tpu" and isinstance(mesh, Mesh) and splash_takes(config, dtype, time):
        return Splash(mesh)
    traced = scanned and len(set(config.windows)) > 1
    if platform != "gpu" or segments or traced:
        return "xla"
    heads = (config.num_heads, config.num_kv_heads)
    return "cudnn" if cudnn_compiles(device, heads, config.head_dim, jnp.dtype(dtype)) else "xla"


def splash_takes(config: QwenConfig, dtype: Any, time: int) -> bool:
    """Whether jax's kernel computes such rows on a TPU: 16-bit numbers, nothing out of a window."""
    windows = [window for window in config.windows if window is not None and window < time]
    fits = splash.takes(time, config.head_dim)
    return fits and jnp.dtype(dtype).itemsize == 2 and not windows


@functools.cache
def cudnn_compiles(device: Any, heads: tuple[int, int], head_dim: int, dtype: jnp.dtype) -> bool:
    """Whether cuDNN's attention and its gradient compile for a device; says so once.

    heads: of queries, and of keys and values. Old GPUs, a missing cuDNN or a head size that it does
    not know are no error here.
    """
    here = SingleDeviceSharding(device)
    q, k = (jax.ShapeDtypeStruct((1, 64, n, head_dim), dtype, sharding=here) for n in heads)

    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(attention(q, k, v, implementation="cudnn").astype(jnp.float32))

    try:
        jax.jit(jax.grad(total, (0, 1, 2))).lower(q, k, k).compile()
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _log.warning("attention: XLA's; cuDNN's does not compile on %s: %s", device, reason)
        return False
    _log.info("attention: cuDNN's on %s", device)
    return True
