"""Memory of drawing completions: decode weights, cache, logits; and of reading their prompts."""

import dataclasses
from typing import Any

from distill_jax.core import sharding
from distill_jax.core.batching import padded, round_up
from distill_jax.forecast import activations, cache
from distill_jax.forecast.parts import Part
from distill_jax.forecast.pieces import Pieces
from distill_jax.rollout import refill


class Drawing:
    """What the sampler holds on one device, lengths at the limits of the run's settings."""

    def __init__(self, pieces: Pieces):
        self.pieces, self.config, self.mesh = pieces, pieces.config, pieces.mesh
        self.shards = pieces.shards

    def parts(
        self,
        what: str,
        completions: int,
        prompts: int,
        *,
        role: str = "student",
        longest: int = 0,
        new: int = 0,
        problems: int = 0,
        turns: bool = False,
    ) -> list[Part]:
        """Decoding completions of prompts that are read once each; see `writing`.

        turns: the student's completions have sampling.rounds turns, as `rollout.rounds` draws them.
        """
        sampling, samples = self.config.sampling, completions // prompts
        T = round_up(longest or self.config.data.max_prompt_tokens, sampling.prompt_multiple)
        program, weights = self.pieces.program(role), self.pieces.decode_weights(role)
        sizes = self._refilled(completions, prompts, T, problems, turns)
        ways, held, caches = [], 0, ""
        if sizes is None or not problems:  # a draw of unknown size may have few batches
            how: dict[str, Any] = {"role": role, "longest": longest, "new": new, "turns": turns}
            ways.append(self.batches(prompts, samples, **how))
        if sizes is not None:  # each row has its prompt, and all slots from the start
            prompts, completions, caches = sizes.prompts, sizes.rows, "caches, "
            rows = completions // self.shards
            waiting = self._waiting(role, prompts // self.shards, T)
            kept = cache.held(program, rows, T + (new or sampling.max_new_tokens))
            ways.append(weights + kept + activations.decoding(program, rows) + waiting)
            held = waiting + kept
        read = activations.scoring(program, self.pieces.rows(prompts, T, 1), shards=self.shards)
        read += weights + held
        return [
            Part(f"{completions} {what}: decode weights, cache, logits", max(ways), False),
            Part(f"{prompts} prompts of {what}: decode weights, {caches}activations", read, False),
            *(self.later_turns(what, completions, longest) if turns else []),
        ]

    def later_turns(self, what: str, B: int, longest: int = 0) -> list[Part]:
        """Reading the prefixes of all rows again before their last turn; nothing with one round."""
        sampling, rows, T = self.config.sampling, -(-B // self.shards), self._prefix(longest)
        if sampling.rounds == 1:
            return []
        placed, student = self.pieces.rows(B, T, 1), self.pieces.program("student")
        read = activations.scoring(student, placed, shards=self.shards)
        # The cache of the prefixes is copied into the turn's, which has more slots.
        copied = cache.held(student, rows, T + sampling.max_new_tokens)
        held = (
            self.pieces.decode_weights("student") + cache.held(student, rows, T) + max(read, copied)
        )
        return [Part(f"later turns of {what}: decode weights, caches, activations", held, False)]

    def batches(
        self, prompts: int, samples: int, *, role: str = "student", longest: int = 0, new: int = 0,
        turns: bool = False,
    ) -> int:  # fmt: skip
        """Decode weights, and a batch's cache with its logits, or both caches as its rows leave."""
        program, sampling = self.pieces.program(role), self.config.sampling
        sampling = dataclasses.replace(sampling, max_new_tokens=new or sampling.max_new_tokens)
        prompt = round_up(longest or self.config.data.max_prompt_tokens, sampling.prompt_multiple)
        if turns and sampling.rounds > 1:  # the last turn is drawn behind all before
            prompts, samples, prompt = prompts * samples, 1, self._prefix(longest)
        of_device = -(-prompts // self.shards)
        batch = cache.Batch(of_device, samples, prompt, self.shards, sampling)
        decoded = cache.drawn(program, batch) + activations.decoding(program, batch.rows)
        return self.pieces.decode_weights(role) + max(decoded, cache.compacting(program, batch))

    def _refilled(
        self, completions: int, prompts: int, T: int, problems: int, turns: bool
    ) -> refill.Sizes | None:
        """The sizes of a draw that `generate.answers` gives refilled rows; None: in batches."""
        sampling = self.config.sampling
        alone = completions == prompts
        pays = not problems or refill.pays(-(-problems // prompts), sampling, alone=alone)
        if not pays or (turns and sampling.rounds > 1) or sharding.processes(self.mesh) > 1:
            return None
        return refill.sizes_of(completions, completions // prompts, T, self.shards)

    def _waiting(self, role: str, prompts: int, T: int) -> int:
        """Cache and hidden states of prompts on one device whose completions wait for a row."""
        program = self.pieces.program(role)
        hidden = prompts * program.geometry.hidden_size * program.itemsize
        return cache.held(program, prompts, T) + hidden

    def _prefix(self, longest: int) -> int:
        """Slots of the longest prefix of a later turn, which has room for a token at least."""
        sampling, geometry = self.config.sampling, self.pieces.geometries["student"]
        most = (longest or self.config.data.max_prompt_tokens) + sampling.response_tokens
        most = min(most, geometry.max_position_embeddings)
        return padded(most - 1, sampling.prompt_multiple)
