"""The bytes that each token stands for; those of one token may be part of a letter."""

import functools
import itertools
import re
from collections.abc import Sequence

from tokenizers import decoders
from tokenizers import pre_tokenizers as pre

from distill_jax.data.tokenizer import FastTokenizer

_HEX = re.compile(r"<0x([0-9A-F]{2})>")


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
        tok: byte-level (Qwen's, Llama 3's, or made by `train_tokenizer`), or of the SentencePiece
            form (Llama 2's, Mistral's), which puts a space before a text.
        ids: tokens; special and added ones stand for their own text.
    """
    byte_level = isinstance(tok.backend_tokenizer.decoder, decoders.ByteLevel)
    of_text = _byte_level if byte_level else _sentence_piece
    added = tok.added_tokens_decoder
    out = []
    for index, text in zip(ids, tok.convert_ids_to_tokens(list(ids)), strict=True):
        if index in added:
            out.append(added[index].content.encode())
        else:
            out.append(of_text(text))
    return out


def text_and_ends(tok: FastTokenizer, ids: Sequence[int]) -> tuple[str, list[int]]:
    """(the text of tokens, special ones omitted; the bytes of it up to the end of each token).

    Bytes of no letter are surrogates, as of the error handler surrogateescape, with which the text
    encodes to the tokens' bytes.
    """
    added = tok.added_tokens_decoder
    pieces = [
        b"" if index in added and added[index].special else piece
        for index, piece in zip(ids, token_bytes(tok, ids), strict=True)
    ]
    text = b"".join(pieces).decode("utf-8", "surrogateescape")
    return text, list(itertools.accumulate(map(len, pieces)))


def _byte_level(text: str) -> bytes:
    known = _byte_of_letter()
    return bytes(known[letter] for letter in text)


def _sentence_piece(text: str) -> bytes:
    """▁ is a space; a byte that is part of no other token is <0xNN>."""
    byte = _HEX.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()
