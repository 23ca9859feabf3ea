"""The compiled programs of a step of stage rl, and the lengths that its batches are padded to."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from distill_jax.core import sharding
from distill_jax.data.padding import PaddedLengths
from distill_jax.models.qwen import QwenModel
from distill_jax.run.run import Run
from distill_jax.stages import batch_shapes, rl_prepare
from distill_jax.stages.exact_teacher import ExactTeacher
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.training import losses, replay
from distill_jax.training.algorithms import ALGORITHMS
from distill_jax.training.batch import take_groups
from distill_jax.training.state import TrainState
from distill_jax.training.step import make_update

Program = Callable[..., Any]


class StepPrograms(NamedTuple):
    """What a step calls, in this order.

    Attributes:
        score, reference: `losses.policy_scorer`, of the policy before the update and of the
            reference.
        prepare: `rl_prepare.prepare`.
        replay: `replay.mix`.
        take: `take_groups`, of a minibatch.
        update: see `make_update`.
    """

    score: Program
    reference: Program
    prepare: Program
    replay: Program
    take: Program
    update: Program


def lengths(run: Run, settings: RLSettings) -> tuple[PaddedLengths, ...]:
    """What the batches of the stage are padded to; (): each to its own."""
    return batch_shapes.of_drawn(
        run,
        run.data.problems("train").prompts,
        multiple=settings.batch_multiple,
        limit=settings.drawn_lengths,
        separate=settings.shares_prompts(sharding.batch_shards(run.mesh)),
    )


def make(
    run: Run,
    settings: RLSettings,
    model: QwenModel,
    tx: Any,
    shardings: TrainState,
    *,
    chosen: Sequence[PaddedLengths],
    exact: ExactTeacher | None,
) -> StepPrograms:
    """The programs; those that depend on lengths are compiled ahead for all that are chosen.

    Args:
        run: mesh, sampling settings.
        settings: of the stage.
        model: the student.
        tx, shardings: optimiser; of the train state.
        chosen: from `lengths`.
        exact: its distributions are in the loss; None but with credit=exact.
    """
    ahead = functools.partial(
        batch_shapes.compiled_ahead, run, columns=batch_shapes.drawn_columns(run)
    )
    rows, whole = sharding.batch_sharding(run.mesh), sharding.replicated(run.mesh)
    sampling, vocab = run.config.sampling, run.data.vocab
    # --- what an algorithm needs of the policy before the update, and of the reference ---
    algorithm = ALGORITHMS[settings.algorithm]
    algorithm_settings = settings.of_algorithm(sampling.max_new_tokens)
    score = functools.partial(
        losses.policy_scorer, rows, model, temperature=sampling.temperature, vocab=vocab
    )
    old = score(values=algorithm.uses_values, entropy=settings.by_entropy)
    reference = score(values=False, entropy=False)
    # --- rewards and advantages ---
    # The reward state is part of the train state: with another sharding the update would compile
    # again.
    prepare = rl_prepare.program(
        rows, whole, rewards=settings.rewards, bonus=settings.process,
        algorithm=algorithm, settings=algorithm_settings,
        samples=settings.samples_per_prompt, max_new_tokens=sampling.max_new_tokens,
    )  # fmt: skip
    mix = replay.program(
        rows, whole, samples=settings.samples_per_prompt, max_age=settings.replay.max_age
    )
    # --- updates ---
    take = jax.jit(functools.partial(take_groups, count=settings.drawn_parts), out_shardings=rows)
    objective = losses.policy if exact is None else exact.objective
    loss, totals = objective(
        model, algorithm, algorithm_settings, temperature=sampling.temperature, vocab=vocab
    )
    update = make_update(loss, totals, tx, run.mesh, shardings, accumulate=settings.accumulate)
    # Rows behind the teacher's own prompts have other lengths.
    trained = () if exact is not None and exact.rereads else chosen
    return StepPrograms(
        score=ahead(old, chosen, name="scores before the update"),
        reference=ahead(reference, chosen, name="scores of the reference"),
        prepare=ahead(prepare, chosen, name="rewards", fixed=1),
        replay=ahead(mix, chosen, name="replay", fixed=1),
        take=ahead(take, trained, name="minibatches", fixed=0),
        update=ahead(update, trained),
    )
