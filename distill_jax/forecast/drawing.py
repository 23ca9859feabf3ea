"""Memory of drawing completions: decode weights, cache, logits; and of reading their prompts."""

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
        sampling = self.config.sampling
        T = round_up(longest or self.config.data.max_prompt_tokens, sampling.prompt_multiple)
        waiting, kept = 0, 0
        if sizes := self._refilled(completions, prompts, T, problems, turns):
            prompts, completions = sizes.prompts, sizes.rows
            waiting = self._waiting(role, prompts // self.shards, T)
            slots = T + (new or sampling.max_new_tokens)
            kept = cache.held(self.pieces.program(role), completions // self.shards, slots)
        # Counted as if no prompt were shared.
        held = self.rollout(completions, longest, role=role, new=new, turns=turns) + waiting
        read = activations.scoring(
            self.pieces.program(role), self.pieces.rows(prompts, T, 1), shards=self.shards
        )
        read += self.pieces.decode_weights(role) + waiting + kept
        caches = "caches, " if kept else ""
        return [
            Part(f"{completions} {what}: decode weights, cache, logits", held, False),
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

    def rollout(
        self, B: int, longest: int = 0, *, role: str = "student", new: int = 0, turns: bool = False,
        prompts: int = 0,
    ) -> int:  # fmt: skip
        """Decode weights, the cache of all rows, which share `prompts` if any, and one segment."""
        sampling, rows = self.config.sampling, -(-B // self.shards)
        prompt = round_up(longest or self.config.data.max_prompt_tokens, sampling.prompt_multiple)
        if turns and sampling.rounds > 1:  # the last turn is drawn behind all before
            prompt = self._prefix(longest)
            prompts = 0
        shared = -(-prompts // self.shards) if prompts < B and not self.pieces.cpu else 0
        program = self.pieces.program(role)
        held = cache.drawn(program, rows, new or sampling.max_new_tokens, prompt, shared)
        return self.pieces.decode_weights(role) + held + activations.decoding(program, rows)

    def _refilled(
        self, completions: int, prompts: int, T: int, problems: int, turns: bool
    ) -> refill.Sizes | None:
        """The sizes of a draw that `generate.answers` gives refilled rows; None: in batches."""
        sampling = self.config.sampling
        alone = completions == prompts and not self.pieces.cpu
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
