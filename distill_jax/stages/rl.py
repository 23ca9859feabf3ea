"""Stage rl: rollouts of the student, the teacher's intrinsic reward, correctness, updates."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.rewards import adaptive, combine
from distill_jax.rewards.settings import RewardSettings
from distill_jax.stages import curricula, export_files, forecast, loop, validation
from distill_jax.stages.context import Context, write_json
from distill_jax.stages.rl_step import RLStep
from distill_jax.stages.sft import save_adapter
from distill_jax.training import optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS


def run(context: Context, directory: Path) -> dict[str, Any]:
    """Trains the student's adapter on rewards; exports `adapter/` in PEFT's form."""
    config, settings = context.config, context.config.rl
    forecast.show(context, "rl")
    student = context.load("student", context.start_adapter())
    algorithm = ALGORITHMS[settings.algorithm]
    trainable, frozen = states.split(student.params, "lora")
    reference = jax.tree.map(jax.numpy.copy, trainable)
    if algorithm.uses_values:
        trainable = states.with_value_head(trainable, student.model.config.hidden_size)
    updates = settings.steps * settings.num_iterations * settings.minibatches
    tx = optimizer.make(settings.optimizer, updates)
    state, shardings = states.create(
        trainable,
        tx,
        config.seed,
        context.mesh,
        combine.fresh_state(),
        curricula.of_rl(context).fresh(),
    )
    step = RLStep(context, student.model, frozen, reference, tx, shardings)
    with contextlib.closing(step):
        state = loop.run(
            context,
            "rl",
            directory,
            state,
            step,
            settings.steps,
            max_tokens=settings.max_tokens,
            max_skipped=settings.max_skipped,
            eval_every=settings.eval_every,
            evaluate=Validation(context, step),
            on_save=_save_hook(settings.rewards, directory),
        )
    save_adapter(context, student.model.config, state.trainable["lora"], directory / "adapter")
    steps = int(sharding.fetch(state.step))
    export_files.write_model_info(context, "rl", directory / "adapter", steps)
    export_files.write_stats(directory, export_files.FINAL_STATS)
    return {"steps": steps, "skipped_updates": int(sharding.fetch(state.skipped))}


def _save_hook(rewards: RewardSettings, directory: Path) -> loop.SaveFn:
    """At each checkpoint: `training_stats.json`, and `adaptive_weights_step_N.json` of such."""

    def write(step: int, state: states.TrainState, figures: Mapping[str, Any]) -> None:
        export_files.write_stats(directory)
        if not rewards.adaptive:
            return
        found = sharding.fetch(state.reward_state)["adaptive"]
        gains, factors = adaptive.gains(found), adaptive.multipliers(found)
        weights = {n: w * float(factors.get(n, 1.0)) for n, w in rewards.weights.items()}
        content = {
            "step": step,
            "adaptive_weights": weights,
            "weight_performance": {name: float(gain) for name, gain in gains.items()},
            "combination_stats": {
                name: float(value) if np.isfinite(value) else None
                for name, value in figures.items()
                if name == "reward" or name.startswith("rewards/")
            },
        }
        if jax.process_index() == 0:
            write_json(directory / f"adaptive_weights_step_{step}.json", content)

    return write


class Validation:
    """Greedy accuracy on the first problems of the validation split: the learning curve."""

    def __init__(self, context: Context, step: RLStep):
        self.context, self.step = context, step

    def __call__(self, state: states.TrainState) -> dict[str, float]:
        """Figures under `eval/`."""
        count = self.context.config.rl.eval_problems
        return validation.greedy(self.context, self.step.sampler, self.step.weights(state), count)
