"""Seconds of a GRPO step with LoRA inside Tunix's own GRPOLearner, on the CPU.

python -m third_party.peers.tunix.bench_grpo
"""

import contextlib
import os
import sys
import time
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"  # before the imports: nothing here needs a hub

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from tunix.rl import rl_cluster as clusters
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

from third_party.peers import shapes
from third_party.peers.tunix import tunix_model

PACKAGES = ("google-tunix", "jax", "jaxlib", "flax", "qwix", "optax")

# The sampler computes over its whole cache: the smallest one that fits is its best case
# (its default of 1024 slots is several times slower here).
CACHE_SLOTS = shapes.PROMPT_TOKENS + shapes.COMPLETION_TOKENS


def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """The common reward, in the signature that Tunix calls."""
    return shapes.reward(completions)


class TimedLearner(grpo_learner.GRPOLearner):
    """GRPOLearner that notes when each global step ends and how long its rollout takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.ends: list[float] = []
        self.rollout_s: list[float] = []
        super().__init__(*args, **kwargs)

    def _generate_and_compute_advantage(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = super()._generate_and_compute_advantage(*args, **kwargs)
        jax.block_until_ready(jax.tree.leaves(result))
        self.rollout_s.append(time.perf_counter() - start)
        shapes.require(int(result.completion_mask.sum()), result.completion_mask.size, "tokens")
        return result

    def _run_global_step(self, *args: Any, **kwargs: Any) -> None:
        if not self.ends:
            self.ends.append(time.perf_counter())
        super()._run_global_step(*args, **kwargs)
        jax.block_until_ready(nnx.state(self.rl_cluster.actor_trainer.model, nnx.LoRAParam))
        self.ends.append(time.perf_counter())


class TimedCluster(clusters.RLCluster):
    """RLCluster that notes how long sampling alone takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.generate_s: list[float] = []
        super().__init__(*args, **kwargs)

    def generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> Any:
        shapes.require(len(prompts), shapes.NUM_PROMPTS * shapes.NUM_SAMPLES, "rows")
        start = time.perf_counter()
        result = super().generate(prompts, *args, **kwargs)
        self.generate_s.append(time.perf_counter() - start)
        shapes.require(result.left_padded_prompt_tokens.shape[1], shapes.PROMPT_TOKENS, "prompt")
        return result


def cluster(steps: int) -> TimedCluster:
    """Actor and rollout in one process on one device; no reference model."""
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    roles = (clusters.Role.ACTOR, clusters.Role.REFERENCE, clusters.Role.ROLLOUT)
    config = clusters.ClusterConfig(
        role_to_mesh=dict.fromkeys(roles, mesh),
        training_config=clusters.RLTrainingConfig(
            actor_optimizer=optax.adamw(shapes.LEARNING_RATE),
            eval_every_n_steps=1_000_000,
            max_steps=steps,
        ),
        rollout_config=base_rollout.RolloutConfig(
            max_tokens_to_generate=shapes.COMPLETION_TOKENS,
            max_prompt_length=shapes.PROMPT_TOKENS,
            kv_cache_size=CACHE_SLOTS,
            temperature=1.0,
            top_p=1.0,
        ),
    )
    with mesh:
        actor = tunix_model.lora_model()
    return TimedCluster(actor=actor, tokenizer=tunix_model.WordTokenizer(), cluster_config=config)


def main() -> None:
    args = shapes.parse_args(__doc__, repeats=20, warmup=3)
    steps = args.warmup + args.repeats
    with contextlib.redirect_stdout(sys.stderr):  # stdout carries the JSON line only
        rl_cluster = cluster(steps)
        learner = TimedLearner(
            rl_cluster=rl_cluster,
            reward_fns=reward,
            algo_config=grpo_learner.GRPOConfig(
                num_generations=shapes.NUM_SAMPLES, num_iterations=1, beta=0.0
            ),
        )
        model = rl_cluster.actor_trainer.model
        before = jax.device_get(jax.tree.leaves(nnx.state(model, nnx.LoRAParam)))
        prompts = np.array(shapes.prompt_texts())
        learner.train([{"prompts": prompts} for _ in range(steps)])
        after = jax.device_get(jax.tree.leaves(nnx.state(model, nnx.LoRAParam)))
    step_s = shapes.gaps(learner.ends)
    shapes.require(len(step_s), steps, "steps")
    if all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
        raise RuntimeError("training changed no adapter weight: these are not training steps")
    rollout_s = learner.rollout_s
    samples = {
        "step_s": step_s,
        "rollout_s": rollout_s,
        "train_s": [whole - part for whole, part in zip(step_s, rollout_s, strict=True)],
        "generate_s": rl_cluster.generate_s,
    }
    measured = {name: values[args.warmup :] for name, values in samples.items()}
    shapes.print_line("tunix", "grpo_lora_step", measured, PACKAGES, cache_slots=CACHE_SLOTS)


if __name__ == "__main__":
    main()
