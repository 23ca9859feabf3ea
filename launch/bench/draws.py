"""Measures a draw of one token a row from a large vocabulary: all of it, its top-k, its nucleus."""

import functools

import jax

from distill_jax.rollout.sampling import draw
from launch.bench.steps import Bench

# Figure -> top_k, top_p.
WAYS = {"draw_s": (0, 1.0), "draw_top_k_s": (50, 1.0), "draw_top_p_s": (0, 0.95)}


def draws(bench: Bench) -> None:
    """Measures `draw` at temperature 1 for `draw_rows` rows of random logits of `distill_vocab`."""
    rows, vocab = bench.settings.draw_rows, bench.settings.distill_vocab
    logits_BV = 3.0 * jax.random.normal(jax.random.key(0), (rows, vocab))
    uniform_B = jax.random.uniform(jax.random.key(1), (rows,))
    for name, (top_k, top_p) in WAYS.items():
        run = jax.jit(functools.partial(draw, temperature=1.0, top_k=top_k, top_p=top_p))
        bench.measure(name, functools.partial(run, logits_BV, uniform_B), rows)
