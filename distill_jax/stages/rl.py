"""Stage kind rl: rollouts of the student, the teacher's intrinsic reward, verdicts, updates.

One step, in `rl_step.py`: draw P problems and G completions of each; launch the teacher on their
tokens; judge the texts meanwhile; combine the terms into rewards; advantages; the updates.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from distill_jax.core import sharding
from distill_jax.core.batching import round_up
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.evaluation.held_out import validation
from distill_jax.forecast.compiled_programs import Programs
from distill_jax.forecast.memory import Job
from distill_jax.inference import process_scorer
from distill_jax.inference.process_scorer import ProcessScorer
from distill_jax.report import panels
from distill_jax.rewards import adaptive, combine
from distill_jax.rewards.custom import check_function
from distill_jax.rewards.settings import RewardSettings
from distill_jax.run.console import write_json
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import (
    checks,
    curricula,
    distill,
    exact_teacher,
    export_files,
    loop,
    remote_teacher,
    rl_programs,
    teacher,
    teacher_prompts,
    teacher_routes,
)
from distill_jax.stages.first_rollout import Guard
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.rl_step import RLStep
from distill_jax.training import optimizer, replay, value_warmup
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS
from distill_jax.training.state import TrainState


def _check(run: Run, stage: Stage[RLSettings]) -> None:
    s, name = stage.settings, stage.name
    rows, parts = s.prompts_per_step * s.samples_per_prompt, s.minibatches * s.accumulate
    label = f"{name}.prompts_per_step×{name}.samples_per_prompt"
    if parts > 1:
        label += f" / ({name}.minibatches×{name}.accumulate)"
    sharding.check_batch(label, rows // parts, run.mesh)
    checks.check_training(stage)
    if s.rewards.weights["custom"]:
        check_function(s.rewards.custom, s.rewards.custom_deadline_s)
    if s.further_models():
        teacher_routes.check(run, stage)
    reward_model = stage.settings.process.reward_model
    if reward_model and run.is_there(reward_model):
        about = process_scorer.check(run, reward_model, base=False)[1]
        _refuse_other_message(run, reward_model, about.system_prompt)


def _prepare(run: Run, stage: Stage[RLSettings]) -> Curriculum:
    s, problems = stage.settings, run.data.problems("train").problems
    if len(problems) < s.prompts_per_step:
        raise DataError(
            f"{len(problems)} training problems for {stage.name}.prompts_per_step="
            f"{s.prompts_per_step}",
            wanted="as many problems: a step draws each of its prompts once",
            fix="lower prompts_per_step, or check data.limit and data.max_prompt_tokens",
        )
    if s.rewards.intrinsic_weight:
        teacher_prompts.check(run, stage)
        if s.teacher.models:
            teacher_routes.names(s.teacher, problems)
        if s.teacher.is_remote:
            remote_teacher.check(run, stage)
    return curricula.of(
        run,
        stage,
        s.curriculum,
        problems,
        batch=s.prompts_per_step,
        samples=s.samples_per_prompt,
        rounds=s.dynamic_sampling + 1,
    )


def _run(
    run: Run, stage: Stage[RLSettings], directory: Path, curriculum: Curriculum
) -> dict[str, Any]:
    s, algorithm = stage.settings, ALGORITHMS[stage.settings.algorithm]
    # --- student, reference, teacher ---
    model, trainable, frozen = distill.starting_student(run, s)
    reference = jax.tree.map(jax.numpy.copy, trainable) if s.reference_weight else None
    start = Loaded(model, states.join(trainable if reference is None else reference, frozen))
    # Updates take the arrays that are trained away; the reference is a copy already.
    taken = tuple(trainable) if reference is None else ()
    if algorithm.uses_values:
        trainable = states.with_value_head(trainable, model.config.hidden_size)
    # --- state ---
    tx = _optimizer(s)
    carried = combine.fresh_state(processes=bool(s.process.reward_model))
    carried |= value_warmup.fresh(s.ppo) | _fresh_replay(run, s)
    state, shardings = states.create(
        trainable,
        tx,
        run.key(stage),
        run.mesh,
        carried,
        curriculum.fresh(),
    )
    # --- step ---
    lengths = rl_programs.lengths(run, s)
    step = RLStep(
        run,
        stage,
        model,
        frozen=frozen,
        reference=reference,
        teacher=teacher.of_stage(run, stage, start, trained=taken, lengths=lengths),
        exact=exact_teacher.of_stage(run, stage, start, trained=taken),
        step_scorer=_step_scorer(run, s.process.reward_model),
        curriculum=curriculum,
        tx=tx,
        shardings=shardings,
        lengths=lengths,
        guard=Guard(run, stage, directory),
    )

    def evaluate(state: TrainState) -> dict[str, float]:
        return validation(run, step.sampler, step.weights(state), s)

    # --- loop ---
    with contextlib.closing(step):
        state = loop.train(
            run,
            stage.name,
            directory,
            s,
            state,
            step,
            evaluate=evaluate,
            on_save=_save_hook(s.rewards, directory),
        )
    # --- export ---
    export_files.write_stats(directory, export_files.FINAL_STATS)
    return export_files.save_student(run, stage, directory, model.config, state)


def _fresh_replay(run: Run, settings: RLSettings) -> dict[str, replay.Buffer]:
    longest, multiple = run.config.sampling.response_tokens, settings.batch_multiple
    prompt = run.config.data.max_prompt_tokens
    return replay.fresh(
        settings.replay,
        settings.samples_per_prompt,
        round_up(prompt + longest, multiple),
        round_up(longest, multiple),
        reference=bool(settings.reference_weight),
        top_entropy=settings.by_entropy,
    )


def _optimizer(settings: RLSettings) -> optax.GradientTransformation:
    how, total, rate = settings.optimizer, settings.updates(), settings.ppo.head_rate
    if rate == 1.0:
        return optimizer.make(how, total)
    return optimizer.make_with_head(how, total, "value_head", rate)


def _step_scorer(run: Run, reference: str) -> ProcessScorer | None:
    """The reward model, loaded; None without one.

    Raises:
        ConfigError: it was trained with another system message than the policy's prompts have.
    """
    if not reference:
        return None
    scorer = process_scorer.load(run, reference)
    _refuse_other_message(run, reference, scorer.about.system_prompt)
    return scorer


def _refuse_other_message(run: Run, reference: str, theirs: str | None) -> None:
    ours = run.config.data.chat.system_prompt
    if theirs not in (None, ours):
        raise ConfigError(
            f"{reference} was trained with the system message {theirs!r}",
            wanted=f"{ours!r}, that of the policy's prompts, which it is given",
            fix="set data.chat.system_prompt to the reward model's",
        )


def _save_hook(rewards: RewardSettings, directory: Path) -> loop.SaveFn:
    """Writes `training_stats.json` and, if adaptive, `adaptive_weights_step_N.json` at saves."""

    def write(step: int, state: TrainState, figures: Mapping[str, Any]) -> None:
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
        write_json(directory / f"adaptive_weights_step_{step}.json", content)

    return write


KIND = register(
    Kind(
        RLSettings,
        _run,
        check=_check,
        prepare=_prepare,
        forecast=Job.reinforcement,
        programs=Programs.reinforcement,
        panels=panels.REINFORCEMENT,
    )
)
