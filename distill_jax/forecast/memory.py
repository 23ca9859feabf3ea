"""What a run will hold on each device, forecast from settings and geometries: nothing is loaded.

Weights, optimiser and cache are exact: shapes by `jax.eval_shape`, split by the rules of the real
load over a mesh that need not exist. Activations are estimated (`activations.py`). What XLA does
beyond that differs by platform: see docs/benchmarks.md.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from distill_jax.core import sharding
from distill_jax.core.batching import padded, round_up
from distill_jax.core.sharding import AnyMesh
from distill_jax.forecast import activations, cache
from distill_jax.forecast.activations import Program, Rows
from distill_jax.forecast.parts import Forecast, Part
from distill_jax.forecast.weights import decode_bytes, device_bytes, weights_bytes
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.reward_model_io import IMPLICIT
from distill_jax.rewards.length_buckets import Call
from distill_jax.rollout import refill
from distill_jax.run.models import unrolled
from distill_jax.run.settings import ModelSettings, Shared
from distill_jax.training import optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS

# Rows of supervised batches are padded to a multiple of this.
_SFT_MULTIPLE = 16
# Rows that a reward model reads at a time, and their least length: of inference.step_batches.
SCORED, SCORED_LENGTH = 64, 32
# About as many tokens ask for a review, besides the problem and the candidate.
_REVIEW = 128


class Job:
    """The pieces of a stage's memory, one method each.

    Lengths are taken at the limits of the run's settings; the mesh is real or abstract; cpu: see
    `activations.Program`; further: geometries of further teachers by name.
    """

    def __init__(
        self,
        config: Shared,
        teacher: QwenConfig,
        student: QwenConfig,
        mesh: AnyMesh,
        *,
        cpu: bool = False,
        further: Mapping[str, QwenConfig] | None = None,
    ):
        self.further = further or {}
        self.config, self.mesh, self.cpu = config, mesh, cpu
        self.geometries = {"teacher": teacher, "student": student}
        self.shards = int(mesh.shape["data"] * mesh.shape["fsdp"])

    def forecast(self, stage: str, parts: Sequence[Part]) -> Forecast:
        """The forecast of a stage with these parts."""
        return Forecast(stage, self.mesh.size, tuple(parts))

    def settings(self, role: str) -> ModelSettings:
        return self.config.teacher if role == "teacher" else self.config.student

    def program(self, role: str, *, dropout: bool = False) -> Program:
        settings, adapted = self.settings(role), role == "student"
        return Program(
            self.geometries[role],
            settings.compute_dtype,
            fsdp=self.mesh.shape["fsdp"],
            tensor=self.mesh.shape["tensor"],
            unroll=unrolled(settings, self.mesh),
            remat=settings.remat,
            rank=self.config.lora.rank if adapted else 0,
            dropout=dropout and self.config.lora.dropout > 0,
            cpu=self.cpu,
        )

    def rows(self, count: int, T: int, R: int) -> Rows:
        return Rows(-(-count // self.shards), T, R)

    def supervised(self, settings: Any) -> list[Part]:
        """A stage that trains the student's adapter on given rows, by settings as of sft."""
        sampling = self.config.sampling
        T = round_up(self.config.data.max_prompt_tokens + sampling.max_new_tokens, _SFT_MULTIPLE)
        R = round_up(sampling.max_new_tokens, _SFT_MULTIPLE)
        rows = self.rows(settings.batch_size // settings.accumulate, T, R)
        held = activations.update(self.program("student", dropout=True), rows, shards=self.shards)
        return [
            self._base("student"),
            *self._trained(settings.optimizer, values=False),
            Part("update: activations", held, False),
        ]

    def step_rewards(self, prm: Any) -> list[Part]:
        """A stage that trains the student with a head on steps, by settings as of prm.

        The language-model head is not applied; the other one's bytes are too few to count. With
        head=implicit it is, and the start's adapter scores all rows before the first step.
        """
        if prm.head == IMPLICIT:
            return self._log_ratios(prm, prm.batch_size, prm.max_length)
        full, T = prm.trainable == "full", round_up(prm.max_length, _SFT_MULTIPLE)
        rows = self.rows(prm.batch_size // prm.accumulate, T, 1)
        program = self.program("student", dropout=not full)
        if full:
            program = dataclasses.replace(program, rank=0)
        held = activations.update(program, rows, shards=self.shards)
        base = self._base("student")
        read = self._read(program, min(prm.eval_batch, prm.eval_problems), prm.max_length)
        return [
            base,
            *self._trained(prm.optimizer, values=False, full=full),
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
        T = round_up(longest, _SFT_MULTIPLE)
        rows = self.rows(count // settings.accumulate, T, T)
        student, shards = self.program("student"), self.shards
        parts = [
            self._base("student"),
            *self._trained(settings.optimizer, values=False),
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
        part = B // rl.minibatches // rl.accumulate
        full, base, student = rl.trainable == "full", self._base("student"), self.program("student")
        if full:
            student = dataclasses.replace(student, rank=0)
        parts = [self._base("teacher"), base] if rl.loads_teacher else [base]
        compared = 0
        if rl.rewards.intrinsic_weight and not rl.teacher.is_remote:
            role = "teacher" if rl.teacher.is_model else "student"
            length = round_up(rl.teacher.longest_prompt(self.config) + R, rl.batch_multiple)
            if rl.rewards.exact:  # the loss runs the teacher on a microbatch
                placed = self.rows(part, length, R)
                compared = activations.scoring(self.program(role), placed, shards=self.shards)
            else:
                calls = [Call(B, length, R)]
                if rl.fixed_calls:
                    longest = rl.teacher.longest_prompt(self.config) + R
                    calls = rl.buckets.calls(longest, R, rl.batch_multiple, self.shards)
                held = self._largest(self.program(role), calls)
                parts.append(Part("teacher scoring: activations", held, False))
                parts += self._further_teachers(calls)
        if rl.process.reward_model:
            parts += self._scorer(min(B, SCORED))
        start = rl.rewards.intrinsic_weight and rl.teacher.source == "start"
        kept = "reference" if rl.reference_weight else "start as teacher" if start else ""
        parts += self._trained(rl.optimizer, values=values, kept=kept, full=full)
        parts += [Part("replay buffer", rl.replay_bytes(T, R), True)] * bool(rl.replay.groups)
        update = activations.update(student, self.rows(part, T, R), shards=self.shards)
        update += compared + base.bytes * full  # gradients of all weights
        drawn = B * rl.oversample
        rollout = self._rollout(drawn, turns=True, prompts=rl.prompts_per_step)
        before = self._scoring(student, B, T, R + int(values))
        return [
            *parts,
            Part("rollout: decode weights, cache, logits", rollout, False),
            *self._later_turns("rollout", drawn),
            Part("student scoring: activations", before, False),
            Part("update: activations", update, False),
        ]

    def _further_teachers(self, calls: Sequence[Call]) -> list[Part]:
        """Weights of each, and its scoring in such calls."""
        parts = []
        for name, geometry in self.further.items():
            size = weights_bytes(geometry, self.config.teacher, self.mesh)
            program = dataclasses.replace(self.program("teacher"), geometry=geometry)
            held = self._largest(program, calls)
            parts.append(Part(f"teacher {name} weights", size, True))
            parts.append(Part(f"teacher {name} scoring: activations", held, False))
        return parts

    def _largest(self, program: Program, calls: Sequence[Call]) -> int:
        """Activations of the call that has most; a value for each token and the end."""
        return max(self._scoring(program, rows, T, R + 1) for rows, T, R in calls)

    def _scoring(self, program: Program, rows: int, T: int, R: int) -> int:
        """Activations of scoring so many rows in a call."""
        return activations.scoring_in_parts(program, self.rows(rows, T, R), shards=self.shards)

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
        parts = [self._base("student"), *(self._scorer(scores) if scores else [])]
        what, longest = ("beams", self.solution) if beams else ("candidates", 0)
        total = 0 if beams else problems
        parts += self._drawn(what, *candidates, longest=longest, problems=total, turns=True)
        if reviews:
            longest = self.solution + _REVIEW
            parts += self._drawn("reviews", reviews, reviews, longest=longest, turns=True)
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
        return [self._base(role), *self._drawn(what, completions, prompts, **how)]

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
            Part("reward model weights", self._base("student").bytes, True),
            Part("reward model scoring: activations", held, False),
        ]

    def _read(self, program: Program, rows: int, longest: int) -> int:
        """Activations of a reward model; its rows' lengths are doubled, see `step_batches`."""
        placed = self.rows(rows, padded(longest, SCORED_LENGTH), 1)
        return activations.scoring(program, placed, shards=self.shards)

    def _base(self, role: str) -> Part:
        settings = self.settings(role)
        size = weights_bytes(self.geometries[role], settings, self.mesh)
        held = "int8" if settings.int8 else settings.param_dtype
        return Part(f"{role} weights ({held})", size, True)

    def _trained(self, how: Any, *, values: bool, kept: str = "", full: bool = False) -> list[Part]:
        """Adapter, value head, the start where it is `kept` as something; optimiser state."""
        model = QwenModel(self.geometries["student"], self.config.lora)
        name = "base" if full else "lora"
        trained, head = {name: model.shapes()[name]}, dict[str, Any]()
        if values:
            head = jax.eval_shape(lambda: states.with_value_head({}, model.config.hidden_size))
        tx, trainable = optimizer.make(how, 10**6), trained | head
        opt = jax.eval_shape(tx.init, trainable)
        where = states.opt_shardings(opt, trainable, tx, self.mesh)
        # With `full` the weights themselves are counted already.
        labels = [] if full else ["adapter"]
        held = [head] if full else [trainable]
        if kept:
            labels, held = [*labels, kept if full else f"its {kept}"], [*held, trained]
        labels += ["value head"] * values
        copies = sum(device_bytes(x, states.param_shardings(x, self.mesh)) for x in held)
        parts = [Part(", ".join(labels), copies, True)] if labels else []
        return [*parts, Part("optimiser state", device_bytes(opt, where), True)]

    def _drawn(
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
            kept = cache.held(self.program(role), completions // self.shards, slots)
        # Counted as if no prompt were shared.
        held = self._rollout(completions, longest, role=role, new=new, turns=turns) + waiting
        read = activations.scoring(self.program(role), self.rows(prompts, T, 1), shards=self.shards)
        read += self._decode_weights(role) + waiting + kept
        caches = "caches, " if kept else ""
        return [
            Part(f"{completions} {what}: decode weights, cache, logits", held, False),
            Part(f"{prompts} prompts of {what}: decode weights, {caches}activations", read, False),
            *(self._later_turns(what, completions, longest) if turns else []),
        ]

    def _refilled(
        self, completions: int, prompts: int, T: int, problems: int, turns: bool
    ) -> refill.Sizes | None:
        """The sizes of a draw that `generate.answers` gives refilled rows; None: in batches."""
        sampling = self.config.sampling
        alone = completions == prompts and not self.cpu
        pays = not problems or refill.pays(-(-problems // prompts), sampling, alone=alone)
        if not pays or (turns and sampling.rounds > 1) or sharding.processes(self.mesh) > 1:
            return None
        return refill.sizes_of(completions, completions // prompts, T, self.shards)

    def _waiting(self, role: str, prompts: int, T: int) -> int:
        """Cache and hidden states of prompts on one device whose completions wait for a row."""
        program = self.program(role)
        hidden = prompts * program.geometry.hidden_size * program.itemsize
        return cache.held(program, prompts, T) + hidden

    def _rollout(
        self, B: int, longest: int = 0, *, role: str = "student", new: int = 0, turns: bool = False,
        prompts: int = 0,
    ) -> int:  # fmt: skip
        """Decode weights, the cache of all rows, which share `prompts` if any, and one segment."""
        sampling, rows = self.config.sampling, -(-B // self.shards)
        prompt = round_up(longest or self.config.data.max_prompt_tokens, sampling.prompt_multiple)
        if turns and sampling.rounds > 1:  # the last turn is drawn behind all before
            prompt = self._prefix(longest)
            prompts = 0
        shared = -(-prompts // self.shards) if prompts < B and not self.cpu else 0
        program = self.program(role)
        held = cache.drawn(program, rows, new or sampling.max_new_tokens, prompt, shared)
        return self._decode_weights(role) + held + activations.decoding(program, rows)

    def _later_turns(self, what: str, B: int, longest: int = 0) -> list[Part]:
        """Reading the prefixes of all rows again before their last turn; nothing with one round."""
        sampling, rows, T = self.config.sampling, -(-B // self.shards), self._prefix(longest)
        if sampling.rounds == 1:
            return []
        placed, student = self.rows(B, T, 1), self.program("student")
        read = activations.scoring(student, placed, shards=self.shards)
        # The cache of the prefixes is copied into the turn's, which has more slots.
        copied = cache.held(student, rows, T + sampling.max_new_tokens)
        held = self._decode_weights("student") + cache.held(student, rows, T) + max(read, copied)
        return [Part(f"later turns of {what}: decode weights, caches, activations", held, False)]

    def _prefix(self, longest: int) -> int:
        """Slots of the longest prefix of a later turn, which has room for a token at least."""
        sampling, geometry = self.config.sampling, self.geometries["student"]
        most = (longest or self.config.data.max_prompt_tokens) + sampling.response_tokens
        most = min(most, geometry.max_position_embeddings)
        return padded(most - 1, sampling.prompt_multiple)

    def _decode_weights(self, role: str) -> int:
        return decode_bytes(self.geometries[role], self.settings(role), self.mesh)
