"""Teacher scoring in a few row lengths, so that short rows cost less than the longest.

Each row is padded to the shortest of a few fixed lengths that holds it, and each call of a length
has the same number of rows. So a teacher is compiled once for each length, and the padded shape of
a row depends on the row alone: its bits depend neither on the other rows nor on the contents of a
cache. The price is padding, and the last call of each length: its free rows repeat another. With
lengths=4 and 32 rows a call, 128 rows of GSM8K's lengths score 2.5 times their own tokens and 16
rows 8.9 times. Packed rows (`packed_teacher.py`) score .8 times with four responses to a prompt on
one device; the bits of a row then depend on the rows packed with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.batching import filled, round_up
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread
from distill_jax.data.batching import bucket, bucket_sizes, growing_sizes

NAMES = ("tokens_BT", "prompt_len_B", "response_len_B", "targets_BR")


class Scorer(Protocol):
    """What `TeacherScorer`, `TopKScorer`, `BucketedTeacher`, `PackedTeacher` have in common.

    Attributes:
        model: the teacher, or its name.
        vocab: tokens that exist.
        kind: of `score_bytes.ScoreSource`.
        alphas: temperatures that the scores depend on.
    """

    model: Any
    vocab: int
    kind: str
    alphas: tuple[float, ...]

    def score(self, batch: dict[str, Any]) -> Any:
        """A NamedTuple of arrays [B, R, ...] or [B]."""


@runtime_checkable
class RowScorer(Scorer, Protocol):
    """A scorer of any number of rows, whose scores do not depend on the other rows.

    Their last bits do in packed rows.
    """

    def score_rows(self, batch: dict[str, Any]) -> Any:
        """As `score`, on the host."""

    def program(self, local: str, tokens: int) -> str:
        """What decides the last bits of a row of so many tokens; local: device, versions, mesh."""


class Call(NamedTuple):
    """The shape of a call: rows, their tokens, those of a response at most."""

    rows: int
    T: int
    R: int


@dataclass(frozen=True)
class BucketSettings:
    """Shapes of the calls that the teacher scores in."""

    UNREAD: ClassVar = (Unread(("rows",), ("packed",), bool),)

    lengths: int = setting(
        1,
        "Row lengths up to the longest prompt and completion, a program each; each row is scored "
        "in the shortest that holds it. They are in even steps; with `packed` they begin at 2/5 of "
        "the longest, and each is longer by the same factor. 1 scores a batch whole, at its own "
        "length, unless `packed`.",
        low=1,
        affects="rounding",
    )
    rows: int = setting(
        32,
        "Rows of one such call, rounded up to what the mesh splits evenly.",
        low=1,
        affects="rounding",
    )
    packed: bool = setting(
        False,
        "Several rows one after another in a packed row, one packed row on each device in a call: "
        "few padded tokens. The last bits of a row's scores then depend on the rows packed with "
        "it: with a cache, on what was cached.",
        affects="rounding",
    )

    def sizes(self, longest: int, multiple: int) -> tuple[int, ...]:
        """The row lengths; multiple: of even steps."""
        if self.packed:
            return growing_sizes(longest, count=self.lengths)
        return bucket_sizes(longest, count=self.lengths, multiple=multiple)

    def calls(self, longest: int, response: int, multiple: int, shards: int) -> list[Call]:
        """The call of each row length, shorter ones first; the rows are split over `shards`."""
        sizes = self.sizes(longest, multiple)
        if self.packed:
            return [Call(shards, T, T) for T in sizes]
        return [Call(round_up(self.rows, shards), T, min(response, T)) for T in sizes]


class BucketedTeacher:
    """A scorer in length buckets; scores beyond a response's length are 0.

    Args:
        teacher: scores each call.
        mesh: the teacher's.
        sizes: row lengths, from `BucketSettings.sizes`.
        rows: rows of a call, rounded up to a multiple of the mesh's data×fsdp.
        response: longest response in tokens.
    """

    def __init__(
        self,
        teacher: Scorer,
        mesh: Mesh,
        *,
        sizes: Sequence[int],
        rows: int,
        response: int,
    ):
        self.teacher, self.model, self.vocab = teacher, teacher.model, teacher.vocab
        self.kind, self.alphas = teacher.kind, teacher.alphas
        self.sizes, self.response = tuple(sorted(sizes)), response
        self._where = sharding.batch_sharding(mesh)
        self.rows = round_up(rows, sharding.batch_shards(mesh))

    def shape(self, tokens: int) -> Call:
        """Of the call that scores a row of so many tokens.

        Raises:
            DataError: no size holds it.
        """
        T = bucket(tokens, self.sizes)
        return Call(self.rows, T, min(self.response, T))

    def program(self, local: str, tokens: int) -> str:
        """The local program at the row's shape."""
        return local + ", rows {} T {} R {}".format(*self.shape(tokens))

    def score(self, batch: dict[str, Any]) -> Any:
        """Scores as the teacher's own `score` gives them, placed on the mesh.

        Args:
            batch: on the host or on the mesh; as many rows as the mesh splits evenly.

        Raises:
            DataError: a row longer than the greatest size.
        """
        return sharding.place(self.score_rows(batch), self._where)

    def score_rows(self, batch: dict[str, Any]) -> Any:
        """The same for any number of rows, as numpy."""
        host = {n: np.asarray(x) for n, x in sharding.fetch({n: batch[n] for n in NAMES}).items()}
        length_B = host["response_len_B"]
        shapes = [self.shape(int(total)) for total in host["prompt_len_B"] + length_B]
        parts, scored = [], []
        for shape in sorted(set(shapes)):
            members = np.flatnonzero([own == shape for own in shapes])
            for start in range(0, len(members), shape[0]):
                parts.append(members[start : start + shape[0]])
                placed = sharding.place(_call(host, parts[-1], shape), self._where)
                scored.append(self.teacher.score(placed))
        out = _merge(parts, sharding.fetch(scored), length_B, host["targets_BR"].shape[1])
        return type(scored[0])(*out)


def _call(
    host: dict[str, np.ndarray], part: np.ndarray, shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """These rows in arrays of this shape."""
    rows, T, R = shape
    cut = {name: x[filled(part, rows)] for name, x in host.items()}
    # Padding at the right is never attended to, so its tokens do not matter.
    for name, width in (("tokens_BT", T), ("targets_BR", R)):
        short = max(0, width - cut[name].shape[1])
        cut[name] = np.pad(cut[name][:, :width], ((0, 0), (0, short)))
    return cut


def _merge(
    parts: Sequence[np.ndarray], scored: Sequence[Any], length_B: np.ndarray, width: int
) -> list[np.ndarray]:
    """Arrays [B, width, ...] or [B]; row i of a part goes where the part says, 0 beyond lengths."""
    B = len(length_B)
    out = [
        np.zeros((B, *((width, *x.shape[2:]) if x.ndim > 1 else ())), x.dtype) for x in scored[0]
    ]
    for part, arrays in zip(parts, scored, strict=True):
        for target, x in zip(out, arrays, strict=True):
            if x.ndim == 1:
                target[part] = x[: len(part)]
            else:
                R = min(width, x.shape[1])
                target[part, :R] = x[: len(part), :R]
    beyond_BR = np.arange(width)[None, :] >= length_B[:, None]
    for target in out:
        if target.ndim > 1:
            target[beyond_BR] = 0
    return out
