"""Where completions begin and end, on the host: padded prompts, rooms, stops, EOS."""

from collections.abc import Callable, Sequence

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.rollout.completions import Rollout

# Tokens of a completion so far, EOS included -> how many of them it keeps and ends with; None: it
# goes on.
Stop = Callable[[Sequence[int]], int | None]
# Tokens, EOS included, of completions that ended with EOS since the last call.
Ended = Callable[[Sequence[Sequence[int]]], None]


def packed(
    prompts: Sequence[Sequence[int]], *, width: int, rows: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as tokens_PT and length_P, int32, right padded to multiples of `width` and `rows`.

    Raises:
        DataError: an empty prompt, or no prompt at all.
    """
    if not len(prompts) or any(len(p) == 0 for p in prompts):
        raise DataError("an empty prompt or no prompt", wanted="at least one token in each")
    shape = round_up(len(prompts), rows), round_up(max(len(p) for p in prompts), width)
    tokens_PT = np.full(shape, pad_id, np.int32)
    length_P = np.ones(len(tokens_PT), np.int32)
    for i, prompt in enumerate(prompts):
        tokens_PT[i, : len(prompt)] = prompt
        length_P[i] = len(prompt)
    return tokens_PT, length_P


def rooms_of(
    prompts: Sequence[Sequence[int]],
    ids: Sequence[int],
    rooms: Sequence[int] | None,
    *,
    longest: int,
    positions: int,
) -> np.ndarray:
    """Most tokens of the completions of each prompt, int32 [P]; `longest` where none are given.

    Args:
        positions: of the model, which prompt and completion share. Padding takes none.

    Raises:
        DataError: not one id and room a prompt, or a room that is not 1 to `longest`.
        ConfigError: prompt and completion exceed the positions.
    """
    if len(ids) != len(prompts):
        raise DataError(f"{len(ids)} ids of {len(prompts)} prompts", wanted="one each")
    rooms = [longest] * len(prompts) if rooms is None else rooms
    if len(rooms) != len(prompts) or not all(0 < room <= longest for room in rooms):
        got = f"rooms {list(rooms)} of {len(prompts)} prompts"
        raise DataError(got, wanted=f"one each, 1 to {longest}")
    taken = max((len(p) + room for p, room in zip(prompts, rooms, strict=True)), default=0)
    if taken > positions:
        raise ConfigError(
            f"prompt and completion take {taken} positions, the model has {positions}",
            fix="lower sampling.max_new_tokens or data.max_prompt_tokens",
        )
    return np.asarray(rooms, np.int32)


def stopped(stop: Stop, drawn_R: np.ndarray, room: int, eos_id: int) -> int:
    """The room of a row after `stop` has read what was drawn."""
    tokens = drawn_R[:room].tolist()
    if eos_id in tokens:
        tokens = tokens[: tokens.index(eos_id) + 1]
    kept = stop(tokens)
    return room if kept is None else kept


def finished(
    tokens_BR: np.ndarray, logp_BR: np.ndarray, room_B: np.ndarray, *, eos_id: int, pad_id: int
) -> Rollout:
    """The completions in what was drawn, whose ends are blanked in place."""
    is_eos = tokens_BR == eos_id
    end = np.where(is_eos.any(axis=1), is_eos.argmax(axis=1) + 1, tokens_BR.shape[1] + 1)
    ended = end <= room_B
    length = np.minimum(end, room_B).astype(np.int32)
    after = np.arange(tokens_BR.shape[1])[None, :] >= length[:, None]
    tokens_BR[after] = pad_id
    logp_BR[after] = 0.0
    return Rollout(tokens_BR, length, ended, logp_BR)
