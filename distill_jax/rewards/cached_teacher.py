"""A teacher that scores only rows that are not cached: (Q, V) or top-k.

On one machine the bits of a row's scores depend on the padded shape of its batch (rows, T, R), not
on its place there nor on the other rows (measured on CPU, and tested). With `CacheSettings.rows`
above 0 the teacher always scores that many rows at a time, and the shape, the mesh, the device and
jax's version are part of the key. So a cached score equals one scored again, and a resumed run has
the bits of one that was never stopped, with any cache. Scores differ from those without a cache by
rounding (1e-6) unless `rows` is at least the batch's. With rows=0 the last bits depend on the
cache's contents. With length buckets, a row's bucket shape takes the role of `rows`; with packed
rows the last bits depend on the cache's contents, too.

On another kind of device, run `tests/rewards/test_teacher_cache_scoring.py` there first.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.batching import padded
from distill_jax.models.head.listed import TopK
from distill_jax.rewards.length_buckets import NAMES, BucketedTeacher, RowScorer, Scorer
from distill_jax.rewards.score_bytes import Row, RowScores, ScoreSource, Value, layout
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.rewards.teacher_cache import CacheSettings, ScoreCache

Batch = dict[str, np.ndarray]
Arrays = tuple[np.ndarray, ...]  # those of TeacherScores or of TopK


class CachedTeacher:
    """Has its teacher's `score`; see the module for what its bits depend on.

    Scores beyond a response's length are 0. With several processes, process 0 keeps the cache.

    Args:
        teacher: scores what is missing: `TeacherScorer` or `TopKScorer`, in length buckets, packed
            rows or neither.
        mesh: the teacher's.
        settings: of the cache, megabytes above 0.
        model: digest of the teacher's weights and geometry.
        tokenizer: digest of the tokenizer.
        warn: see `ScoreCache`.
    """

    def __init__(
        self,
        teacher: Scorer,
        mesh: Mesh,
        settings: CacheSettings,
        *,
        model: str,
        tokenizer: str,
        warn: Callable[[str], None] | None = None,
    ):
        self.teacher, self.settings = teacher, settings
        self._mesh, self._rows = mesh, sharding.batch_sharding(mesh)
        self._by_row = teacher if isinstance(teacher, RowScorer) else None
        source = ScoreSource(model, tokenizer, teacher.alphas, teacher.vocab, teacher.kind)
        if jax.process_index() != 0:
            settings = replace(settings, directory="")
        self.cache = ScoreCache(settings, source, warn=warn)
        device = mesh.devices.flat[0]
        self._program = (
            f"jax {jax.__version__}, {device.platform} {device.device_kind}, "
            f"mesh {dict(mesh.shape)}, {os.environ.get('XLA_FLAGS', '')}, "
            f"{jax.config.values['jax_default_matmul_precision']}, {teacher.model!r}"
        )

    def score(self, batch: dict[str, Any]) -> Any:
        """Scores of a batch, as the teacher's own `score`."""
        return sharding.place(self.score_rows(batch), self._rows)

    def score_rows(self, batch: dict[str, Any]) -> Any:
        """The same for any number of rows, as numpy."""
        host = sharding.fetch({name: batch[name] for name in NAMES})
        host = {name: np.asarray(x) for name, x in host.items()}
        rows = [
            Row(tokens[:p], targets[:n])
            for tokens, p, n, targets in zip(*(host[name] for name in NAMES), strict=True)
        ]
        count = len(rows)
        size = min(self.settings.rows, count)
        by_row: RowScorer | None = self._by_row or (self._one_shape(host, size) if size else None)
        programs = [self._program] * count
        if by_row is not None:
            lengths = [len(row.prompt_P) + len(row.response_R) for row in rows]
            programs = [by_row.program(self._program, length) for length in lengths]
        out = _Merged(self.cache.source.top_k, count, host["targets_BR"].shape[1])
        values = self.cache.lookup(rows, programs) if jax.process_index() == 0 else [None] * count
        for index, value in enumerate(values):
            if value is not None:
                out.put(index, value)
        out.agree()
        copies = _copies(rows, np.flatnonzero(~out.known_B))
        if not copies:
            return out.result()
        first = np.array(list(copies))
        if by_row is None:  # all at once, padded to a power of two
            by_row = self._one_shape(host, min(padded(len(first), 1), count))
        scored = tuple(by_row.score_rows({name: x[first] for name, x in host.items()}))
        new = []
        for place, (index, same) in enumerate(copies.items()):
            new.append(_cut(scored, place, len(rows[index].response_R)))
            for copy in same:
                out.put(copy, new[-1])
        if jax.process_index() == 0:
            # What is not finite is no score to keep: it may have been the machine's fault.
            good = [p for p, value in enumerate(new) if all(np.isfinite(x).all() for x in value)]
            at = [first[p] for p in good]
            self.cache.store(
                [rows[i] for i in at], [new[p] for p in good], [programs[i] for i in at]
            )
        return out.result()

    def metrics(self) -> dict[str, float]:
        """Of `ScoreCache.metrics`, on process 0."""
        return self.cache.metrics()

    def close(self) -> None:
        """Closes the cache."""
        self.cache.close()

    def _one_shape(self, host: Batch, rows: int) -> BucketedTeacher:
        """The teacher at the batch's own length, so many rows at a time."""
        T, R = host["tokens_BT"].shape[1], host["targets_BR"].shape[1]
        return BucketedTeacher(self.teacher, self._mesh, sizes=(T,), rows=rows, response=R)


class _Merged:
    """Scores of a batch, filled row by row; k is 0 for (Q, V)."""

    def __init__(self, k: int, count: int, width: int):
        self.known_B = np.zeros(count, bool)
        self._type: Any = TopK if k else TeacherScores
        self.scores: Arrays = tuple(
            np.zeros((count, *shape), dtype) for dtype, shape in layout(width, k)
        )

    def put(self, row: int, value: Value) -> None:
        for target, x in zip(self.scores, value, strict=True):
            if target.ndim > 1:
                target[row, : len(x)] = x
            else:
                target[row] = x
        self.known_B[row] = True

    def agree(self) -> None:
        """Every process goes by what process 0 found: all must run the same programs."""
        if jax.process_count() > 1:
            # As integers: the way over the network is a sum, which would lose −0.
            mine = (self.known_B.astype(np.int32), *(x.view(np.int32) for x in self.scores))
            known, *bits = map(np.array, multihost_utils.broadcast_one_to_all(mine))
            self.known_B = known.astype(bool)
            self.scores = tuple(x.view(own.dtype) for x, own in zip(bits, self.scores, strict=True))

    def result(self) -> Any:
        return self._type(*self.scores)


def _copies(rows: list[Row], missing: np.ndarray) -> dict[int, list[int]]:
    """First index of each distinct row among those missing, and all indices where it stands."""
    first: dict[tuple[bytes, bytes], int] = {}
    out: dict[int, list[int]] = {}
    for index in map(int, missing):
        prompt, response = rows[index]
        out.setdefault(first.setdefault((prompt.tobytes(), response.tobytes()), index), []).append(
            index
        )
    return out


def _cut(scores: Arrays, row: int, tokens: int) -> Value:
    # A cached value has the arrays of the scores, in their order.
    cut = [np.array(x[row, :tokens] if x.ndim > 1 else x[row]) for x in scores]
    return TopK(*cut) if scores[0].ndim == 3 else RowScores(*cut)
