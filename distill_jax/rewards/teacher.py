"""The teacher as a soft Q-function: Q(s_t, a_t) and V(s_t), two floats a token.

Q is the logit of the token that the student drew, V = α·logsumexp(Q(s,·)/α) over the tokens that
exist. The head is applied in chunks: no array has batch, time and vocabulary axes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.models.qwen import QwenModel
from distill_jax.models.response import in_parts, located, response_scores, tokens_of_a_row
from distill_jax.rewards.length_buckets import NAMES


class TeacherScores(NamedTuple):
    """q_BR, value_BR f32 of the states before each response token; end_value_B f32, V of the
    state after the last one (what a truncated answer is bootstrapped with)."""

    q_BR: jax.Array
    value_BR: jax.Array
    end_value_B: jax.Array


class PackedScores(NamedTuple):
    """q_BR, value_BR f32 at each place of `at_BR` of packed rows; meaningless at unused places."""

    q_BR: jax.Array
    value_BR: jax.Array


class TeacherScorer:
    """Scores responses under the teacher.

    Args:
        model, params: the teacher and its weights, on the mesh.
        mesh: rows are split over data and fsdp.
        alpha: soft temperature of the teacher's policy.
        vocab: tokens that exist; logit rows beyond it never enter the logsumexp.
        ahead: what makes its programs compile before they are needed; None: they do not.
    """

    def __init__(
        self,
        model: QwenModel,
        params: Any,
        mesh: Mesh,
        *,
        alpha: float,
        vocab: int,
        ahead: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    ):
        self.model, self.params, self.alpha, self.vocab = model, params, alpha, vocab
        self.kind = "scores"
        self.alphas: tuple[float, ...] = (float(alpha),)
        where = sharding.batch_sharding(mesh)
        # (params, arrays of a batch) -> scores
        self._score = scoring_program(model, float(alpha), vocab, where)
        self._score_packed = packed_program(model, float(alpha), vocab, where)
        if ahead is not None:
            self._score, self._score_packed = ahead(self._score), ahead(self._score_packed)

    def score(self, batch: dict[str, Any]) -> TeacherScores:
        """Scores of a batch as `rollout.batch.training_batch` makes it.

        Each response token is scored by the logits one position before it; the position of the
        last response token gives the value of the state after it. With prompts_PS a prompt is
        computed once for its responses.
        """
        names = [name for name in (*NAMES, "prompts_PS") if name in batch]
        return self._score(self.params, {name: batch[name] for name in names})

    def score_packed(self, batch: dict[str, Any]) -> PackedScores:
        """Scores of packed rows, whose arrays are those of `packed_teacher.packed`."""
        return self._score_packed(self.params, batch)


@functools.lru_cache(maxsize=32)
def scoring_program(
    model: QwenModel, alpha: float, vocab: int, where: Any
) -> Callable[..., TeacherScores]:
    """(params, arrays NAMES of a batch, perhaps prompts_PS) -> TeacherScores.

    One program of equal teachers.
    """

    def of_rows(params: Any, batch: dict[str, jax.Array]) -> TeacherScores:
        targets_BR = batch["targets_BR"]
        # One more position than responses have tokens: the state after the last of them.
        longer = jnp.pad(targets_BR, ((0, 0), (0, 1)))
        scores = response_scores(
            model, params, *located(batch), longer,
            alphas=(alpha,), vocab=vocab,
        )  # fmt: skip
        value_BR = scores.value_ABR[0]
        end_B = jnp.take_along_axis(value_BR, batch["response_len_B"][:, None], axis=1)[:, 0]
        return TeacherScores(scores.logit_BR[:, :-1], value_BR[:, :-1], end_B)

    def score(params: Any, batch: dict[str, jax.Array]) -> TeacherScores:
        of_batch = functools.partial(of_rows, params)
        return in_parts(of_batch, batch, tokens_of_a_row(batch), model.shards)

    return jax.jit(score, out_shardings=where)


@functools.lru_cache(maxsize=32)
def packed_program(
    model: QwenModel, alpha: float, vocab: int, where: Any
) -> Callable[..., PackedScores]:
    """(params, arrays of `packed_teacher.packed`) -> PackedScores; one program of equal teachers.

    It is for one row on each device, so it does not cut its rows in parts.
    """

    def score(params: Any, batch: dict[str, jax.Array]) -> PackedScores:
        scores = response_scores(
            model, params, *located(batch), batch["targets_BR"], alphas=(alpha,), vocab=vocab
        )
        return PackedScores(scores.logit_BR, scores.value_ABR[0])

    return jax.jit(score, out_shardings=where)
