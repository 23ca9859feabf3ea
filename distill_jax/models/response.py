"""Scores of the response tokens of a batch: hidden states, then the head in chunks.

The head is not applied to prompt positions, nor beyond the batch's longest response. A forward
pass over a whole rollout takes some of its rows at a time: see `in_parts`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core import row_groups
from distill_jax.kernels.logprob import gather_packed, gather_response
from distill_jax.models.attention import PromptSegments
from distill_jax.models.head.chunks import Cut, chunked, cut_of
from distill_jax.models.head.scores import head_scores
from distill_jax.models.prompt_groups import Groups, rows_of
from distill_jax.models.qwen import QwenModel

# Tokens of a part on one device: as many as fill a matrix unit and hide the reading, or under fsdp
# the gathering, of the weights.
PART_TOKENS = 2**14


class Packed(NamedTuple):
    """Where the examples of packed rows lie.

    Attributes:
        segment_BT: int32, as `QwenModel.hidden` takes it.
        at_BR: int32, as `gather_packed` takes it: a response token's state is at the place before.
        prompts: of responses that share prompts. The first token of each of them is then at the
            place after the prompt.
    """

    segment_BT: jax.Array
    at_BR: jax.Array
    prompts: PromptSegments | None = None


Place = jax.Array | Packed | Groups


def located(batch: Mapping[str, Any]) -> tuple[jax.Array, Place]:
    """The rows of tokens of a batch, and the places of its responses in them.

    All int32: of packed rows tokens_BT with segment_BT and at_BR, and where responses share prompts
    prompt_segment_BT and position_BT; of groups of B / P consecutive responses to a prompt
    prompts_PS with targets_BR and prompt_len_B; else tokens_BT with prompt_len_B.
    """
    if "segment_BT" in batch:
        prompts = None
        if "prompt_segment_BT" in batch:
            prompts = PromptSegments(batch["prompt_segment_BT"], batch["position_BT"])
        return batch["tokens_BT"], Packed(batch["segment_BT"], batch["at_BR"], prompts)
    if batch.get("prompts_PS") is None:
        return batch["tokens_BT"], batch["prompt_len_B"]
    (P, S), length_B = batch["prompts_PS"].shape, batch["prompt_len_B"]
    groups = Groups(length_B.reshape(P, -1)[:, 0], S, length_B.shape[0] // P)
    return rows_of(batch["prompts_PS"], batch["targets_BR"]), groups


def tokens_of_a_row(batch: Mapping[str, Any]) -> int:
    """Columns of the rows that `located` gives."""
    if batch.get("prompts_PS") is None:
        return int(batch["tokens_BT"].shape[1])
    (P, S), (B, R) = batch["prompts_PS"].shape, batch["targets_BR"].shape
    return int(S + B // P * R)


def response_states(
    model: QwenModel,
    params: Any,
    tokens_BT: jax.Array,
    place: Place,
    size: int,
    *,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """States that the response tokens are drawn from: [B, R, D], R = size.

    Past a row they are 0; past a response, and in Groups, arbitrary and finite.

    place: prompt_len_B int32, at least 1, of rows without a gap between prompt and response; or
    Packed; or Groups, whose rows are P, with B = P·G responses.
    """
    if isinstance(place, Groups):
        hidden_PWD = model.hidden(params, tokens_BT, groups=place, dropout_key=dropout_key)
        return place.states(hidden_PWD, size)
    if isinstance(place, Packed):
        hidden_BTD = model.hidden(
            params,
            tokens_BT,
            segment_BT=place.segment_BT,
            prompts=place.prompts,
            dropout_key=dropout_key,
        )
        if place.prompts is not None:  # places do not ascend: several responses begin at one
            at_BR1 = place.at_BR[:, :, None] - 1
            return jnp.take_along_axis(hidden_BTD, at_BR1, axis=1, mode="fill", fill_value=0)
        return gather_packed(hidden_BTD, place.at_BR)
    hidden_BTD = model.hidden(params, tokens_BT, dropout_key=dropout_key)
    return gather_response(hidden_BTD, place, size)


class ResponseScores(NamedTuple):
    """logit_BR, logp_BR f32; value_ABR f32, the soft value V for each α; entropy_BR f32 or None;
    hidden_BRD, the hidden states that predict the tokens; hit_BR, 1 where the token is the most
    likely one, or None."""

    logit_BR: jax.Array
    logp_BR: jax.Array
    value_ABR: jax.Array
    entropy_BR: jax.Array | None
    hidden_BRD: jax.Array
    hit_BR: jax.Array | None


def response_scores(
    model: QwenModel,
    params: Any,
    tokens_BT: jax.Array,
    place: Place,
    targets_BR: jax.Array,
    *,
    temperature: float = 1.0,
    alphas: tuple[float, ...] = (),
    vocab: int | None = None,
    entropy: bool = False,
    hits: bool = False,
    dropout_key: jax.Array | None = None,
) -> ResponseScores:
    """Scores each response token by the logits of the position before it.

    Args:
        model, params: student or teacher.
        tokens_BT: int32, right padded, prompt and response without a gap; of Groups [P, S + G·R].
        place: prompt_len_B int32, at least 1, Packed or Groups: see `response_states`.
        targets_BR: int32, the response's tokens; scores beyond its length are meaningless.
        temperature: divides the logits of logp and entropy.
        alphas: soft temperatures of value_ABR.
        vocab: tokens that exist.
        entropy, hits: whether to return them.
        dropout_key: for LoRA dropout; None is deterministic.
    """
    B, R = targets_BR.shape
    # Positions past the sequence belong to padding and give states of 0.
    hidden_BRD = response_states(model, params, tokens_BT, place, R, dropout_key=dropout_key)
    scores = head_scores(
        hidden_BRD.reshape(B * R, -1),
        model.whole_head_VD(params),
        targets_BR.reshape(-1),
        temperature=temperature,
        alphas=alphas,
        valid_vocab=vocab,
        entropy=entropy,
        hits=hits,
        shards=model.shards,
    )
    # As `kernels.intrinsic.soft_value`, from logsumexp(Q/α).
    values = [alpha * lse_N for lse_N, alpha in zip(scores.lse_AN, alphas, strict=True)]
    value_ABR = jnp.stack(values).reshape(-1, B, R) if values else jnp.zeros((0, B, R))
    return ResponseScores(
        scores.logit_N.reshape(B, R),
        scores.logp_N.reshape(B, R),
        value_ABR,
        None if scores.entropy_N is None else scores.entropy_N.reshape(B, R),
        hidden_BRD,
        None if scores.hit_N is None else scores.hit_N.reshape(B, R),
    )


def parts_of(rows: int, time: int, shards: int = 1) -> Cut:
    """How `in_parts` cuts so many rows of so many tokens, split over `shards` devices."""
    return cut_of(rows, 1, max(1, PART_TOKENS // time), shards)


def in_parts(score: Callable[[Any], Any], batch: Any, time: int, shards: int = 1) -> Any:
    """score(batch), computed for at most PART_TOKENS tokens of each device at a time.

    Activations are then those of a part, however large a rollout is. Where all rows are one part,
    the program is that of score(batch).

    Args:
        score: of arrays like those of `batch` with any number of rows; its results have as many
            rows as arrays of `batch` or a multiple, and none depends on another row or group.
        batch: arrays [B, ...]; or some [P, ...] and some [P·G, ...], of which whole groups are
            taken.
        time: tokens of a row, or of a group.
        shards: devices that the rows are split over; each has some in every part.
    """
    count = row_groups.group_count(batch)
    cut = parts_of(count, time, shards)

    def of_part(nothing: None, part: Any) -> tuple[None, Any]:
        found = score(row_groups.flat(part))
        return nothing, row_groups.nested(found, row_groups.group_count(part))

    return row_groups.flat(chunked(of_part, cut, row_groups.nested(batch, count))[1])
