"""The bytes that each token of a byte-level tokenizer stands for; one may be part of a letter."""

import functools
from collections.abc import Sequence

from tokenizers import pre_tokenizers as pre

from distill_jax.data.tokenizer import FastTokenizer


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """The alphabet of byte-level BPE: printable bytes stand for themselves (in Latin-1), the
    others, in order, for the letters beyond."""
    alphabet = pre.ByteLevel.alphabet()
    own = {letter: ord(letter) for letter in alphabet if ord(letter) < 256}
    others = sorted(letter for letter in alphabet if ord(letter) >= 256)
    left = sorted(set(range(256)) - set(own.values()))
    return own | dict(zip(others, left, strict=True))


def token_bytes(tok: FastTokenizer, ids: Sequence[int]) -> list[bytes]:
    """The bytes of each token; joined and read as UTF-8 they are the text of all.

    Args:
        tok: a byte-level tokenizer (Qwen's, or one made by `train_tokenizer`).
        ids: tokens; special and added ones stand for their own text.
    """
    known, added = _byte_of_letter(), tok.added_tokens_decoder
    out = []
    for index, text in zip(ids, tok.convert_ids_to_tokens(list(ids)), strict=True):
        if index in added:
            out.append(added[index].content.encode())
        else:
            out.append(bytes(known[letter] for letter in text))
    return out
