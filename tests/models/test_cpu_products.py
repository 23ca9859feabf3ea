"""On CPU, products of backward passes sum along rows: XLA's other products take far longer."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.models.attention import attention
from distill_jax.models.lora import merged_matmul


def down_columns(function: Callable[..., Any], *shapes: tuple[int, ...]) -> list[str]:
    """The products in a compiled program that do not sum along the rows of what is on the left."""
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = jax.jit(function).lower(*given).compile().as_text()
    products = [line for line in text.splitlines() if " dot(" in line]
    assert products

    def batch(line: str) -> int:
        found = re.search(r"lhs_batch_dims={([0-9,]+)}", line)
        return len(found[1].split(",")) if found else 0

    return [p for p in products if f"lhs_contracting_dims={{{batch(p) + 1}}}" not in p]


def test_gradients_of_a_merged_adapter() -> None:
    def total(x: jax.Array, a: jax.Array, b: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(merged_matmul(x, kernel, a, b)))

    shapes = (512, 64), (64, 8), (8, 96), (64, 96)
    assert not down_columns(jax.grad(total, (0, 1, 2)), *shapes)


def test_gradients_of_attention() -> None:
    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(attention(q, k, v)))

    queries, keys = (4, 24, 4, 16), (4, 24, 2, 16)
    assert not down_columns(jax.grad(total, (0, 1, 2)), queries, keys, keys)


def test_a_plain_formula_is_found() -> None:
    def total(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(x @ kernel))

    assert len(down_columns(jax.grad(total, 1), (512, 64), (64, 96))) == 1
