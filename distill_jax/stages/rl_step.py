"""One RL step as data: prompts, completions, verdicts and teacher scores, advantages, updates."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from distill_jax.core import rng, sharding
from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.data.padding import PaddedLengths
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.models.qwen import QwenModel
from distill_jax.rewards import bonuses, process
from distill_jax.rewards.terms import Completions, HostTerms
from distill_jax.rollout import groups, oversample, rounds
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.completions import Rollout
from distill_jax.rollout.groups import Collected, Drawn
from distill_jax.run.run import Run, Stage
from distill_jax.stages import rl_metrics, rl_programs
from distill_jax.stages.exact_teacher import ExactTeacher
from distill_jax.stages.first_rollout import Guard
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.teacher import Teacher
from distill_jax.tasks import Judged
from distill_jax.training import exact_credit, replay
from distill_jax.training import state as states
from distill_jax.training.batch import PolicyBatch
from distill_jax.training.exact_credit import ExactBatch
from distill_jax.training.losses import PolicyScores
from distill_jax.training.progress import PartTimes
from distill_jax.training.state import TrainState


class RLStep:
    """The loop's step of an rl stage: a function of (state, step), and compiled programs.

    Args:
        run: problems, task, sampling settings, mesh.
        stage: settings, randomness.
        model: the student.
        frozen: its weights that are not trained.
        reference: the trainable tree that the KL is taken to; None without a KL.
        teacher: scores tokens; None without an intrinsic reward, and with credit=exact.
        step_scorer: scores steps; None without a process reward model.
        curriculum: which problems.
        tx: the optimiser.
        shardings: of the train state.
        lengths: that batches are padded to, from `rl_programs.lengths`.
        exact: its distributions are in the loss; None but with credit=exact.
        guard: of the first rollout; None: there is none.
    """

    def __init__(
        self,
        run: Run,
        stage: Stage[RLSettings],
        model: QwenModel,
        *,
        frozen: Any,
        reference: Any,
        teacher: Teacher | None,
        step_scorer: process.StepScorer | None,
        curriculum: Curriculum,
        tx: Any,
        shardings: TrainState,
        lengths: Sequence[PaddedLengths],
        exact: ExactTeacher | None = None,
        guard: Guard | None = None,
    ):
        self.run, self.stage, self.settings = run, stage, stage.settings
        self.sampling, self.G = run.config.sampling, stage.settings.samples_per_prompt
        self.frozen, self.reference, self.teacher = frozen, reference, teacher
        self.step_scorer, self.exact, self.guard = step_scorer, exact, guard
        # What an update reads and does not train.
        self.fixed = frozen if exact is None else {**frozen, "teacher": exact.params}
        self.curriculum, self.sampler = curriculum, run.models.sampler(model)
        several_hosts = jax.process_count() > 1
        self.terms = HostTerms(self.settings.rewards, several_hosts=several_hosts, say=run.say)
        # Groups all right are where brevity is learnt.
        self.all_right = bool(self.settings.rewards.length_weight)
        self.uses_reference = self.settings.reference_weight > 0
        self.needs_old = self.settings.needs_old
        # --- batches, compiled programs ---
        self.rows, self._lengths = sharding.batch_sharding(run.mesh), lengths
        self._shared = self.settings.shares_prompts(sharding.batch_shards(run.mesh))
        self._programs = rl_programs.make(
            run, self.settings, model, tx, shardings, chosen=lengths, exact=exact
        )

    def __call__(
        self, state: TrainState, step: int
    ) -> tuple[TrainState, Mapping[str, Any], list[dict[str, Any]]]:
        """Rollout, rewards, updates; metrics under TRL's names."""
        clock = PartTimes()
        before = sharding.fetch(state.curriculum_state)
        # --- completions; with dynamic sampling they are judged here ---
        ids_P = self.curriculum.problem_ids(before, step)
        weights = self.weights(state)
        drawn = self._draw(weights, ids_P, step, 0)
        guard = self.guard if step == 0 else None
        if guard is not None:
            guard.check(drawn.rollout)
        collected, oversampled, draws = None, dict[str, float](), [drawn]
        if self.settings.dynamic_sampling or self.settings.oversample > 1:
            collected, oversampled = self._chosen(draws, weights, before, ids_P, step)
            drawn = collected.drawn
        host = training_batch(
            drawn.prompts, drawn.rollout, self.G, pad_id=self.run.data.pad_id,
            multiple=self.settings.batch_multiple, chosen=self._lengths,
            shared=self._shared,
        )  # fmt: skip
        clock.note("time/rollout")
        # --- the teacher is launched first: the host judges while the device scores ---
        batch = sharding.place(host, self.rows)
        scored = None if self.teacher is None else self.teacher.launch(batch, drawn.repeated())
        old, reference = self._scores_before(state, batch)
        clock.note("time/launch")
        collected = collected or self._collect(drawn, self._judge(drawn), ids_P)
        completions = Completions(drawn.repeated(), drawn.texts, collected.judged, host.ended_B)
        on_host, mask_BR = self.terms(completions), host.response_mask_BR
        if self.settings.mask_truncated:
            mask_BR = mask_BR * host.ended_B[:, None].astype(np.float32)
        turns: dict[str, float] = {}
        if (replies := self.run.data.replies()) is not None:
            mask_BR, turns = rounds.trained(replies, drawn.prompts, drawn.rollout, mask_BR)
        steps = self._score_steps(drawn, host) if self.step_scorer is not None else None
        terms, loss_mask_BR, steps = sharding.place((on_host, mask_BR, steps), self.rows)
        clock.note("time/terms")
        # --- rewards, advantages, updates ---
        controlled = self.settings.rewards.control != "none"
        control = (state.key, np.int32(step)) if controlled else None
        scores = None if scored is None else scored()
        carried = dict(state.reward_state)
        buffer = carried.pop(replay.KEY, None)
        (policy, record), carried, metrics = self._programs.prepare(
            carried, batch, terms, loss_mask_BR=loss_mask_BR, teacher=scores, old=old,
            ref_logp_BR=reference, steps=steps, control=control,
        )  # fmt: skip
        record = sharding.fetch(record)
        policy, more, replayed = self._replayed(buffer, policy, host, record, step)
        state = dataclasses.replace(state, reward_state=carried | more)
        if self.step_scorer is not None:
            process.refuse_hacking(
                self.settings.process, sharding.fetch(state.reward_state["process"])
            )
        if self.settings.rewards.length_weight:
            bonuses.refuse_reversed(sharding.fetch(metrics))
        if not host.ended_B.any():  # a mean of nothing
            metrics.pop("teacher/mass_at_end", None)
        if self.exact is not None:
            policy = self.exact.batch(policy, host, drawn.repeated())
        clock.note("time/rewards")
        state, updated = self._updates(state, policy, step)
        updated = exact_credit.logged(updated)
        state = self._learn(state, collected, record["signal_B"])
        clock.note("time/update", updated)
        if guard is not None:
            guard.record({**metrics, **updated})
        metrics = {**metrics, **updated, **rl_metrics.of_rollout(host, collected.judged, self.G)}
        metrics |= {**turns, **self.terms.metrics(), **oversampled, **replayed, **clock.times}
        metrics |= self.run.data.task.metrics(collected.judged) | rl_metrics.of_draws(draws)
        metrics |= self.curriculum.metrics(before, state.curriculum_state, step)
        if self.teacher is not None:
            metrics |= self.teacher.metrics()
        problems = len(self.curriculum.arms.kept)
        metrics["epoch"] = (step + 1) * self.settings.prompts_per_step / problems
        return state, metrics, self._table(drawn, on_host, record)

    def weights(self, state: TrainState) -> Any:
        """Decode weights of the student in this state."""
        return self.sampler.weights(states.join(state.trainable, self.frozen), self.sampling)

    def close(self) -> None:
        """Ends the processes and files that rewards hold."""
        self.terms.close()
        if self.teacher is not None:
            self.teacher.close()

    # --- completions --------------------------------------------------------------------------

    def _draw(self, weights: Any, ids_P: np.ndarray, step: int, number: int) -> Drawn:
        """G·oversample completions of each problem; `number` counts the rounds of a step."""
        data = self.run.data.problems("train")
        prompts = [data.prompts[i] for i in ids_P]
        rollout = rounds.generate(
            self.sampler,
            weights,
            prompts,
            self.sampling,
            # Numbered by place, not by problem: one that is drawn twice (at an epoch's end) must
            # not get the same samples twice.
            key=rng.stream_key(self.run.key(self.stage), "rollout", step, number),
            prompt_ids=range(len(ids_P)),
            samples=self.G * self.settings.oversample,
            replies=self.run.data.replies(),
            ended=self._begin if self.run.data.task.begins else None,
        )
        texts = [self.run.data.text(row) for row in rollout.own]
        return Drawn([data.problems[i] for i in ids_P], prompts, rollout, texts)

    def _begin(self, tokens: Sequence[Sequence[int]]) -> None:
        """Starts what the verdicts on completions need while others are still drawn."""
        self.run.data.task.begin([self.run.data.text(row) for row in tokens])

    def _judge(self, drawn: Drawn) -> Judged:
        judged = self.run.data.task.judge(drawn.repeated(), drawn.texts, drawn.rollout.ended_B)
        # A program may run into a time limit on one host alone; all must train on one verdict.
        stated = json.loads(sharding.text_of_first_process(json.dumps(judged.stated)))
        return judged._replace(
            right_B=sharding.of_first_process(judged.right_B),
            undecided_B=sharding.of_first_process(judged.undecided_B),
            stated=stated,
        )

    def _collect(self, drawn: Drawn, judged: Judged, ids_P: np.ndarray) -> Collected:
        return groups.collect(drawn, judged, ids_P, all_right=self.all_right)

    def _chosen(
        self, draws: list[Drawn], weights: Any, curriculum_state: Any, ids_P: np.ndarray, step: int
    ) -> tuple[Collected, dict[str, float]]:
        """The groups after oversampling and dynamic sampling, with oversampling's metrics.

        draws: the first one of the step; further ones are added.
        """
        counts: list[dict[str, float]] = []

        def kept(drawn: Drawn, number: int) -> tuple[Drawn, Judged]:
            judged = self._judge(drawn)
            if self.settings.oversample == 1:
                return drawn, judged
            replies = self.run.data.replies()
            found = oversample.keep(
                drawn, judged, self.G, seed=self.run.seed(self.stage), step=step, number=number,
                void_B=None if replies is None else rounds.void_turns(replies, drawn.rollout),
            )  # fmt: skip
            counts.append(found.counts)
            return found.drawn, found.judged

        def draw(seen: np.ndarray, number: int) -> tuple[np.ndarray, Drawn, Judged]:
            more_P = self.curriculum.problem_ids(curriculum_state, step, seen)
            draws.append(self._draw(weights, more_P, step, number))
            return more_P, *kept(draws[-1], number)

        first = self._collect(*kept(draws[0], 0), ids_P)
        most = self.settings.dynamic_sampling
        found = groups.replace_equal(first, most, draw, all_right=self.all_right)
        return found, oversample.total(counts)

    def _learn(self, state: TrainState, collected: Collected, signal_B: np.ndarray) -> TrainState:
        if self.settings.arm_signal == "correctness":
            of_arms = self.curriculum.arms.arm_N[collected.ids_K] if self.G == 1 else None
            signal_K = collected.correctness_K(of_arms)
        else:
            signal_K = collected.advantage_K(signal_B.reshape(-1, self.G).mean(axis=1))
        learnt = self.curriculum.update(
            state.curriculum_state, collected.ids_K, signal_K, collected.accuracy_K
        )
        return dataclasses.replace(state, curriculum_state=learnt)

    # --- rewards and advantages ---------------------------------------------------------------

    def _score_steps(self, drawn: Drawn, host: RolloutBatch) -> process.StepScores:
        tokenizer, mask_BR = self.run.data.tokenizer, host.response_mask_BR
        prompts = [prompt for prompt in drawn.prompts for _ in range(self.G)]
        assert self.step_scorer is not None
        return process.score(self.step_scorer, tokenizer, prompts, drawn.rollout.own, mask_BR)

    def _scores_before(
        self, state: TrainState, batch: RolloutBatch
    ) -> tuple[PolicyScores | None, jax.Array | None]:
        old = self._programs.score(state.trainable, self.frozen, batch) if self.needs_old else None
        if not self.uses_reference:
            return old, None
        return old, self._programs.reference(self.reference, self.frozen, batch).logp_BR

    def _replayed(
        self,
        buffer: replay.Buffer | None,
        policy: PolicyBatch,
        host: RolloutBatch,
        record: Mapping[str, np.ndarray],
        step: int,
    ) -> tuple[PolicyBatch, dict[str, replay.Buffer], dict[str, Any]]:
        """(batch, what the state carries, metrics) with earlier groups in it; see `replay.mix`."""
        if buffer is None:
            return policy, {}, {}
        key = rng.stream_key(self.run.key(self.stage), "replay", step)
        lengths_B, rewards_B = host.response_len_B, record["reward_B"]
        policy, buffer, metrics = self._programs.replay(
            buffer, policy, lengths_B, rewards_B, key, np.int32(step)
        )
        return policy, {replay.KEY: buffer}, metrics

    # --- updates ------------------------------------------------------------------------------

    def _updates(
        self, state: TrainState, batch: PolicyBatch | ExactBatch, step: int
    ) -> tuple[TrainState, Any]:
        settings = self.settings
        updates = settings.num_iterations * settings.minibatches
        if updates == 1:
            return self._programs.update(state, self.fixed, batch, np.int32(0), np.int32(1))
        seen: list[Any] = []
        for iteration in range(settings.num_iterations):
            key = [self.run.seed(self.stage), step]
            bits = np.random.Philox(key=key, counter=[iteration, 0, 0, 2])
            order = np.random.Generator(bits).permutation(settings.drawn_parts)
            for part in np.split(order, settings.minibatches):
                number = len(seen)
                last = np.int32(number == updates - 1)
                of_part = self._programs.take(batch, part)
                state, metrics = self._programs.update(
                    state, self.fixed, of_part, np.int32(number), last
                )
                seen.append(metrics)
        return state, rl_metrics.mean_of(seen)

    # --- records ------------------------------------------------------------------------------

    def _table(
        self,
        drawn: Drawn,
        terms: Mapping[str, np.ndarray],
        record: Mapping[str, np.ndarray],
    ) -> list[dict[str, Any]]:
        # One sample of every prompt, then the next of every prompt: a short table shows many.
        order = np.arange(len(drawn.texts)).reshape(-1, self.G).T.reshape(-1)
        return [
            {
                "prompt": drawn.problems[i // self.G].question,
                "completion": drawn.texts[i],
                **self._transcript(drawn.rollout, int(i)),
                "gold": drawn.problems[i // self.G].answer,
                # NaN where a term does not apply.
                **{
                    name: None if np.isnan(value_B[i]) else float(value_B[i])
                    for name, value_B in terms.items()
                },
                # With credit=exact no completion is paid by the teacher.
                "intrinsic": None if self.exact else float(record["intrinsic_B"][i]),
                "reward": float(record["reward_B"][i]),
                "advantage": float(record["advantage_B"][i]),
            }
            for i in order
        ]

    def _transcript(self, rollout: Rollout, row: int) -> dict[str, str]:
        """The completion with the outputs between its turns, where there may be any."""
        if self.sampling.rounds == 1:
            return {}
        tokens = rollout.tokens_BR[row, : rollout.length_B[row]]
        return {"transcript": self.run.data.text(tokens)}
