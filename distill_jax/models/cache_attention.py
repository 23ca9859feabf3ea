"""Attention of a decode step: one query a row against cached keys and values.

A row's keys are all its own, or the first of them are those of a prompt that a group of rows
shares. Then the queries of a group read the prompt's keys together, once (Hydragen, arXiv
2402.05099), and one softmax runs over both parts.
"""

import jax
import jax.numpy as jnp

_MASKED = -1e30


def attend_own(q_BHh: jax.Array, k_BKhS: jax.Array, v_BKSh: jax.Array, seen_BS: jax.Array):
    """Outputs [B, H·h] in v's dtype; scores and softmax are float32.

    Args:
        q_BHh: queries; H is a multiple of K.
        k_BKhS, v_BKSh: keys and values of each row's slots.
        seen_BS: bool, which slots a row reads; at least one.
    """
    rows, heads, size = q_BHh.shape
    kv_heads = k_BKhS.shape[1]
    q = (q_BHh * size**-0.5).reshape(rows, kv_heads, heads // kv_heads, size)
    scores = jnp.einsum("bkgh,bkhs->bkgs", q, k_BKhS, preferred_element_type=jnp.float32)
    scores = jnp.where(seen_BS[:, None, None], scores, _MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BKSh.dtype)
    return jnp.einsum("bkgs,bksh->bkgh", weights, v_BKSh).reshape(rows, heads * size)


def attend_shared(
    q_BHh: jax.Array,
    own: tuple[jax.Array, jax.Array, jax.Array],
    prompt: tuple[jax.Array, jax.Array, jax.Array],
) -> jax.Array:
    """As `attend_own`, where rows p·G … (p+1)·G − 1 also read the keys of prompt p.

    With scores s over both parts and their maximum m the output is Σ exp(s−m)·v / Σ exp(s−m).

    Args:
        q_BHh: queries, B = P·G.
        own: k [B, K, h, S], v [B, K, S, h], seen bool [B, S]; a row may see none of them.
        prompt: k [P, K, h, T], v [P, K, T, h], seen bool [P, G or 1, T]; a row may see none of
            them, but one slot of the two parts.
    """
    (k_BKhS, v_BKSh, seen_BS), (k_PKhT, v_PKTh, seen_PGT) = own, prompt
    rows, heads, size = q_BHh.shape
    P, K = k_PKhT.shape[:2]
    G, R, f32 = rows // P, heads // K, jnp.float32
    q_BKRh = (q_BHh * size**-0.5).reshape(rows, K, R, size)
    q_PGKRh = q_BKRh.reshape(P, G, K, R, size)
    own_BKRS = jnp.einsum("bkrh,bkhs->bkrs", q_BKRh, k_BKhS, preferred_element_type=f32)
    own_BKRS = jnp.where(seen_BS[:, None, None], own_BKRS, _MASKED)
    # Group and head lie side by side: one product of G·R rows for each prompt and kv head.
    prompt_PKGRT = jnp.einsum("pgkrh,pkht->pkgrt", q_PGKRh, k_PKhT, preferred_element_type=f32)
    prompt_PKGRT = jnp.where(seen_PGT[:, None, :, None], prompt_PKGRT, _MASKED)

    def by_row(x_PKGRX: jax.Array) -> jax.Array:
        return x_PKGRX.transpose(0, 2, 1, 3, 4).reshape(rows, K, R, -1)

    def by_prompt(x_BKRX: jax.Array) -> jax.Array:
        return x_BKRX.reshape(P, G, K, R, -1).transpose(0, 2, 1, 3, 4)

    max_BKR1 = jnp.maximum(
        jnp.max(own_BKRS, axis=-1, keepdims=True),
        by_row(jnp.max(prompt_PKGRT, axis=-1, keepdims=True)),
    )
    own_BKRS = jnp.exp(own_BKRS - max_BKR1)
    prompt_PKGRT = jnp.exp(prompt_PKGRT - by_prompt(max_BKR1))
    total_BKR1 = jnp.sum(own_BKRS, axis=-1, keepdims=True)
    total_BKR1 += by_row(jnp.sum(prompt_PKGRT, axis=-1, keepdims=True))
    dtype = v_BKSh.dtype
    out_BKRh = jnp.einsum(
        "bkrs,bksh->bkrh", own_BKRS.astype(dtype), v_BKSh, preferred_element_type=f32
    )
    out_PKGRh = jnp.einsum(
        "pkgrt,pkth->pkgrh", prompt_PKGRT.astype(dtype), v_PKTh, preferred_element_type=f32
    )
    out_BKRh = (out_BKRh + by_row(out_PKGRh)) / total_BKR1
    return out_BKRh.astype(dtype).reshape(rows, heads * size)
