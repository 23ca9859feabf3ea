"""Teacher scoring in a few row lengths, so that short rows cost less than the longest.

Each row is padded to the shortest of a few fixed lengths that holds it, and each call of a length
has the same number of rows. So a teacher is compiled once for each length, and the padded shape of
a row depends on the row alone: its bits depend neither on the other rows nor on the contents of a
cache. The price is the last call of each length: its free rows repeat another.

Tokens that are scored over the rows' own, on GSM8K's lengths with a longest row of 992, one device
(`tests/rewards/test_scored_tokens.py`):

    lengths=4, 32 rows a call     2.5 for 128 rows, 8.9 for 16
    lengths=8, tokens=512         1.17 for 128 rows, at most 1.2; 1.22 for 16, at most 1.4

Small calls waste little, but each reads the teacher's weights: about 260 tokens (H100, bfloat16)
take as long to compute as the weights to read, hence 512. Where the weights are split over fsdp
each call gathers them, so calls must be larger there, and 1.25 is out of reach with 16 rows a
device: on 8 devices tokens=512 scores 1.7 times the rows' own tokens in 11 calls, lengths=4 with
tokens=1024 2.2 times in 7. Fewer lengths are fewer programs, too. Rows of several lengths in one
packed row would have none of these costs, but bits that depend on the rows next to them.
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
    """What `TeacherScorer`, `TopKScorer` and `BucketedTeacher` have in common.

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
    """A scorer of any number of rows, whose scores do not depend on the other rows."""

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
    """Row lengths that the teacher scores in."""

    UNREAD: ClassVar = (Unread(("rows",), ("tokens",), bool),)

    lengths: int = setting(
        1,
        "Row lengths up to the longest prompt and completion, a program each; each row is scored "
        "in the shortest that holds it. They are in even steps; with `tokens`, each is longer by "
        "the same factor. 1 scores a batch whole, at its own length.",
        low=1,
        affects="rounding",
    )
    rows: int = setting(
        32,
        "Rows of one such call, rounded up to what the mesh splits evenly.",
        low=1,
        affects="rounding",
    )
    tokens: int = setting(
        0,
        "Instead of `rows`, tokens of one such call on each device: as many rows of its length as "
        "have no more, at least one. 0: `rows`, whatever their length.",
        low=0,
        affects="rounding",
    )

    def rows_of(self, time: int, shards: int) -> int:
        """Rows of a call whose rows have so many tokens, split over so many devices."""
        if self.tokens:
            return shards * max(1, self.tokens // time)
        return round_up(self.rows, shards)

    def sizes(self, longest: int, multiple: int) -> tuple[int, ...]:
        """The row lengths; multiple: of even steps."""
        if self.tokens:
            return growing_sizes(longest, count=self.lengths)
        return bucket_sizes(longest, count=self.lengths, multiple=multiple)

    def calls(self, longest: int, response: int, multiple: int, shards: int) -> list[Call]:
        """The call of each row length, shorter ones first; see `sizes` and `rows_of`."""
        sizes = self.sizes(longest, multiple)
        return [Call(self.rows_of(T, shards), T, min(response, T)) for T in sizes]


class BucketedTeacher:
    """A scorer in length buckets; scores beyond a response's length are 0.

    Args:
        teacher: scores each call.
        mesh: the teacher's.
        sizes: row lengths, from `BucketSettings.sizes`.
        rows: rows of a call, rounded up to a multiple of the mesh's data×fsdp.
        response: longest response in tokens.
        tokens: of a call on each device, which then decide its rows; 0: `rows` does.
    """

    def __init__(
        self,
        teacher: Scorer,
        mesh: Mesh,
        *,
        sizes: Sequence[int],
        rows: int,
        response: int,
        tokens: int = 0,
    ):
        self.teacher, self.model, self.vocab = teacher, teacher.model, teacher.vocab
        self.kind, self.alphas = teacher.kind, teacher.alphas
        self.sizes, self.response = tuple(sorted(sizes)), response
        self._where, shards = sharding.batch_sharding(mesh), sharding.batch_shards(mesh)
        settings = BucketSettings(rows=rows, tokens=tokens)
        self.rows_of = {T: settings.rows_of(T, shards) for T in self.sizes}

    def shape(self, tokens: int) -> Call:
        """Of the call that scores a row of so many tokens.

        Raises:
            DataError: no size holds it.
        """
        T = bucket(tokens, self.sizes)
        return Call(self.rows_of[T], T, min(self.response, T))

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
