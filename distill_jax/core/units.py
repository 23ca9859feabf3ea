"""Arrays whose rows belong to units: B = units·k rows, unit by unit, k of each array's own."""

from typing import Any

import jax


def units_of(tree: Any) -> int:
    """Units of arrays, one of which has one row for each: the fewest rows of them."""
    return min(leaf.shape[0] for leaf in jax.tree.leaves(tree))


def nested(tree: Any, units: int) -> Any:
    """[units·k, ...] -> [units, k, ...] of each array."""
    return jax.tree.map(
        lambda leaf: leaf.reshape(units, leaf.shape[0] // units, *leaf.shape[1:]), tree
    )


def flat(tree: Any) -> Any:
    """[n, k, ...] -> [n·k, ...] of each array."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
