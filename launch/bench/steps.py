"""The steps that `launch.bench` measures: supervised, scoring, sampling, GRPO.

Every figure is the median of repetitions after a warm-up; each waits for its result. No completion
ends early: the end token is outside the vocabulary of the sampler.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core import rng, sharding
from distill_jax.core.batching import whole_groups
from distill_jax.core.settings import setting
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.forecast import flops
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.released import PRESETS
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings
from distill_jax.training.batch import PolicyBatch, ScoredRollout
from distill_jax.training.state import TrainState
from distill_jax.training.step import make_update
from launch.bench import roofline

SMALL = "small"


@dataclass(frozen=True)
class BenchSettings:
    """What is measured."""

    model: str = setting(
        SMALL, "small, or a preset of models/qwen_config.py.", choices=(SMALL, *PRESETS)
    )
    dtype: str = setting("float32", "Of weights and products.", choices=("float32", "bfloat16"))
    attention: str | None = setting(None, "Attention implementation.", choices=("xla", "cudnn"))
    remat: bool = setting(False, "Recompute activations.")
    unroll: bool = setting(True, "Unroll the layers.")
    lora_rank: int = setting(8, "Rank on all seven projections.", low=1)
    sft_rows: int = setting(32, "Rows of the supervised step.", low=1)
    sft_tokens: int = setting(112, "Tokens of each row.", low=2)
    full: bool = setting(True, "Also measure the supervised step on all parameters.")
    prompts: int = setting(8, "Prompts of the RL step.", low=1)
    samples: int = setting(8, "Samples of each prompt.", low=2)
    prompt_tokens: int = setting(32, "Tokens of each prompt.", low=1)
    completion_tokens: int = setting(64, "Tokens of each completion.", low=1)
    segment: int = setting(64, "Decode steps of one compiled segment.", low=1)
    generate_rows: tuple[int, ...] = setting((32,), "Batch sizes of the sampler.", low=1)
    distill_tokens: int = setting(1024, "Tokens of the distillation loss.", low=1)
    distill_width: int = setting(128, "Width of both its models.", low=1)
    distill_vocab: int = setting(151_936, "Vocabulary of both: Qwen2.5's.", low=2)
    draw_rows: int = setting(32, "Rows of a draw from that vocabulary.", low=1)
    score_rows: int = setting(8, "Candidates that a reward model scores.", low=1)
    score_steps: int = setting(6, "Steps of each candidate.", low=1)
    score_step_tokens: int = setting(16, "Tokens of each step, the step token included.", low=2)
    accumulate: int = setting(1, "Microbatches of the updates.", low=1)
    repeats: int = setting(20, "Repetitions measured.", low=1)
    warmup: int = setting(3, "Repetitions before them.", low=1)
    peak_flops: float = setting(0.0, "Of the device, for utilisation; 0: not reported.", low=0.0)
    peak_bandwidth: float = setting(0.0, "Bytes/s, for the decode roofline; 0: not.", low=0.0)


def geometry(name: str) -> QwenConfig:
    """The small shape of third_party/peers/shapes.py, or a released one."""
    if name != SMALL:
        return PRESETS[name]
    return QwenConfig(
        model_type="qwen2", vocab_size=512, hidden_size=128, intermediate_size=384, num_layers=3,
        num_heads=4, num_kv_heads=2, head_dim=32, rope_theta=10_000.0,
    )  # fmt: skip


class Bench:
    """The model, its weights and batches, made once."""

    def __init__(self, settings: BenchSettings):
        self.settings = settings
        self.mesh = sharding.make_mesh(sharding.MeshSettings())
        self.rows = sharding.batch_sharding(self.mesh)
        # The sampler fills its batch up by itself.
        rows = settings.sft_rows // settings.accumulate
        sharding.check_batch("sft_rows / accumulate", rows, self.mesh)
        sharding.check_batch("prompts", settings.prompts, self.mesh)
        self.config = geometry(settings.model)
        how: dict[str, Any] = {
            "compute_dtype": settings.dtype,
            "param_dtype": settings.dtype,
            "attention_impl": settings.attention,
            "remat": settings.remat,
            "unroll": settings.unroll,
        }
        lora = LoraConfig(rank=settings.lora_rank, alpha=2.0 * settings.lora_rank)
        self.model = QwenModel(self.config, lora, **how)
        self.teacher = QwenModel(self.config, **how)
        shapes = self.model.shapes()
        where = states.param_shardings(shapes, self.mesh)
        self.params = jax.jit(self.model.init, out_shardings=where)(jax.random.key(0))
        # B starts at zero; a trained adapter is not zero, and zeros must not save any work.
        self.params["lora"] = jax.tree.map(
            lambda x: x + 0.01 * np.cos(np.arange(x.size)).reshape(x.shape), self.params["lora"]
        )
        vocab = self.config.vocab_size
        self.sampler = Sampler(self.model, self.mesh, eos_id=vocab, pad_id=0, vocab=vocab)
        self.random = np.random.default_rng(0)
        self.figures: dict[str, Any] = {}

    def tokens(self, *shape: int) -> np.ndarray:
        """Random token ids."""
        return self.random.integers(0, self.config.vocab_size, shape).astype(np.int32)

    def measure(self, name: str, run: Callable[[], Any], tokens: int) -> float:
        """Median seconds of `run`, which handles that many tokens; notes all figures."""
        seconds = []
        for _ in range(1 + self.settings.warmup + self.settings.repeats):
            begun = time.perf_counter()
            jax.block_until_ready(run())
            seconds.append(time.perf_counter() - begun)
        self.note(name, seconds[1 + self.settings.warmup :])
        median = self.figures[name]["median"]
        self.figures[name] |= {"first_call_s": seconds[0], "tokens_per_s": tokens / median}
        return float(median)

    def note(self, name: str, seconds: Sequence[float]) -> None:
        """Writes down a series of seconds."""
        self.figures[name] = {
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
            "n": len(seconds),
        }

    # --- what is measured ---------------------------------------------------------------------

    def sft(self, mode: str) -> None:
        """A supervised step on every token, optimiser included."""
        s = self.settings
        update, state, frozen = self._update(losses.sft(self.model, self.config.vocab_size), mode)
        mask_BR = np.ones((s.sft_rows, s.sft_tokens - 1), np.float32)
        batch = sharding.place(
            {**self.supervised_rows(s.sft_rows), "loss_mask_BR": mask_BR}, self.rows
        )

        def run() -> Any:
            nonlocal state
            state, metrics = update(state, frozen, batch, np.int32(0), np.int32(1))
            return metrics["loss"]

        seconds = self.measure(f"{mode}_step_s", run, s.sft_rows * s.sft_tokens)
        if s.peak_flops:
            tokens = s.sft_rows * s.sft_tokens
            work = flops.of_rows(tokens, tokens, s.sft_rows)
            rate = flops.update(self.config, work, mode) / seconds
            self.figures[f"{mode}_step_s"]["mfu"] = rate / s.peak_flops

    def forward(self) -> None:
        """Log-probabilities of every token, as the teacher and the reference compute them."""
        s, scorer = self.settings, self.scorer()
        batch = sharding.place(self.supervised_rows(s.sft_rows), self.rows)
        tokens = s.sft_rows * s.sft_tokens
        seconds = self.measure("teacher_forward_s", lambda: scorer.score(batch), tokens)
        if s.peak_flops:
            rate = flops.forward(self.config, flops.of_rows(tokens, tokens, s.sft_rows)) / seconds
            self.figures["teacher_forward_s"]["mfu"] = rate / s.peak_flops

    def _update(self, objective: tuple[Any, Any], mode: str) -> tuple[Any, TrainState, Any]:
        """The compiled update of a (loss, totals), its first state, and the frozen weights."""
        trainable, frozen = states.split(self.params, mode)
        tx = optimizer.make(optimizer.OptimizerSettings(learning_rate=1e-5), 10_000)
        copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))(trainable)
        state, shardings = states.create(copied, tx, rng.run_key(0), self.mesh)
        accumulate = self.settings.accumulate
        update = make_update(*objective, tx, self.mesh, shardings, accumulate=accumulate)
        return update, state, frozen

    def supervised_rows(self, rows: int) -> dict[str, np.ndarray]:
        """Rows of random tokens, all of them a response."""
        s = self.settings
        tokens = self.tokens(rows, s.sft_tokens)
        return {
            "tokens_BT": tokens,
            "prompt_len_B": np.ones(rows, np.int32),
            "response_len_B": np.full(rows, s.sft_tokens - 1, np.int32),
            "targets_BR": np.ascontiguousarray(tokens[:, 1:]),
        }

    def scorer(self) -> TeacherScorer:
        """The teacher, of the model's shape."""
        params, vocab = {"base": self.params["base"], "lora": {}}, self.config.vocab_size
        return TeacherScorer(self.teacher, params, self.mesh, alpha=1.0, vocab=vocab)

    def generate(self, rows: int) -> None:
        """Prefill and decode of `rows` prompts, one sample each, adapter merged before."""
        s = self.settings
        sampling = self._sampling()
        weights = self.sampler.weights(self.params, sampling)
        prompts = list(self.tokens(rows, s.prompt_tokens))
        key = rng.run_key(0)

        def run() -> Any:
            out = self.sampler.generate(weights, prompts, sampling, key=key, prompt_ids=range(rows))
            return out.tokens_BR

        name = f"generate_{rows}_s"
        self.measure(name, run, rows * s.completion_tokens)
        if s.peak_bandwidth:
            bound = roofline.decode_tokens_per_s(
                self.config, rows, s.prompt_tokens, s.completion_tokens, s.dtype, s.peak_bandwidth
            )
            self.figures[name]["roofline_fraction"] = self.figures[name]["tokens_per_s"] / bound

    def _sampling(self) -> SamplingSettings:
        s = self.settings
        return SamplingSettings(
            max_new_tokens=s.completion_tokens, segment=s.segment, prompt_multiple=s.prompt_tokens
        )

    def rl(self) -> None:
        """A GRPO step: rollout (with a cheap reward), teacher scoring, update."""
        s = self.settings
        sampling, scorer = self._sampling(), self.scorer()
        prompts = list(self.tokens(s.prompts, s.prompt_tokens))
        algorithm, group = ALGORITHMS["grpo"], GroupSettings()
        vocab = self.config.vocab_size
        objective = losses.policy(self.model, algorithm, group, temperature=1.0, vocab=vocab)
        update, state, frozen = self._update(objective, "lora")

        parts = s.accumulate * sharding.batch_shards(self.mesh)
        shared = whole_groups(s.prompts, s.samples, parts)

        def prepared(batch: RolloutBatch, reward_PG: jax.Array) -> PolicyBatch:
            mask_BR = batch.response_mask_BR
            # GRPO needs no reward of a token, no score before the update and no value.
            rollout = ScoredRollout(mask_BR, mask_BR, batch.ended_B, reward_PG, *[None] * 7)
            return PolicyBatch(
                tokens_BT=batch.tokens_BT,
                prompts_PS=batch.prompts_PS,
                prompt_len_B=batch.prompt_len_B,
                targets_BR=batch.targets_BR,
                loss_mask_BR=mask_BR,
                behaviour_logp_BR=batch.behaviour_logp_BR,
                old_logp_BR=None,
                ref_logp_BR=None,
                advantages=algorithm.advantages(rollout, group)[0],
            )

        prepare = jax.jit(prepared)
        # "step" is without the teacher, as the peers run it.
        seconds: list[list[float]] = []
        for repeat in range(1 + s.warmup + s.repeats):
            times = [time.perf_counter()]
            params = {"base": frozen["base"], "lora": state.trainable["lora"]}
            rollout = self.sampler.generate(
                self.sampler.weights(params, sampling), prompts, sampling,
                key=rng.stream_key(rng.run_key(0), "rollout", repeat),
                prompt_ids=range(s.prompts), samples=s.samples,
            )  # fmt: skip
            host = training_batch(prompts, rollout, s.samples, pad_id=0, multiple=16, shared=shared)
            reward_B = np.mean(rollout.tokens_BR % 2 == 0, axis=1, dtype=np.float32)
            batch = sharding.place(host, self.rows)
            times.append(time.perf_counter())
            jax.block_until_ready(scorer.score(batch.to_score()))
            times.append(time.perf_counter())
            policy = prepare(batch, reward_B.reshape(s.prompts, s.samples))
            state, metrics = update(state, frozen, policy, np.int32(0), np.int32(1))
            jax.block_until_ready(metrics)
            times.append(time.perf_counter())
            if repeat > s.warmup:
                rollout_s, teacher_s, update_s = np.diff(times).tolist()
                seconds.append([rollout_s, teacher_s, update_s, rollout_s + update_s])
        for name, *measured in zip(("rollout", "teacher", "update", "step"), *seconds, strict=True):
            self.note(f"grpo_{name}_s", measured)
