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
from distill_jax.rewards.packed_calls import PackedCall, RowLengths, divide
from distill_jax.rewards.teacher import TeacherScorer, TeacherScores

_PLAIN = ("tokens_BT", "segment_BT", "targets_BR", "at_BR")
_SHARED = (*_PLAIN, "prompt_segment_BT", "position_BT")


def shares_prompts(model: QwenModel, widest: int) -> bool:
    """Whether a prompt stands once for its responses in packed rows of at most so many tokens.

    The model's attention must take a mask.
    """
    return not isinstance(model.attends(widest, segments=True), Splash)


def packed_names(shared: bool) -> tuple[str, ...]:
    """The arrays of a call."""
    return _SHARED if shared else _PLAIN


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
        self.shared = shares_prompts(teacher.model, sizes[-1])
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
        calls = divide(lengths(host, self.shared), self.sizes, self._shards)
        scored = [
            self.teacher.score_packed(sharding.place(packed(host, call, self.shared), self._where))
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


def lengths(host: dict[str, np.ndarray], shared: bool) -> list[RowLengths]:
    """Of each row of a batch; rows with equal prompts have one number if these are shared."""
    numbers: dict[Any, int] = {}
    found = []
    for row, (p, n) in enumerate(zip(host["prompt_len_B"], host["response_len_B"], strict=True)):
        key = host["tokens_BT"][row, :p].tobytes() if shared else row
        found.append(RowLengths(numbers.setdefault(key, len(numbers)), int(p), int(n)))
    return found


def packed(host: dict[str, np.ndarray], call: PackedCall, shared: bool) -> dict[str, np.ndarray]:
    """The arrays of a call, for `TeacherScorer.score_packed`.

    Args:
        host: arrays NAMES of the batch; a prompt has at least one token.
        call: which of its rows go where.
        shared: a prompt stands once before those of its rows that follow each other.

    Returns:
        tokens_BT, segment_BT, targets_BR, at_BR int32, B and T of the call, R = T; where prompts
        are shared prompt_segment_BT and position_BT, see `models.attention.PromptSegments`. Each
        response has one more place than tokens, with target 0: the state after its last token.
    """
    B, T = len(call.places), call.width
    out = {name: np.zeros((B, T), np.int32) for name in packed_names(shared)}
    out["at_BR"] += T + 1
    for number, inside in enumerate(call.places):
        _fill({name: x[number] for name, x in out.items()}, host, inside, shared)
    return out


def _fill(
    out: dict[str, np.ndarray], host: dict[str, np.ndarray], inside: list[int], shared: bool
) -> None:
    """Writes one packed row."""
    token = place = segment = 0  # the next free ones
    prompt_segment = prompt_end = 0
    last_prompt: np.ndarray | None = None
    for row in inside:
        p, n = int(host["prompt_len_B"][row]), int(host["response_len_B"][row])
        prompt, response = np.split(host["tokens_BT"][row, : p + n], [p])
        if not shared or last_prompt is None or not np.array_equal(last_prompt, prompt):
            segment += 1
            prompt_segment, prompt_end, last_prompt = segment, token + p, prompt
            _write(out, token, prompt, segment, prompt_segment, 0)
            token = prompt_end
        if shared:
            segment += 1  # a response is a segment by itself
        _write(out, token, response, segment, prompt_segment, p)
        end = place + n
        out["targets_BR"][place:end] = host["targets_BR"][row, :n]
        # The state of the prompt's last token is that of the first response token.
        out["at_BR"][place : end + 1] = [prompt_end, *range(token + 1, token + n + 1)]
        token, place = token + n, end + 1


def _write(
    out: dict[str, np.ndarray], begin: int, ids: np.ndarray, segment: int, prompt: int, at: int
) -> None:
    """Writes tokens of a prompt or a response, whose first has position `at`."""
    where = slice(begin, begin + len(ids))
    out["tokens_BT"][where], out["segment_BT"][where] = ids, segment
    if "prompt_segment_BT" in out:
        out["prompt_segment_BT"][where] = prompt
        out["position_BT"][where] = np.arange(at, at + len(ids))
