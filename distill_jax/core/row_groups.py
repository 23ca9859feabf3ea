"""Arrays [n·k, ...] of one batch, where k differs by array: n groups of k rows each.

With k = 1 in all arrays the groups are the rows.
"""

from typing import Any

import jax


def group_count(tree: Any) -> int:
    """n: the fewest rows of an array in the tree; it divides those of every other."""
    return min(leaf.shape[0] for leaf in jax.tree.leaves(tree))


def nested(tree: Any, count: int) -> Any:
    """[count·k, ...] -> [count, k, ...] of each array.

    Raises:
        TypeError, ValueError: `count` does not divide the rows of an array (jax, numpy).
    """
    return jax.tree.map(
        lambda leaf: leaf.reshape(count, leaf.shape[0] // count, *leaf.shape[1:]), tree
    )


def flat(tree: Any) -> Any:
    """[n, k, ...] -> [n·k, ...] of each array."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
