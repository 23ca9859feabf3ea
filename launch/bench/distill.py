"""A distillation loss and its gradient: chunked through both heads beside the plain formula."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from distill_jax.kernels import divergence
from distill_jax.models.head import terms as head_terms
from distill_jax.models.head.loss import head_loss


class Measures(Protocol):
    """Of `launch.bench.steps.Bench`."""

    figures: dict[str, Any]

    def measure(self, name: str, run: Callable[[], Any]) -> float:
        """Median seconds of `run`, noted under `name`."""


def distill(bench: Measures, *, tokens: int, width: int, vocab: int, dtype: str) -> None:
    """Forward KL and its gradient in the student's hidden states and head, both ways.

    Beside the seconds stand `temp_bytes`: what the compiled program needs beyond its arguments
    and results, as XLA plans it.

    Args:
        bench: takes the figures, `distill_chunked_s` and `distill_naive_s`.
        tokens: N.
        width: D of both models.
        vocab: V of both.
        dtype: of hidden states and heads; logits are float32 in both ways.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((tokens, width), (vocab, width)) * 2
    arrays = [
        (jax.random.normal(key, shape) * width**-0.25).astype(dtype)
        for key, shape in zip(keys, shapes, strict=True)
    ]

    def naive(hidden_ND: Any, head_VD: Any, teacher_NE: Any, teacher_VE: Any) -> jax.Array:
        student_NV, teacher_NV = (
            jnp.einsum("nd,vd->nv", h, w, preferred_element_type=jnp.float32)
            for h, w in ((hidden_ND, head_VD), (teacher_NE, teacher_VE))
        )
        return divergence.divergence(teacher_NV, student_NV).mean()

    def chunked(hidden_ND: Any, head_VD: Any, teacher_NE: Any, teacher_VE: Any) -> jax.Array:
        mean_N = jnp.full(tokens, 1.0 / tokens)
        terms = [head_terms.divergence(teacher_NE, teacher_VE, mean_N)]
        return head_loss(hidden_ND, head_VD, terms)[0]

    for name, loss in (("chunked", chunked), ("naive", naive)):
        run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        planned = run.lower(*arrays).compile()
        seconds = bench.measure(f"distill_{name}_s", functools.partial(planned, *arrays))
        figure = bench.figures[f"distill_{name}_s"]
        figure["tokens_per_s"] = tokens / seconds
        memory = planned.memory_analysis()
        if memory is not None:  # not every backend tells
            figure["temp_bytes"] = int(memory.temp_size_in_bytes)
