"""One RL step as data: prompts, rollout, correctness and teacher scores, advantages, updates."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.masked import masked_mean
from distill_jax.kernels.grpo import overlong_punishment, zero_variance_groups
from distill_jax.models.qwen import QwenModel
from distill_jax.rewards import combine
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.correctness import Correctness
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.rewards.terms import HostTerms
from distill_jax.rollout.groups import take_rows, training_batch
from distill_jax.stages import curricula, rl_teacher
from distill_jax.stages.context import Context
from distill_jax.stages.rl_rollout import Collected, Drawn, Rollouts
from distill_jax.training import losses
from distill_jax.training.algorithms import ALGORITHMS
from distill_jax.training.state import TrainState
from distill_jax.training.step import make_update

# What the loss is given of a batch; the rest is for scoring and records.
_LOSS_ARRAYS = (
    "tokens_BT", "prompt_len_B", "targets_BR", "loss_mask_BR", "behaviour_logp_BR",
    "advantage_BR", "return_BR", "old_value_BR", "old_logp_BR", "ref_logp_BR", "top_entropy_BR",
)  # fmt: skip


class RLStep:
    """The loop's step of stage rl: a function of (state, step), beside compiled programs.

    Args:
        context: settings, mesh, problems.
        model: the student.
        frozen: its base weights.
        reference: the trainable tree that the KL is taken to.
        tx: optimiser.
        shardings: of the state.
    """

    def __init__(
        self,
        context: Context,
        model: QwenModel,
        frozen: Any,
        reference: Any,
        tx: Any,
        shardings: TrainState,
    ):
        self.context, self.model, self.frozen = context, model, frozen
        self.reference = reference
        self.config, self.settings = context.config, context.config.rl
        self.algorithm = ALGORITHMS[self.settings.algorithm]
        group = self.settings.group.at_length(self.config.sampling.max_new_tokens)
        self.algorithm_settings = self.settings.ppo if self.algorithm.uses_values else group
        by_entropy = not self.algorithm.uses_values and group.top_entropy < 1.0
        self.uses_reference = self.algorithm.reference_weight(self.algorithm_settings) > 0
        # With one update a rollout, the policy of the update is the one that is trained.
        self.needs_old = (
            self.algorithm.uses_values
            or by_entropy
            or self.settings.num_iterations * self.settings.minibatches > 1
        )
        self.rows = sharding.batch_sharding(context.mesh)
        self.sampler = context.sampler(model)
        self.curriculum = curricula.of_rl(context)
        self.rollouts = Rollouts(context, self.sampler, self.curriculum)
        self.terms = HostTerms(self.settings.rewards, several_hosts=jax.process_count() > 1)
        self.teacher = rl_teacher.make(context)
        self._score = self._scorer(values=self.algorithm.uses_values, entropy=by_entropy)
        self._reference = self._scorer(values=False, entropy=False)
        # The scale is part of the state: lying elsewhere, it would compile the update anew.
        whole = sharding.replicated(context.mesh)
        self._prepare = jax.jit(self._prepare_fn, out_shardings=(self.rows, whole, whole))
        self._take = jax.jit(take_rows, out_shardings=self.rows)
        loss, totals = losses.policy(
            model,
            self.algorithm,
            self.algorithm_settings,
            temperature=self.config.sampling.temperature,
            vocab=context.vocab,
        )
        self._update = make_update(
            loss, totals, tx, context.mesh, shardings, accumulate=self.settings.accumulate
        )

    def _scorer(self, **what: bool) -> Any:
        """A jitted (trainable, frozen, batch) -> scores of the responses before the update."""
        how = functools.partial(
            losses.score_policy,
            self.model,
            temperature=self.config.sampling.temperature,
            vocab=self.context.vocab,
            **what,
        )
        return jax.jit(how, out_shardings=self.rows)

    def __call__(
        self, state: TrainState, step: int
    ) -> tuple[TrainState, Mapping[str, Any], list[dict[str, Any]]]:
        """Rollout, rewards, updates; metrics under TRL's names."""
        clock = _Clock()
        before = sharding.fetch(state.curriculum_state)
        collected = self.rollouts(self.weights(state), before, step)
        drawn = collected.drawn
        clock.note("time/rollout")
        host = training_batch(
            drawn.prompts,
            drawn.rollout,
            self.settings.samples_per_prompt,
            pad_id=self.context.pad_id,
            multiple=self.settings.batch_multiple,
        )
        host["loss_mask_BR"] = self._loss_mask(host)
        terms = self._terms(drawn, host)
        clock.note("time/terms")
        batch = sharding.place({**host, "terms": terms}, self.rows)
        scores = self.teacher.score(batch) if self.teacher is not None else None
        clock.note("time/teacher", scores)
        batch, reward_state, metrics = self._prepare(
            state.reward_state, batch, scores, *self._old(state, batch)
        )
        state = dataclasses.replace(state, reward_state=reward_state)
        clock.note("time/rewards", metrics)
        record = sharding.fetch(
            {name: batch[name] for name in ("reward_B", "intrinsic_B", "advantage_B", "signal_B")}
        )
        state, updated = self._updates(state, batch, step)
        state = self._learn(state, collected, record["signal_B"])
        clock.note("time/update", updated)
        metrics = {**metrics, **updated, **self._rollout_metrics(host, drawn.judged)}
        metrics |= {**self.terms.metrics(), **clock.times}
        metrics |= self.curriculum.metrics(before, state.curriculum_state, step)
        if isinstance(self.teacher, CachedTeacher):
            metrics |= self.teacher.metrics()
        problems = len(self.curriculum.arms.kept)
        metrics["epoch"] = (step + 1) * self.settings.prompts_per_step / problems
        return state, metrics, self._records(drawn, record)

    # --- rollout ------------------------------------------------------------------------------

    def weights(self, state: TrainState) -> Any:
        """Decode weights of the student in this state."""
        params = {"base": self.frozen["base"], "lora": state.trainable["lora"]}
        return self.sampler.weights(params, self.config.sampling)

    def _loss_mask(self, host: dict[str, np.ndarray]) -> np.ndarray:
        mask_BR = host["response_mask_BR"]
        if self.settings.mask_truncated:
            mask_BR = mask_BR * host["ended_B"][:, None].astype(np.float32)
        return mask_BR

    def _learn(self, state: TrainState, collected: Collected, signal_B: np.ndarray) -> TrainState:
        """The curriculum's state after this step."""
        if self.settings.arm_signal == "correctness":
            signal_K = collected.correctness_K()
        else:
            signal_P = signal_B.reshape(-1, self.settings.samples_per_prompt).mean(axis=1)
            signal_K = collected.advantage_K(signal_P)
        learnt = self.curriculum.update(
            state.curriculum_state, collected.ids_K, signal_K, collected.accuracy_K
        )
        return dataclasses.replace(state, curriculum_state=learnt)

    # --- rewards and advantages ---------------------------------------------------------------

    def close(self) -> None:
        """Ends the processes and files that rewards hold."""
        self.terms.close()
        if isinstance(self.teacher, CachedTeacher):
            self.teacher.close()

    def _terms(self, drawn: Drawn, host: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        G = self.settings.samples_per_prompt
        problems = [problem for problem in drawn.problems for _ in range(G)]
        return self.terms(problems, drawn.texts, drawn.judged, host["ended_B"])

    def _old(self, state: TrainState, batch: Any) -> tuple[Any, Any]:
        old = self._score(state.trainable, self.frozen, batch) if self.needs_old else None
        reference = (
            self._reference(self.reference, self.frozen, batch)["logp_BR"]
            if self.uses_reference
            else None
        )
        return old, reference

    def _prepare_fn(
        self, state: Any, batch: Any, teacher: TeacherScores | None, old: Any, ref_logp_BR: Any
    ) -> tuple[dict[str, jax.Array], Any, dict[str, jax.Array]]:
        """Rewards and advantages of a rollout; jitted."""
        settings, G = self.settings.rewards, self.settings.samples_per_prompt
        mask_BR = batch["response_mask_BR"]
        batch = dict(batch)
        if old is not None:
            batch["old_logp_BR"] = old["logp_BR"]
            batch.update({k: old[k] for k in ("value_BR", "end_value_B", "entropy_BR") if k in old})
        if ref_logp_BR is not None:
            batch["ref_logp_BR"] = ref_logp_BR
        penalty_B = None
        if settings.overlong_buffer:
            limit = self.config.sampling.max_new_tokens
            penalty_B = overlong_punishment(
                batch["response_len_B"], limit, settings.overlong_buffer
            )
        dense = self.algorithm.uses_values
        joined = combine.join(
            settings, state, batch, teacher, dense=dense, samples=G, penalty_B=penalty_B
        )
        if joined.reward_BR is not None:
            batch["reward_BR"] = joined.reward_BR
        reward_B = joined.reward_B
        batch["reward_PG"] = reward_B.reshape(-1, G)
        arrays, metrics = self.algorithm.advantages(batch, self.algorithm_settings)
        advantage_B = masked_mean(arrays["advantage_BR"], mask_BR, axis=1)
        signal_B = masked_mean(jnp.abs(arrays["advantage_BR"]), mask_BR, axis=1)
        metrics = {**joined.metrics, **metrics}
        metrics["frac_reward_zero_std"] = jnp.mean(zero_variance_groups(batch["reward_PG"]))
        metrics["reward_std"] = jnp.mean(jnp.std(batch["reward_PG"], axis=1, ddof=min(1, G - 1)))
        out = {name: batch[name] for name in _LOSS_ARRAYS if name in batch}
        out |= {**arrays, "reward_B": reward_B, "intrinsic_B": joined.intrinsic_B}
        out |= {"advantage_B": advantage_B, "signal_B": signal_B}
        return out, joined.state, metrics

    # --- updates ------------------------------------------------------------------------------

    def _updates(self, state: TrainState, batch: Any, step: int) -> tuple[TrainState, Any]:
        settings = self.settings
        batch = {name: batch[name] for name in _LOSS_ARRAYS if name in batch}
        updates = settings.num_iterations * settings.minibatches
        if updates == 1:
            return self._update(state, self.frozen, batch, np.int32(0), np.int32(1))
        rows = settings.prompts_per_step * settings.samples_per_prompt
        seen: list[Any] = []
        for iteration in range(settings.num_iterations):
            bits = np.random.Philox(key=[self.config.seed, step], counter=[iteration, 0, 0, 2])
            order = np.random.Generator(bits).permutation(rows)
            for part in np.split(order, settings.minibatches):
                number = len(seen)
                state, metrics = self._update(
                    state,
                    self.frozen,
                    self._take(batch, part),
                    np.int32(number),
                    np.int32(number == updates - 1),
                )
                seen.append(metrics)
        return state, _mean_of(seen)

    # --- records ------------------------------------------------------------------------------

    def _rollout_metrics(
        self, host: dict[str, np.ndarray], judged: Correctness
    ) -> dict[str, float]:
        length_B, ended_B = host["response_len_B"], host["ended_B"]
        ended = length_B[ended_B]
        right_PG = judged.right_B.reshape(-1, self.settings.samples_per_prompt)
        return {
            "completions/mean_length": float(length_B.mean()),
            "completions/min_length": float(length_B.min()),
            "completions/max_length": float(length_B.max()),
            "completions/clipped_ratio": float(1.0 - ended_B.mean()),
            "completions/mean_terminated_length": float(ended.mean()) if len(ended) else 0.0,
            "rewards/correctness/undecided": float(judged.undecided_B.mean()),
            "accuracy": float(judged.right_B.mean()),
            # Groups that correctness alone teaches nothing.
            "frac_groups_all_right": float(right_PG.all(axis=1).mean()),
            "frac_groups_all_wrong": float((~right_PG).all(axis=1).mean()),
            "step_tokens": int(host["prompt_len_B"].sum() + length_B.sum()),
        }

    def _records(self, drawn: Drawn, record: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        G = self.settings.samples_per_prompt
        # One sample of every prompt, then the next of every prompt: a short table shows many.
        order = np.arange(len(drawn.texts)).reshape(-1, G).T.reshape(-1)
        return [
            {
                "prompt": drawn.problems[i // G].question,
                "completion": drawn.texts[i],
                "gold": drawn.problems[i // G].answer,
                "correctness": float(drawn.judged.reward_B[i]),
                "intrinsic": float(record["intrinsic_B"][i]),
                "reward": float(record["reward_B"][i]),
                "advantage": float(record["advantage_B"][i]),
            }
            for i in order
        ]


class _Clock:
    """Wall time of a step's parts; waits for the device so that a part owns its own work."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, name: str, work: Any = None) -> None:
        jax.block_until_ready(work)
        now = time.perf_counter()
        self.times[name] = now - self._last
        self._last = now


def _mean_of(seen: list[dict[str, Any]]) -> dict[str, Any]:
    seen, out = sharding.fetch(seen), {}
    for name in seen[0]:
        values = np.stack([m[name] for m in seen])
        if name.endswith("max"):
            out[name] = values.max()
        elif name.endswith("min"):
            out[name] = values.min()
        else:
            out[name] = values.sum() if name == "skipped" else values.mean()
    return out
