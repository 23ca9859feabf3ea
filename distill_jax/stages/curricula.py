"""The curriculum of a stage, from its settings and its problems."""

from collections.abc import Sequence

from distill_jax.core import sharding
from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.data.problem import Problem
from distill_jax.stages.context import Context


def of(
    context: Context,
    stage: str,
    settings: CurriculumSettings,
    problems: Sequence[Problem],
    *,
    batch: int,
    steps: int,
    rounds: int = 1,
) -> Curriculum:
    """The curriculum of a stage over its training problems.

    Args:
        context: run-wide things.
        stage: that it belongs to.
        settings: of the curriculum.
        problems: draws are numbers into this list.
        batch: problems a draw.
        steps: of the stage.
        rounds: draws that a step may make.

    Raises:
        DataError: no problem is left, or the method has no levels to choose from.
    """

    made = Curriculum(
        settings,
        problems,
        seed=context.config.seed,
        batch=batch,
        steps=steps,
        rounds=rounds,
        out_shardings=sharding.replicated(context.mesh),
    )
    if made.note:  # checks make one too: say it once
        context.once((stage, made.note), lambda: context.say(f"{stage}: {made.note}"))
    return made


def of_rl(context: Context) -> Curriculum:
    """The curriculum of stage rl, made once: checks, the first state and the step share it."""
    rl = context.config.rl

    def make() -> Curriculum:
        return of(
            context,
            "rl",
            rl.curriculum,
            context.problems("train").problems,
            batch=rl.prompts_per_step,
            steps=rl.steps,
            rounds=rl.dynamic_sampling + 1,
        )

    return context.once("curriculum of rl", make)


def of_distill(context: Context, problems: Sequence[Problem]) -> Curriculum:
    """The curriculum of stage distill over the problems of its rows."""
    settings = context.config.distill
    size, steps = settings.batch_size, settings.steps
    return of(context, "distill", settings.curriculum, problems, batch=size, steps=steps)
