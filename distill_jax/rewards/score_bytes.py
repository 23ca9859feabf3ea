"""A teacher's scores of one response as bytes, and the digest that they are kept under.

Bytes: a header, the arrays little-endian one after another, and a checksum over key, header and
arrays; never pickled. Floats come back to the bit: NaN with its payload, −0 and denormals too.
"""

import functools
import hashlib
import math
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distill_jax.models.head.listed import TopK

KEY_BYTES = 32
_HEADER = struct.Struct("<4sBBHII")  # magic, format, kind, 0, response tokens, k
_MAGIC, _FORMAT = b"DJTS", 1
_CHECKSUM_BYTES = 16
_KINDS = {"scores": 0, "top_k": 1}


class Row(NamedTuple):
    """A prompt and the response to score, int32 token ids without padding."""

    prompt_P: np.ndarray
    response_R: np.ndarray


class RowScores(NamedTuple):
    """Kind "scores": q_R and value_R f32 of the state before each response token, end_value f32
    (shape ()) of the state after the last one."""

    q_R: np.ndarray
    value_R: np.ndarray
    end_value: np.ndarray


# Kind "top_k:<k>" stores a TopK of axes [R].
Value = RowScores | TopK


class DamagedBytesError(Exception):
    """Bytes that are not what was stored under their key."""


@dataclass(frozen=True)
class ScoreSource:
    """What scores depend on in addition to the row.

    Attributes:
        model: digest of the teacher's weights and geometry (`core.digest`).
        tokenizer: digest of the tokenizer.
        alphas: soft temperatures; exactly one for kind "scores".
        vocab: tokens that enter the logsumexp.
        kind: "scores" or "top_k:<k>".
    """

    model: str
    tokenizer: str
    alphas: tuple[float, ...]
    vocab: int
    kind: str = "scores"

    @property
    def top_k(self) -> int:
        """k of kind "top_k:<k>", 0 for "scores"."""
        return int(self.kind.partition(":")[2] or 0)

    @functools.cached_property
    def _begun(self) -> "hashlib.blake2b":
        digest = hashlib.blake2b(digest_size=KEY_BYTES, person=b"teacher scores 2")
        for text in (self.model, self.tokenizer, self.kind):
            _add(digest, text.encode())
        _add(digest, np.asarray(self.alphas, "<f8").tobytes())
        _add(digest, self.vocab.to_bytes(8, "little"))
        return digest

    def key(self, row: Row, program: str = "") -> bytes:
        """The digest of this source, a row (where the prompt ends matters) and a program.

        The program is what else decides the last bits: versions, device, padded shape.
        """
        digest = self._begun.copy()
        _add(digest, program.encode())
        for tokens in row:
            _add(digest, np.ascontiguousarray(tokens, "<i4").tobytes())
        return digest.digest()


def _add(digest: "hashlib.blake2b", part: bytes) -> None:
    # With its length: ("ab", "c") is not ("a", "bc").
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)


def layout(tokens: int, k: int) -> list[tuple[str, tuple[int, ...]]]:
    """dtype and shape of each array of a value; k is 0 for (Q, V)."""
    if k:
        return [("<i4", (tokens, k)), ("<f4", (tokens, k)), ("<f4", (tokens,))]
    return [("<f4", (tokens,)), ("<f4", (tokens,)), ("<f4", ())]


def encode(key: bytes, value: Value) -> bytes:
    """The bytes of a value.

    Raises:
        ValueError: an array of another dtype or shape than its class says.
    """
    tokens = len(value[0])
    k = value.ids_XK.shape[1] if isinstance(value, TopK) else 0
    parts = [_HEADER.pack(_MAGIC, _FORMAT, _KINDS["top_k" if k else "scores"], 0, tokens, k)]
    for array, (dtype, shape) in zip(value, layout(tokens, k), strict=True):
        array = np.asarray(array)
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise ValueError(f"{array.dtype}{array.shape} where {dtype}{shape} belongs")
        parts.append(array.astype(dtype, copy=False).tobytes())
    body = b"".join(parts)
    return body + _checksum(key, body)


def decode(key: bytes, blob: object, tokens: int, k: int) -> Value:
    """The value that `encode` made these bytes of, found under a key; k is `ScoreSource.top_k`.

    Raises:
        DamagedBytesError: they are not bytes of such a value under this key.
    """
    kinds = layout(tokens, k)
    sizes = [4 * math.prod(shape) for _, shape in kinds]
    header = _HEADER.pack(_MAGIC, _FORMAT, _KINDS["top_k" if k else "scores"], 0, tokens, k)
    if not isinstance(blob, bytes) or len(blob) != len(header) + sum(sizes) + _CHECKSUM_BYTES:
        raise DamagedBytesError("not bytes of the right length")
    body, checksum = blob[:-_CHECKSUM_BYTES], blob[-_CHECKSUM_BYTES:]
    if _checksum(key, body) != checksum:
        raise DamagedBytesError("wrong checksum")
    if not body.startswith(header):
        raise DamagedBytesError("another kind or format")
    arrays, at = [], len(header)
    for (dtype, shape), size in zip(kinds, sizes, strict=True):
        arrays.append(np.frombuffer(body[at : at + size], dtype).reshape(shape))
        at += size
    return TopK(*arrays) if k else RowScores(*arrays)


def _checksum(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(key + body, digest_size=_CHECKSUM_BYTES).digest()
