"""Bytes of the sampler's cache on one device."""

from distill_jax.forecast.activations import Program


def held(program: Program, rows: int, slots: int) -> int:
    """Keys and values of so many rows, which each have so many slots."""
    g = program.geometry
    heads = program.split(g.num_kv_heads)
    return 2 * g.num_layers * rows * heads * g.head_dim * slots * program.itemsize


def drawn(program: Program, rows: int, new: int, prompt: int, shared: int) -> int:
    """Of rows that have drawn so many new tokens, behind prompts of so many slots.

    shared: prompts that the rows share; 0: each holds its own, and all slots from the first token
    on. Else the cache of new tokens has grown to this size, when one layer was held twice.
    """
    if not shared:
        return held(program, rows, prompt + new)
    own = held(program, rows, new)
    return own + own // program.geometry.num_layers + held(program, shared, prompt)
