"""Completions of several turns: program, output, continuation, as one list of token ids.

A turn ends where its program's fence closes, not with EOS, and the output follows inside the same
message. An EOS there would end the message, as in the chat template, and the model would learn to
end answers after programs. EOS ends the whole completion, in any turn.

Nothing is decoded and tokenised again: the next turn continues prompt ids ++ response ids ++ output
ids. That prefix is read (prefilled) again for each turn; metric tools/prefilled_tokens counts it.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from distill_jax.core import rng, sharding
from distill_jax.core.batching import filled, padded
from distill_jax.data import chat
from distill_jax.rollout.completions import FAILED, MODEL, PROMPT, TOOL, Rollout
from distill_jax.rollout.sampler import Ended, Sampler, SamplingSettings, Stop
from distill_jax.tasks import Task

# Stands where the middle of an output was cut out.
CUT = "\n[... cut ...]\n"


class Replies:
    """What the task replies to the turns of completions, as token ids.

    Args:
        task: that runs what a turn asks for.
        tokenizer: of the model that writes.
    """

    def __init__(self, task: Task, tokenizer: Any):
        self.task, self.tokenizer = task, tokenizer

    def text(self, tokens: Sequence[int]) -> str:
        """Decoded text without special tokens."""
        return chat.decode(self.tokenizer, tokens)

    def stop(self, tokens: Sequence[int]) -> int | None:
        """Tokens up to where the turn ends, None where it goes on: a `sampler.Stop`."""

        def ended(count: int) -> bool:
            return self.task.asks(self.text(tokens[:count]))

        counts = range(len(tokens) + 1)
        return bisect.bisect_left(counts, True, key=ended) if ended(len(tokens)) else None

    def ids(self, turns: Sequence[Sequence[int]], most: int) -> list[tuple[list[int], bool] | None]:
        """(token ids, whether the call failed) of the reply to each of N turns, or None.

        Args:
            turns: token ids, without EOS.
            most: tokens of a reply; a longer one keeps its beginning and its end.
        """
        found = self.task.respond([self.text(turn) for turn in turns])
        # Text of a special token in an output stays text.
        how = {"add_special_tokens": False, "split_special_tokens": True}
        marker = self.tokenizer(CUT, **how)["input_ids"]
        replies = [
            None
            if one is None
            else (bounded(self.tokenizer(one.text, **how)["input_ids"], most, marker), one.failed)
            for one in found
        ]
        return _agreed(replies, most)


def bounded(ids: Sequence[int], most: int, marker: Sequence[int]) -> list[int]:
    """At most so many ids: those of the beginning and of the end, with the marker between."""
    if len(ids) <= most:
        return list(ids)
    kept = most - len(marker)
    return [*ids[: kept - kept // 2], *marker, *ids[len(ids) - kept // 2 :]]


def _agreed(
    replies: Sequence[tuple[list[int], bool] | None], most: int
) -> list[tuple[list[int], bool] | None]:
    """Process 0's replies, on every process: a time limit may be met on one alone."""
    if jax.process_count() == 1:
        return list(replies)
    ids_NT = np.full((len(replies), most), -1, np.int32)
    state_N = np.full(len(replies), -1, np.int32)
    for row, one in enumerate(replies):
        if one is not None:
            ids_NT[row, : len(one[0])], state_N[row] = one[0], one[1]
    ids_NT, state_N = map(sharding.of_first_process, (ids_NT, state_N))
    rows = zip(ids_NT, state_N, strict=True)
    return [None if state < 0 else (ids[ids >= 0].tolist(), bool(state)) for ids, state in rows]


def generate(
    sampler: Sampler,
    weights: Any,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    key: jax.Array,
    prompt_ids: Sequence[int],
    samples: int = 1,
    replies: Replies | None = None,
    ended: Ended | None = None,
) -> Rollout:
    """Samples completions of up to settings.rounds turns; see `Sampler.generate`.

    One round is what the sampler draws. With more, a completion draws settings.max_new_tokens in
    all its turns; where nothing is left of them behind an output, or the model has no position for
    it, the output is omitted and the completion is truncated (ended_B False). The last turn is the
    model's. The tokens of a turn are a function of (key, prompt id, sample, number of the turn,
    prefix).

    Args:
        replies: of the task; None: there is one turn.
        ended: of `Sampler.generate`, where there is one turn; not called where there are more.
    """
    how: dict[str, Any] = {"key": key, "prompt_ids": prompt_ids, "samples": samples}
    if replies is None or settings.rounds == 1:
        return sampler.generate(weights, prompts, settings, **how, ended=ended)
    stops = [replies.stop] * len(prompts)
    first = sampler.generate(weights, prompts, settings, **how, stops=stops)
    rows = _Rows(first, settings)
    live = [row for row, end in enumerate(first.ended_B) if not end and rows.left(row)]
    for number in range(1, settings.rounds):
        going = _answered(rows, live, prompts, replies, settings, sampler)
        if not going:
            break
        of_row = [(prompt_ids[row // samples], row % samples) for row in going]
        last = number + 1 == settings.rounds
        stop = None if last else replies.stop
        key_of_round = rng.stream_key(key, "round", number)
        live = _continued(sampler, weights, rows, going, of_row, settings, key_of_round, stop)
    return rows.rollout(sampler.pad_id)


def _answered(
    rows: "_Rows",
    live: Sequence[int],
    prompts: Sequence[Sequence[int]],
    replies: Replies,
    settings: SamplingSettings,
    sampler: Sampler,
) -> dict[int, tuple[list[int], int]]:
    """Puts the replies to the last turns of live rows behind them: row -> (prefix, room)."""
    positions = sampler.model.config.max_position_embeddings
    samples = len(rows.ended) // len(prompts)
    turns = [rows.last_turn(row) for row in live]
    going = {}
    for row, reply in zip(live, replies.ids(turns, settings.output_tokens), strict=True):
        if reply is None:
            continue
        ids, failed = reply
        prefix = [*prompts[row // samples], *rows.response(row), *ids]
        room = min(rows.left(row), positions - len(prefix))
        if room > 0:
            rows.put(row, ids, FAILED if failed else TOOL)
            going[row] = prefix, room
    return going


def _continued(
    sampler: Sampler,
    weights: Any,
    rows: "_Rows",
    going: Mapping[int, tuple[list[int], int]],
    of_row: Sequence[tuple[int, int]],
    settings: SamplingSettings,
    key: jax.Array,
    stop: Stop | None,
) -> list[int]:
    """Draws the next turn of these rows; those that `stop` ended.

    of_row: (prompt id, sample) of each. The batch is filled up to a power of two, prefixes are
    padded to a power of two of prompt_multiple: few programs are compiled.
    """
    size = min(len(rows.ended), padded(len(going), 1))
    chosen = filled(range(len(going)), size)
    prefixes, rooms = zip(*going.values(), strict=True)
    multiple = padded(max(map(len, prefixes)), settings.prompt_multiple)
    out = sampler.generate(
        weights,
        [prefixes[i] for i in chosen],
        dataclasses.replace(settings, prompt_multiple=multiple),
        key=key,
        prompt_ids=[of_row[i][0] for i in chosen],
        firsts=[of_row[i][1] for i in chosen],
        stops=None if stop is None else [stop] * size,
        rooms=[*rooms, *[1] * (size - len(going))],
    )
    stopped = []
    for place, (row, room) in enumerate(zip(going, rooms, strict=True)):
        n = int(out.length_B[place])
        rows.put(row, out.tokens_BR[place, :n], MODEL, out.behaviour_logp_BR[place, :n])
        rows.ended[row] = out.ended_B[place]
        if n < room and not rows.ended[row]:
            stopped.append(row)
    return stopped


class _Rows:
    """Completions that grow turn by turn."""

    def __init__(self, first: Rollout, settings: SamplingSettings):
        B, R, self.most = len(first.length_B), settings.response_tokens, settings.max_new_tokens
        self.tokens = np.zeros((B, R), np.int32)
        self.roles = np.full((B, R), PROMPT, np.int8)
        self.logp = np.zeros((B, R), np.float32)
        self.length, self.starts = np.zeros(B, np.int32), np.zeros(B, np.int32)
        self.ended = first.ended_B.copy()
        for row, n in enumerate(first.length_B):
            self.put(row, first.tokens_BR[row, :n], MODEL, first.behaviour_logp_BR[row, :n])

    def put(self, row: int, ids: Any, role: int, logp: Any = 0.0) -> None:
        """Appends a turn or an output."""
        start, stop = self.length[row], self.length[row] + len(ids)
        self.tokens[row, start:stop], self.logp[row, start:stop] = ids, logp
        self.roles[row, start:stop] = role
        self.length[row], self.starts[row] = stop, start

    def left(self, row: int) -> int:
        """Tokens that the model may still draw."""
        return self.most - int(np.sum(self.roles[row] == MODEL))

    def response(self, row: int) -> list[int]:
        return self.tokens[row, : self.length[row]].tolist()

    def last_turn(self, row: int) -> list[int]:
        return self.tokens[row, self.starts[row] : self.length[row]].tolist()

    def rollout(self, pad_id: int) -> Rollout:
        tokens = np.where(self.roles == PROMPT, pad_id, self.tokens).astype(np.int32)
        return Rollout(tokens, self.length, self.ended, self.logp, self.roles)


def void_turns(replies: Replies, rollout: Rollout) -> np.ndarray:
    """bool [B]: whether a completion's last turn is void.

    A void turn has neither a program nor a stated answer; it can only be the last one, for the task
    replied to those before.
    """
    lasts = [
        tokens[between[-1].stop if between else 0 : n].tolist()
        for tokens, n, between in zip(
            rollout.tokens_BR, rollout.length_B, rollout.outputs, strict=True
        )
    ]
    return np.array([replies.task.is_void(replies.text(last)) for last in lasts], bool)


def trained(
    replies: Replies, prompts: Sequence[Sequence[int]], rollout: Rollout, mask_BR: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """The loss mask without completions that have a void turn, and the metrics of turns.

    Training on completions with a void turn makes long runs collapse (SimpleTIR, arXiv 2509.02479).
    Calls are counted under TRL's names: calls a completion, share of them that failed.
    tools/prefilled_tokens counts the tokens of prefixes that were read again.

    Args:
        replies: of the task.
        prompts: token ids, each of equally many completions.
        rollout: B completions.
        mask_BR: f32, 1 on the tokens that are trained.
    """
    calls = _calls(prompts, rollout)
    void_B = void_turns(replies, rollout)
    metrics = {
        "tools/call_frequency": len(calls) / len(void_B),
        "tools/failure_frequency": sum(failed for _, failed in calls) / max(len(calls), 1),
        "tools/prefilled_tokens": float(sum(prefix for prefix, _ in calls)),
        "void_turn_ratio": float(void_B.mean()),
    }
    return mask_BR * ~void_B[:, None], metrics


def _calls(prompts: Sequence[Sequence[int]], rollout: Rollout) -> list[tuple[int, bool]]:
    """Of each output: tokens of the prefix that is read again after it, whether its call failed."""
    samples = len(rollout.length_B) // len(prompts)
    return [
        (len(prompts[row // samples]) + one.stop, one.failed)
        for row, between in enumerate(rollout.outputs)
        for one in between
    ]


def counts(draws: Iterable[tuple[Sequence[Sequence[int]], Rollout]]) -> dict[str, int]:
    """Tokens that drawing completions takes, without padding, whatever becomes of them.

    draws: prompts, token ids, and their completions, prompt-major; of each draw of a step.

    Returns:
        step_prefilled_tokens, of each prompt once and of prefixes that are read again;
        step_sampled_tokens, those that the model draws.
    """
    prefilled = sampled = 0
    for prompts, rollout in draws:
        prefilled += sum(map(len, prompts)) + sum(n for n, _ in _calls(prompts, rollout))
        sampled += int(rollout.mask_BR.sum())
    return {"step_prefilled_tokens": prefilled, "step_sampled_tokens": sampled}
