"""Attention of one decode step over a filled cache: layouts and implementations."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.models import cache_attention
from distill_jax.models.qwen_config import QwenConfig
from launch.bench.gpu.lines import note
from launch.bench.steps import SMALL, Bench, BenchSettings, geometry

# Calls in one program: one alone is shorter than its launch.
CALLS = 32
Attend = Callable[..., jax.Array]


def einsum(q_BHh: jax.Array, k_BKSh: jax.Array, v_BKSh: jax.Array) -> jax.Array:
    """As `decode` does, with keys laid out as values are."""
    rows, heads, size = q_BHh.shape
    q_BKGh = q_BHh.reshape(rows, k_BKSh.shape[1], -1, size) * size**-0.5
    scores = jnp.einsum("bkgh,bksh->bkgs", q_BKGh, k_BKSh, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BKSh.dtype)
    return jnp.einsum("bkgs,bksh->bkgh", weights, v_BKSh).reshape(rows, heads * size)


def ours(q_BHh: jax.Array, k_BKhS: jax.Array, v_BKSh: jax.Array) -> jax.Array:
    """What the sampler runs."""
    seen_BS = jnp.ones((len(q_BHh), v_BKSh.shape[2]), bool)
    return cache_attention.attend_own(q_BHh, k_BKhS, v_BKSh, seen_BS)


def cudnn(q_BHh: jax.Array, k_BSKh: jax.Array, v_BSKh: jax.Array) -> jax.Array:
    """cuDNN's kernel with the number of filled slots of each row."""
    rows, slots = k_BSKh.shape[:2]
    out = jax.nn.dot_product_attention(
        q_BHh[:, None],
        k_BSKh,
        v_BSKh,
        query_seq_lengths=jnp.ones(rows, jnp.int32),
        key_value_seq_lengths=jnp.full(rows, slots, jnp.int32),
        implementation="cudnn",
    )
    return out.reshape(rows, -1)


# Name -> function, axes of keys and of values.
WAYS: dict[str, tuple[Attend, str, str]] = {
    "einsum, keys [B, K, h, S]": (ours, "BKhS", "BKSh"),
    "einsum, keys [B, K, S, h]": (einsum, "BKSh", "BKSh"),
    "cudnn": (cudnn, "BSKh", "BSKh"),
}


def attention(settings: BenchSettings, arm: str) -> None:
    """Measures each way for rows × slots of the preset's model and of the 7B one.

    Raises:
        SystemExit: one failed.
    """
    bench = Bench(dataclasses.replace(settings, model=SMALL, attention=None))  # measures alone
    models = [settings.model] if settings.model == SMALL else [settings.model, "qwen2_5_7b"]
    shapes = {name: geometry(name) for name in models}
    ways = [w for w in WAYS if w != "cudnn" or jax.default_backend() == "gpu"]
    context = settings.prompt_tokens + settings.completion_tokens // 2
    failed = []
    for model, config in shapes.items():
        for rows in (*settings.generate_rows, 2 * settings.generate_rows[-1]):
            for slots in (context, 4 * settings.completion_tokens):
                for way in ways:
                    name = f"{arm}: {model}, {rows} rows, {slots} slots, {way}"
                    try:
                        _measure(bench, name, config, (rows, slots), way)
                    except (RuntimeError, ValueError) as error:  # XLA's are RuntimeErrors
                        failed.append(name)
                        note(arm=name, error=str(error)[:300])
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _measure(bench: Bench, arm: str, config: QwenConfig, shape: tuple[int, int], way: str) -> None:
    """Notes the time of one call; `roofline_fraction`: of reading keys and values once."""
    (rows, slots), (attend, k_axes, v_axes) = shape, WAYS[way]
    sizes = {"B": rows, "K": config.num_kv_heads, "h": config.head_dim, "S": slots}
    sizes["H"] = config.num_heads
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (
        jax.random.normal(key, [sizes[axis] for axis in axes], bench.settings.dtype)
        for key, axes in zip(keys, ("BHh", k_axes, v_axes), strict=True)
    )

    def step(q_BHh: jax.Array, _: Any, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        # Each query depends on the call before: no call can be skipped.
        return attend(q_BHh, k, v).reshape(q_BHh.shape), None

    run = jax.jit(
        lambda q, k, v: jax.lax.scan(functools.partial(step, k=k, v=v), q, None, length=CALLS)[0]
    )
    seconds = bench.measure("calls_s", functools.partial(run, q, k, v), rows * CALLS)
    figure = bench.figures.pop("calls_s")
    if bench.settings.peak_bandwidth:
        bound = (k.nbytes + v.nbytes) / bench.settings.peak_bandwidth
        figure["roofline_fraction"] = bound / (seconds / CALLS)
    note(arm=arm, figure=f"{CALLS} calls", **figure)
