"""A decode segment alone, and a profile of two."""

import collections
import gzip
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core import rng
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from launch.bench import roofline
from launch.bench.gpu.figures import figures
from launch.bench.gpu.lines import note
from launch.bench.steps import Bench, BenchSettings

# Tokens of Qwen2.5's tokenizer, of the 151,936 rows of its head: rows of logits of an odd length.
TOKENIZER = 151_665
# A trace of more bytes is not kept.
MOST = 16 * 2**20


def runner(bench: Bench, sampler: Sampler) -> Callable[[], Any]:
    """Decodes a segment of the first of `generate_rows`, from a cache of random numbers."""
    s, rows = bench.settings, bench.settings.generate_rows[0]
    sampling = SamplingSettings(max_new_tokens=s.completion_tokens, segment=s.segment)
    weights, programs = sampler.weights(bench.params, sampling), sampler.programs
    prompt = jax.ShapeDtypeStruct((rows, s.prompt_tokens), jnp.int32)
    shapes = jax.eval_shape(
        programs.prefill, weights, prompt, jax.ShapeDtypeStruct((rows,), jnp.int32)
    )
    drawn = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape, x.dtype), shapes)
    length_P, ids_P = np.full(rows, s.prompt_tokens, np.int32), np.arange(rows, dtype=np.uint32)
    key = np.asarray(jax.random.key_data(rng.run_key(0)))
    slots = s.prompt_tokens + s.completion_tokens
    carry = programs.start(*drawn, length_P, ids_P, ids_P, key, rows, 1, slots)
    offsets = np.array([0, s.prompt_tokens], np.int32)

    def run() -> Any:
        nonlocal carry  # given away and made again
        carry, out = programs.segment(weights, carry, offsets, s.segment, sampling)
        return out

    return run


def segment(settings: BenchSettings, arm: str) -> None:
    """A segment over all rows of the head."""
    _segment(settings, arm, 0)


def odd_vocabulary(settings: BenchSettings, arm: str) -> None:
    """A segment over as many rows of the head as the tokenizer has tokens."""
    _segment(settings, arm, TOKENIZER)


def _segment(settings: BenchSettings, arm: str, tokens: int) -> None:
    bench = Bench(settings)
    vocab = bench.config.vocab_size
    if tokens:
        vocab = min(tokens, vocab - 1)
    run = runner(bench, Sampler(bench.model, bench.mesh, eos_id=vocab, pad_id=0, vocab=vocab))
    rows, steps = settings.generate_rows[0], settings.segment
    bench.measure("segment_s", run, rows * steps)
    if settings.peak_bandwidth:
        bound = roofline.decode_tokens_per_s(
            bench.config, rows, settings.prompt_tokens, steps, settings.dtype,
            settings.peak_bandwidth,
        )  # fmt: skip
        figure = bench.figures["segment_s"]
        figure["roofline_fraction"] = figure["tokens_per_s"] / bound
    figures(bench, arm)


def profile(settings: BenchSettings, arm: str) -> None:
    """Two segments under the profiler: events of a segment by name, and the trace if small."""
    bench = Bench(settings)
    run = runner(bench, bench.sampler)
    for _ in range(2):  # the second call finds its state placed as a segment leaves it
        jax.block_until_ready(run())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(2):
                jax.block_until_ready(run())
        traces = sorted(Path(folder).rglob("*.trace.json.gz"))
        if not traces:
            raise SystemExit("the profiler wrote no trace")
        content = traces[0].read_bytes()
    counted = events(json.loads(gzip.decompress(content)))
    note(
        arm=arm,
        events_a_step=sum(n for n, _ in counted.values()) / (2 * settings.segment),
        longest={name: counted[name] for name in list(counted)[:20]},
        trace_bytes=len(content),
    )
    if len(content) <= MOST:
        (Path(os.environ.get("OUT", ".")) / "trace.json.gz").write_bytes(content)


def events(trace: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """Name -> count and microseconds, by falling time: of devices' processes, else of all."""
    made = trace["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in made if e.get("name") == "process_name"}
    devices = {pid for pid, name in names.items() if "/device:" in name} or set(names)
    out: dict[str, tuple[int, float]] = collections.defaultdict(lambda: (0, 0.0))
    for event in made:
        if event.get("ph") == "X" and event["pid"] in devices:
            count, time = out[event["name"]]
            out[event["name"]] = count + 1, time + event.get("dur", 0.0)
    return dict(sorted(out.items(), key=lambda item: -item[1][1]))
