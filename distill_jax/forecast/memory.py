"""What a run will hold on each device, forecast from settings and geometries: nothing is loaded.

A stage's memory is put together here from `pieces.py` and `drawing.py`. What XLA does beyond that
differs by platform: see docs/benchmarks.md.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from distill_jax.core.batching import padded, round_up
from distill_jax.data import packing
from distill_jax.forecast import activations
from distill_jax.forecast.activations import Program, Rows
from distill_jax.forecast.drawing import Drawing
from distill_jax.forecast.parts import Forecast, Part
from distill_jax.forecast.pieces import Pieces
from distill_jax.forecast.weights import weights_bytes
from distill_jax.models.reward_model_io import IMPLICIT
from distill_jax.training.algorithms import ALGORITHMS

# Rows of supervised batches are padded to a multiple of this.
_SUPERVISED_MULTIPLE = 16
# Rows that a reward model reads at a time, and their least length: of inference.step_batches.
SCORED, SCORED_LENGTH = 64, 32
# About as many tokens ask for a review, besides the problem and the candidate.
_REVIEW = 128


class Job(Pieces):
    """The memory of a stage, one method a kind; lengths at the limits of the run's settings."""

    @functools.cached_property
    def drawing(self) -> Drawing:
        """Of completions."""
        return Drawing(self)

    def forecast(self, stage: str, parts: Sequence[Part]) -> Forecast:
        """The forecast of a stage with these parts."""
        return Forecast(stage, self.mesh.size, tuple(parts))

    def supervised(self, settings: Any) -> list[Part]:
        """A stage that trains the student's adapter on given rows, by settings as of sft."""
        if getattr(settings, "packing", 0):
            rows = self.packed_rows(settings)
        else:
            count = settings.batch_size // settings.accumulate
            rows = self.example_rows(count, self.config.data.max_prompt_tokens)
        held = activations.update(self.program("student", dropout=True), rows, shards=self.shards)
        return [
            self.base_part("student"),
            *self.trained_parts(settings.optimizer, values=False),
            Part("update: activations", held, False),
        ]

    def example_rows(self, count: int, prompt: int) -> Rows:
        """One device's part of so many rows, an example in each, behind prompts of such length."""
        R = self.config.sampling.max_new_tokens
        T = round_up(prompt + R, _SUPERVISED_MULTIPLE)
        return self.rows(count, T, round_up(R, _SUPERVISED_MULTIPLE))

    def packed_rows(self, settings: Any) -> Rows:
        """One device's part of a microbatch of packed rows, which have responses anywhere."""
        T, parts = settings.packing, settings.accumulate * self.shards
        count = packing.most_rows(settings.batch_size, self.solution, budget=T, parts=parts)
        return self.rows(count // settings.accumulate, T, T)

    def step_rewards(self, prm: Any) -> list[Part]:
        """A stage that trains the student with a head on steps, by settings as of prm.

        The language-model head is not applied; the other one's bytes are too few to count. With
        head=implicit it is, and the start's adapter scores all rows before the first step.
        """
        if prm.head == IMPLICIT:
            return self._log_ratios(prm, prm.batch_size, prm.max_length)
        full, T = prm.trainable == "full", round_up(prm.max_length, _SUPERVISED_MULTIPLE)
        rows = self.rows(prm.batch_size // prm.accumulate, T, 1)
        program = self.program("student", dropout=not full)
        if full:
            program = dataclasses.replace(program, rank=0)
        held = activations.update(program, rows, shards=self.shards)
        base = self.base_part("student")
        read = self._read(program, min(prm.eval_batch, prm.eval_problems), prm.max_length)
        return [
            base,
            *self.trained_parts(prm.optimizer, values=False, full=full),
            Part("update: activations, gradients", held + base.bytes * full, False),
            *([Part("held-out rows: activations", read, False)] if prm.validation_share else []),
        ]

    def preference(self, settings: Any) -> list[Part]:
        """A stage that trains the student's adapter on pairs, by settings as of dpo."""
        rows, longest = 2 * settings.batch_size, settings.longest(self.config)
        return self._log_ratios(settings, rows, longest, reference=settings.uses_reference)

    def _log_ratios(
        self, settings: Any, count: int, longest: int, *, reference: bool = True
    ) -> list[Part]:
        """Training of the adapter on log-probabilities of so many rows, over a reference."""
        T = round_up(longest, _SUPERVISED_MULTIPLE)
        rows = self.rows(count // settings.accumulate, T, T)
        student, shards = self.program("student"), self.shards
        parts = [
            self.base_part("student"),
            *self.trained_parts(settings.optimizer, values=False),
            Part("update: activations", activations.update(student, rows, shards=shards), False),
        ]
        if reference:
            scored = activations.scoring(student, rows, shards=shards)
            parts.append(Part("reference scoring: activations", scored, False))
        return parts

    def reinforcement(self, rl: Any) -> list[Part]:
        """A stage that samples, scores and updates, by settings as of rl."""
        sampling = self.config.sampling
        B, R = rl.prompts_per_step * rl.samples_per_prompt, sampling.response_tokens
        T = round_up(self.config.data.max_prompt_tokens + R, rl.batch_multiple)
        values = ALGORITHMS[rl.algorithm].uses_values
        placed, scored = self._updated_and_scored(rl, self.config.data.max_prompt_tokens, R)
        full, base, student = (
            rl.trainable == "full",
            self.base_part("student"),
            self.program("student"),
        )
        if full:
            student = dataclasses.replace(student, rank=0)
        parts = [self.base_part("teacher"), base] if rl.loads_teacher else [base]
        compared = 0
        if rl.rewards.intrinsic_weight and not rl.teacher.is_remote:
            role = "teacher" if rl.teacher.is_model else "student"
            length = round_up(rl.teacher.longest_prompt(self.config) + R, rl.batch_multiple)
            if rl.rewards.exact:  # the loss runs the teacher on a microbatch
                read = self._updated_and_scored(rl, rl.teacher.longest_prompt(self.config), R)[0]
                compared = activations.scoring(self.program(role), read, shards=self.shards)
            else:
                calls = self._teacher_calls(rl, length, R)
                held = self._largest(self.program(role), calls)
                parts.append(Part("teacher scoring: activations", held, False))
                parts += self._further_teachers(calls)
        if rl.process.reward_model:
            parts += self._scorer(min(B, SCORED))
        start = rl.rewards.intrinsic_weight and rl.teacher.source == "start"
        kept = "reference" if rl.reference_weight else "start as teacher" if start else ""
        parts += self.trained_parts(rl.optimizer, values=values, kept=kept, full=full)
        parts += [Part("replay buffer", rl.replay_bytes(T, R), True)] * bool(rl.replay.groups)
        update = activations.update(student, placed, shards=self.shards)
        update += compared + base.bytes * full  # gradients of all weights
        samples = rl.samples_per_prompt * rl.oversample
        rollout = self.drawing.batches(rl.prompts_per_step, samples, turns=True)
        before = self.scoring(student, scored)
        return [
            *parts,
            Part("rollout: decode weights, cache, logits", rollout, False),
            *self.drawing.later_turns("rollout", B * rl.oversample),
            Part("student scoring: activations", before, False),
            Part("update: activations", update, False),
        ]

    def _updated_and_scored(self, rl: Any, longest: int, R: int) -> tuple[Rows, Rows]:
        """Rows of a microbatch of an update, and of the scores before it; longest: prompt."""
        P, G = rl.prompts_per_step, rl.samples_per_prompt
        parts, more = rl.minibatches * rl.accumulate, int(rl.uses_values)
        if not rl.shares_prompts(self.shards):
            T = round_up(longest + R, rl.batch_multiple)
            return self.rows(P * G // parts, T, R), self.rows(P * G, T, R + more)
        S = round_up(longest, rl.batch_multiple)
        return self.groups(P // parts, G, S, R), self.groups(P, G, S, R, more)

    def _teacher_calls(self, rl: Any, T: int, R: int) -> list[Rows]:
        """Rows of the calls that a teacher may make; R with the end of each response."""
        longest, G = rl.teacher.longest_prompt(self.config), rl.samples_per_prompt
        if rl.fixed_calls:
            calls = rl.buckets.calls(longest + R, R, rl.batch_multiple, self.shards)
            return [self.rows(rows, T, R + 1) for rows, T, R in calls]
        if rl.teacher_shares_prompts(self.shards):
            S = round_up(longest, rl.batch_multiple)
            return [self.groups(rl.prompts_per_step, G, S, R, ends=1)]
        return [self.rows(rl.prompts_per_step * G, T, R + 1)]

    def _further_teachers(self, calls: Sequence[Rows]) -> list[Part]:
        """Weights of each, and its scoring in such calls."""
        parts = []
        for name, geometry in self.further.items():
            size = weights_bytes(geometry, self.config.teacher, self.mesh)
            program = dataclasses.replace(self.program("teacher"), geometry=geometry)
            held = self._largest(program, calls)
            parts.append(Part(f"teacher {name} weights", size, True))
            parts.append(Part(f"teacher {name} scoring: activations", held, False))
        return parts

    def _largest(self, program: Program, calls: Sequence[Rows]) -> int:
        """Activations of the call that has most."""
        return max(self.scoring(program, rows) for rows in calls)

    def solving(
        self,
        candidates: tuple[int, int],
        reviews: int,
        scores: int,
        *,
        problems: int,
        beams: bool = False,
    ) -> list[Part]:
        """A stage that decodes candidates, then reviews of them, and scores rows of both.

        A review's prompt holds a prompt and a completion, as the one of a beam that is continued.
        The reward model is taken to be as large as the student.

        Args:
            candidates: (completions at a time, their prompts).
            reviews: completions at a time, each of its own prompt; 0: none.
            scores: rows that the reward model reads at a time; 0: there is none.
            problems: most that are solved, see `writing`.
            beams: the candidates are those of a search, which continues any number of them.
        """
        parts = [self.base_part("student"), *(self._scorer(scores) if scores else [])]
        what, longest = ("beams", self.solution) if beams else ("candidates", 0)
        total = 0 if beams else problems
        parts += self.drawing.parts(what, *candidates, longest=longest, problems=total, turns=True)
        if reviews:
            longest = self.solution + _REVIEW
            parts += self.drawing.parts("reviews", reviews, reviews, longest=longest, turns=True)
        return parts

    def writing(
        self,
        role: str,
        what: str,
        completions: int,
        prompts: int,
        *,
        longest: int = 0,
        new: int = 0,
        problems: int = 0,
    ) -> list[Part]:
        """A stage in which one model writes so many completions of so many prompts at a time.

        longest: prompt; 0 is data.max_prompt_tokens. new: longest completion; 0 is
        sampling.max_new_tokens. problems: prompts of the whole draw, whose rows are refilled where
        they are many; 0: not known, so counted as many.
        """
        # A prompt is never longer than what the model's positions leave.
        room = self.geometries[role].max_position_embeddings - (
            new or self.config.sampling.max_new_tokens
        )
        longest = min(longest or self.config.data.max_prompt_tokens, max(room, 1))
        how: dict[str, Any] = {"role": role, "longest": longest, "new": new, "problems": problems}
        return [self.base_part(role), *self.drawing.parts(what, completions, prompts, **how)]

    def scoring_steps(self, rows: int) -> list[Part]:
        """A stage in which a reward model reads so many solutions at a time."""
        return self._scorer(rows)

    @property
    def solution(self) -> int:
        """Most tokens of a prompt with a completion."""
        return self.config.data.max_prompt_tokens + self.config.sampling.max_new_tokens

    def _scorer(self, rows: int) -> list[Part]:
        held = self._read(self.program("student"), rows, self.solution)
        return [
            Part("reward model weights", self.base_part("student").bytes, True),
            Part("reward model scoring: activations", held, False),
        ]

    def _read(self, program: Program, rows: int, longest: int) -> int:
        """Activations of a reward model; its rows' lengths are doubled, see `step_batches`."""
        placed = self.rows(rows, padded(longest, SCORED_LENGTH), 1)
        return activations.scoring(program, placed, shards=self.shards)
