"""Measures a distillation loss and its gradient: chunked through both heads, and by the formula."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.kernels import divergence
from distill_jax.models.head import terms as head_terms
from distill_jax.models.head.loss import head_loss
from launch.bench.steps import Bench


def distill(bench: Bench) -> None:
    """Measures forward KL and its gradient in the student's hidden states and head, both ways.

    The figures are `distill_chunked_s` and `distill_naive_s`; logits are float32 in both. Their
    `temp_bytes` is the memory that XLA plans beyond the program's arguments and results.
    """
    s = bench.settings
    tokens, width, vocab = s.distill_tokens, s.distill_width, s.distill_vocab
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((tokens, width), (vocab, width)) * 2
    arrays = [
        (jax.random.normal(key, shape) * width**-0.25).astype(s.dtype)
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
        bench.measure(f"distill_{name}_s", functools.partial(planned, *arrays), tokens)
        memory = planned.memory_analysis()
        if memory is not None:  # some backends report none
            bench.figures[f"distill_{name}_s"]["temp_bytes"] = int(memory.temp_size_in_bytes)
