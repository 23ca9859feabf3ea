"""A teacher that scores several rows in one packed row: few padded tokens, few programs.

A call has one packed row on each device, of one of a few widths (`packed_calls.divide`). Responses
to one prompt follow it there and see it and themselves, not each other, so scores are those of
`TeacherScorer` up to rounding (1e-6). Their last bits depend on the rows packed with them: with a
cache, on what it holds. Where the teacher's attention takes no mask (on TPU, for packed rows from
1,024 tokens) each response has its own copy of the prompt.

Positions that are scored over the rows' own tokens, on GSM8K's lengths, four responses to a prompt,
a longest row of 992 and six widths: mean of 200 batches, most
(`tests/rewards/test_scored_tokens.py`):

    rows    one device     8 devices
       8     .76,  .92     1.98, 2.81
      16     .76,  .86     1.10, 1.60
      32     .77,  .83      .88, 1.01
      64     .77,  .82      .82,  .87
     128     .77,  .80      .79,  .84

With few rows a device the longest row decides: no call is shorter, and a call has as many positions
on every device. That alone is 1.54 for 8 rows on 8 devices. The head is applied to every position
of a packed row.
"""

from typing import Any

import numpy as np
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.models.qwen import QwenModel
from distill_jax.models.splash import Splash
from distill_jax.rewards.length_buckets import NAMES
from distill_jax.rewards.packed_calls import Length, PackedCall, divide
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
        # A packed row holds a prompt once for its responses there.
        self._shared = "prompt_BT" in packed_names(teacher.model, sizes[-1])
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
        calls = divide(lengths(host, self._shared), self.sizes, self._shards)
        scored = [
            self.teacher.score_packed(sharding.place(packed(host, call, self._shared), self._where))
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


def packed_names(model: QwenModel, widest: int) -> list[str]:
    """The arrays of a call of this teacher, in calls of at most so many tokens a row.

    Prompts are shared where its attention takes a mask.
    """
    names = ["tokens_BT", "segment_BT", "targets_BR", "at_BR"]
    splash = isinstance(model.attends(widest, segments=True), Splash)
    return names if splash else [*names, "position_BT", "prompt_BT"]


def lengths(host: dict[str, np.ndarray], shared: bool) -> list[Length]:
    """Of each row of a batch; rows with equal prompts have one number if these are shared."""
    numbers: dict[Any, int] = {}
    found = []
    for row, (p, n) in enumerate(zip(host["prompt_len_B"], host["response_len_B"], strict=True)):
        key = host["tokens_BT"][row, :p].tobytes() if shared else row
        found.append(Length(numbers.setdefault(key, len(numbers)), int(p), int(n)))
    return found


def packed(
    host: dict[str, np.ndarray], call: PackedCall, shared: bool = True
) -> dict[str, np.ndarray]:
    """The arrays of a call, for `TeacherScorer.score_packed`.

    Args:
        host: arrays NAMES of the batch; a prompt has at least one token.
        call: which of its rows go where.
        shared: a prompt stands once before those of its rows that follow each other.

    Returns:
        tokens_BT, segment_BT, targets_BR, at_BR int32, B and T of the call, R = T; where prompts
        are shared position_BT and prompt_BT, see `models.attention.Branches`. Each response has one
        more place than tokens, with target 0: the state after its last token.
    """
    B, T = len(call.places), call.width
    names = ["tokens_BT", "segment_BT", "targets_BR"]
    names += ["position_BT", "prompt_BT"] if shared else []
    out = {name: np.zeros((B, T), np.int32) for name in names}
    out["at_BR"] = np.full((B, T), T + 1, np.int32)
    for place, inside in enumerate(call.places):
        _fill({name: x[place] for name, x in out.items()}, host, inside, shared)
    return out


def _fill(
    out: dict[str, np.ndarray], host: dict[str, np.ndarray], inside: list[int], shared: bool
) -> None:
    """Writes one packed row."""
    begin = first = segment = 0  # next free place, of tokens and of targets
    behind: np.ndarray | None = None  # the prompt that stands last
    for row in inside:
        p, n = int(host["prompt_len_B"][row]), int(host["response_len_B"][row])
        tokens_T = host["tokens_BT"][row]
        again = shared and behind is not None and np.array_equal(behind, tokens_T[:p])
        if not again:
            segment += 1
            prompt, after, behind = segment, begin + p, tokens_T[:p]
            _write(out, begin, tokens_T[:p], segment, prompt, 0)
            begin = after
        segment += shared
        _write(out, begin, tokens_T[p : p + n], segment, prompt, p)
        last = first + n
        out["targets_BR"][first:last] = host["targets_BR"][row, :n]
        # The prompt's last token draws the first one.
        out["at_BR"][first : last + 1] = [after, *range(begin + 1, begin + n + 1)]
        begin, first = begin + n, last + 1


def _write(
    out: dict[str, np.ndarray], begin: int, ids: np.ndarray, segment: int, prompt: int, at: int
) -> None:
    """Writes tokens of a prompt or a response, whose first has position `at`."""
    where = slice(begin, begin + len(ids))
    out["tokens_BT"][where], out["segment_BT"][where] = ids, segment
    if "prompt_BT" in out:
        out["prompt_BT"][where] = prompt
        out["position_BT"][where] = np.arange(at, at + len(ids))
