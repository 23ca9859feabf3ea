r"""Bytes of a decode step in main memory, by a compiler, and of weights and filled cache.

    python -m launch.bench.decode_bytes --platform=tpu --rows=64
    python -m launch.bench.decode_bytes --platform=cuda --rows=256

One step of the student's sampler is compiled for one device that need not be here, from shapes
alone: groups of samples share prompts that fill their slots, the cache of new tokens is full, too.
Each operation reads its operands and writes its results (`forecast.hlo_traffic`); `--cached` leaves
out what the program makes in arrays of at most so many bytes, as a GPU's L2 may hold them. What
must be read is all weights but the embedding, of which a row looks up its token, and the cache.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core import sharding
from distill_jax.core.sharding import MeshSettings
from distill_jax.forecast import hlo_text, hlo_traffic
from distill_jax.forecast.gpu_target import TARGETS, gpu_devices
from distill_jax.forecast.topology import tpu_devices
from distill_jax.models.cache import KVCache, SharedPrompts
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.released import PRESETS
from distill_jax.rollout.compiled import BUCKET, Carry
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from distill_jax.rollout.weights import decode_weights
from launch.arguments import OneLine, tool_parser

# A release of Qwen by its geometry, and tokens of its tokenizer.
_MODEL, _TOKENS = "qwen2_5_1_5b", 151_665


def devices_of(flags: argparse.Namespace) -> list[jax.Device]:
    """One device to compile for."""
    if flags.platform == "cpu":
        return jax.devices()[:1]
    if flags.platform == "tpu":
        return tpu_devices(flags.topology)[:1]
    return gpu_devices(flags.target, 1)


def found(flags: argparse.Namespace, geometry: QwenConfig, tokens: int) -> dict[str, Any]:
    """Bytes of a step: of weights, of the cache, and moved by the compiled program."""
    mesh = sharding.make_mesh(MeshSettings(1, 1, 1), devices_of(flags))
    model = QwenModel(geometry, None, compute_dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    sampler = Sampler(model, mesh, eos_id=0, pad_id=0, vocab=tokens, bucket=BUCKET)
    where = sharding.replicated(mesh)
    params = sharding.abstract(model.shapes(), where)
    shapes = jax.eval_shape(lambda x: decode_weights(model, x, True, tokens), params)
    weights = sharding.abstract(shapes, where)
    carry = _carry(flags, geometry, where)
    settings, place = SamplingSettings(), jax.ShapeDtypeStruct((2,), jnp.int32, sharding=where)
    of: Any = type(sampler.programs)
    lowered = of.segment.lower(sampler.programs, weights, carry, place, 1, settings)
    module = hlo_text.parse(lowered.compile().as_text() or "")
    read = _bytes(weights) - _bytes(weights["body"]["embedding"])
    cache = _bytes((carry.cache, carry.shared))
    moved = hlo_traffic.traffic(module, flags.cached)
    return {
        "rows": flags.rows,
        "weights_gb": read / 1e9,
        "cache_gb": cache / 1e9,
        "moved_gb": moved / 1e9,
        "ratio": moved / (read + cache),
    }


def _carry(flags: argparse.Namespace, g: QwenConfig, where: Any) -> Any:
    B, P = flags.rows, flags.rows // flags.samples
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), B))

    def shape(*extents: int, dtype: Any = jnp.bfloat16) -> Any:
        return jax.ShapeDtypeStruct(extents, dtype, sharding=where)

    def cache(rows: int, slots: int) -> KVCache:
        k = shape(rows, g.num_kv_heads, g.head_dim, slots)
        v = shape(rows, g.num_kv_heads, slots, g.head_dim)
        return KVCache((k,) * g.num_layers, (v,) * g.num_layers)

    return Carry(
        hidden_BD=shape(B, g.hidden_size),
        cache=cache(B, flags.new),
        slot_position_BS=shape(B, flags.new, dtype=jnp.int32),
        length_B=shape(B, dtype=jnp.int32),
        done_B=shape(B, dtype=jnp.bool_),
        key_B=shape(B, dtype=keys.dtype),
        shared=SharedPrompts(cache(P, flags.prompt), shape(P, dtype=jnp.int32)),
    )


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("bench.decode_bytes", __doc__)
    parser.add_argument("--platform", choices=("tpu", "cuda", "cpu"), default="tpu")
    parser.add_argument("--topology", default="v5e:2x2", help="TPU slice; of one chip")
    parser.add_argument("--target", choices=sorted(TARGETS), default="h100", help="GPU")
    for name, default, what in (
        ("rows", 64, "decoded together"),
        ("samples", 8, "rows of a prompt"),
        ("prompt", 256, "tokens of a prompt"),
        ("new", 128, "tokens of a row behind it"),
        ("cached", 0, "bytes of an array that a cache holds"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=what)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, prints a line of JSON."""
    flags = _parser().parse_args(argv)
    with OneLine():
        # An accelerator that is here would be taken otherwise.
        jax.config.update("jax_platforms", "cpu")
        print(json.dumps(found(flags, PRESETS[_MODEL], _TOKENS)))


if __name__ == "__main__":
    main()
