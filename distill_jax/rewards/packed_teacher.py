"""A teacher that scores several rows in one packed row: few padded tokens, few programs.

A call has one packed row on each device, of one of a few widths (`packed_calls.divide`). Rows see
neither each other's tokens nor positions, so scores are those of `TeacherScorer` up to rounding
(1e-6). Their last bits depend on the rows packed with them: with a cache, on what it holds.

Positions that are scored over the rows' own tokens, on GSM8K's lengths with a longest row of 992
and six widths: mean of 200 batches, most (`tests/rewards/test_scored_tokens.py`):

    rows    one device     8 devices
       8    1.06, 1.14     1.98, 2.81
      16    1.05, 1.12     1.21, 1.60
      32    1.04, 1.08     1.11, 1.21
      64    1.04, 1.07     1.07, 1.12
     128    1.03, 1.06     1.05, 1.08

With few rows a device the longest row decides: no call is shorter, and a call has as many positions
on every device. That alone is 1.54 for 8 rows on 8 devices, and 1.06 for 16 (at most 1.42). The
head is applied to every position of a packed row. Choosing the calls takes .01 s for 128 rows on
one device, 1.6 s for 2,048.
"""

from typing import Any

import numpy as np
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.rewards.length_buckets import NAMES
from distill_jax.rewards.packed_calls import PackedCall, divide
from distill_jax.rewards.teacher import TeacherScorer, TeacherScores


class PackedTeacher:
    """Has the `score` of a `TeacherScorer`; scores beyond a response's length are 0.

    Args:
        teacher: scores each call.
        mesh: the teacher's.
        sizes: widths of calls, from `BucketSettings.sizes`.
    """

    def __init__(self, teacher: TeacherScorer, mesh: Mesh, *, sizes: tuple[int, ...]):
        self.teacher, self.model, self.vocab = teacher, teacher.model, teacher.vocab
        self.kind, self.alphas, self.sizes = teacher.kind, teacher.alphas, sizes
        self._where, self._shards = sharding.batch_sharding(mesh), sharding.batch_shards(mesh)

    def program(self, local: str, tokens: int) -> str:
        """The local program; packed rows decide the last bits together, whatever their lengths."""
        return f"{local}, packed in {self.sizes}"

    def score(self, batch: dict[str, Any]) -> TeacherScores:
        """Scores as the teacher's own `score` gives them, placed on the mesh.

        Args:
            batch: on the host or on the mesh; as many rows as the mesh splits evenly.

        Raises:
            DataError: a row longer than the greatest size.
        """
        return sharding.place(self.score_rows(batch), self._where)

    def score_rows(self, batch: dict[str, Any]) -> TeacherScores:
        """The same for any number of rows, as numpy."""
        host = {n: np.asarray(x) for n, x in sharding.fetch({n: batch[n] for n in NAMES}).items()}
        calls = divide(host["prompt_len_B"] + host["response_len_B"], self.sizes, self._shards)
        scored = [
            self.teacher.score_packed(sharding.place(packed(host, call), self._where))
            for call in calls
        ]
        B, R = host["targets_BR"].shape
        q_BR, value_BR, end_B = (np.zeros(shape, np.float32) for shape in ((B, R), (B, R), (B,)))
        for call, scores in zip(calls, sharding.fetch(scored), strict=True):
            for place, inside in enumerate(call.places):
                first = 0
                for row in inside:
                    tokens = int(host["response_len_B"][row])
                    last = first + tokens
                    q_BR[row, :tokens] = scores.q_BR[place, first:last]
                    value_BR[row, :tokens] = scores.value_BR[place, first:last]
                    end_B[row] = scores.value_BR[place, last]
                    first = last + 1
        return TeacherScores(q_BR, value_BR, end_B)  # type: ignore[arg-type]  # on the host


def packed(host: dict[str, np.ndarray], call: PackedCall) -> dict[str, np.ndarray]:
    """The arrays of a call, for `TeacherScorer.score_packed`.

    Args:
        host: arrays NAMES of the batch; a prompt has at least one token.
        call: which of its rows go where.

    Returns:
        tokens_BT, segment_BT, targets_BR, at_BR int32, B and T of the call, R = T. Each response
        has one more place than tokens, with target 0: the state after its last token.
    """
    B, T = len(call.places), call.width
    out = {name: np.zeros((B, T), np.int32) for name in ("tokens_BT", "segment_BT", "targets_BR")}
    out["at_BR"] = np.full((B, T), T + 1, np.int32)
    for place, inside in enumerate(call.places):
        begin = first = 0
        for number, row in enumerate(inside, 1):
            start = begin + int(host["prompt_len_B"][row])
            tokens = int(host["response_len_B"][row])
            end, last = start + tokens, first + tokens
            out["tokens_BT"][place, begin:end] = host["tokens_BT"][row, : end - begin]
            out["segment_BT"][place, begin:end] = number
            out["targets_BR"][place, first:last] = host["targets_BR"][row, :tokens]
            out["at_BR"][place, first : last + 1] = np.arange(start, end + 1)
            begin, first = end, last + 1
    return out
