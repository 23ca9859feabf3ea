"""The curriculum of a stage, from its settings and its problems."""

from collections.abc import Sequence
from typing import Any

from distill_jax.core import sharding
from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.data.problem import Problem
from distill_jax.run.run import Run, Stage


def of(
    run: Run,
    stage: Stage[Any],
    settings: CurriculumSettings,
    problems: Sequence[Problem],
    *,
    batch: int,
    samples: int = 1,
    rounds: int = 1,
) -> Curriculum:
    """The curriculum of a stage over its training problems; arguments as of `Curriculum`.

    Raises:
        DataError: no problem is left, too few are for a draw, or the method has no levels to
            choose from.
    """
    made = Curriculum(
        settings,
        problems,
        seed=run.seed(stage),
        batch=batch,
        samples=samples,
        steps=stage.settings.steps,
        rounds=rounds,
        out_shardings=sharding.replicated(run.mesh),
    )
    if made.note:
        run.say(f"{stage.name}: {made.note}")
    return made
