"""The teacher of a stage: which model it is, and how it scores the stage's rollouts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core import digest, sharding
from distill_jax.data.batching import bucket_sizes
from distill_jax.data.problem import Problem
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.evaluation import subjects
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.length_buckets import BucketedTeacher, Scorer
from distill_jax.rewards.reprompted import with_prompts
from distill_jax.rewards.teacher import TeacherScorer, TeacherScores
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import teacher_prompts
from distill_jax.stages.settings import DistillSettings, RLSettings
from distill_jax.stages.teacher_prompts import TeacherPrompts
from distill_jax.stages.teacher_settings import StageTeacherSettings


class Teacher:
    """Scores the responses of a rollout, each after its prompt.

    Args:
        run: mesh, padding.
        scorer: of tokens, with or without a cache.
        prompts: of the teacher's own; None: it reads the student's.
        multiple: rows behind its own prompts are padded to a multiple of it.
    """

    def __init__(
        self,
        run: Run,
        scorer: Scorer | CachedTeacher,
        prompts: TeacherPrompts | None = None,
        *,
        multiple: int = 1,
    ):
        self._run, self.scorer, self._prompts, self._multiple = run, scorer, prompts, multiple

    def launch(
        self, batch: RolloutBatch, problems: Sequence[Problem]
    ) -> Callable[[], TeacherScores]:
        """Begins to score a batch on the mesh; what is returned waits for the scores.

        problems: of each row.
        """
        read = batch.to_score()
        if self._prompts is not None:
            read = reread(self._run, read, self._prompts.of(problems), self._multiple)
            read = sharding.place(read, sharding.batch_sharding(self._run.mesh))
        scores = self.scorer.score(read)
        return lambda: scores

    def metrics(self) -> dict[str, float]:
        """Of the cache, where there is one."""
        return self.scorer.metrics() if isinstance(self.scorer, CachedTeacher) else {}

    def close(self) -> None:
        """Closes the cache."""
        if isinstance(self.scorer, CachedTeacher):
            self.scorer.close()


def of_stage(
    run: Run, stage: Stage[RLSettings], start: Loaded, *, trained: Sequence[str] = ()
) -> Teacher | None:
    """The teacher of a stage rl; None where the intrinsic reward has no weight.

    start: the student that the stage starts from; trained: see `load`.
    """
    if not stage.settings.rewards.intrinsic_weight:
        return None
    made = scorer(run, stage.settings, start, trained=trained)
    multiple = stage.settings.batch_multiple
    prompts = teacher_prompts.make(run, stage.settings.teacher)
    return Teacher(run, made, prompts, multiple=multiple)


def reread(
    run: Run, batch: Mapping[str, Any], prompts: Sequence[Sequence[int]], multiple: int
) -> dict[str, np.ndarray]:
    """The rows on the host as the teacher reads them, behind prompts of its own."""
    host = {name: np.asarray(x) for name, x in sharding.fetch(dict(batch)).items()}
    return with_prompts(host, prompts, pad_id=run.data.pad_id, multiple=multiple)


def load(
    run: Run, settings: StageTeacherSettings, start: Loaded, *, trained: Sequence[str] = ()
) -> Loaded:
    """The teacher with its weights on the mesh.

    Of source=start it shares the arrays of the start; `trained` names its parts, base or lora,
    that updates take away: those are copied.
    """
    if settings.is_model:
        return run.models.load("teacher")
    copies = {name: jax.tree.map(jnp.copy, start.params[name]) for name in trained}
    return Loaded(start.model, {**start.params, **copies})


def scorer(
    run: Run, settings: RLSettings, start: Loaded, *, trained: Sequence[str] = ()
) -> Scorer | CachedTeacher:
    """The teacher's Q and V of each token: in length buckets and with a cache where set."""
    loaded = load(run, settings.teacher, start, trained=trained)
    made: Scorer = TeacherScorer(
        loaded.model, loaded.params, run.mesh, alpha=settings.rewards.alpha, vocab=run.data.vocab
    )
    if settings.buckets.lengths > 1:
        sampling = run.config.sampling
        longest = settings.teacher.longest_prompt(run.config) + sampling.response_tokens
        made = BucketedTeacher(
            made,
            run.mesh,
            sizes=bucket_sizes(
                longest, count=settings.buckets.lengths, multiple=settings.batch_multiple
            ),
            rows=settings.buckets.rows,
            response=sampling.response_tokens,
        )
    return cached(run, settings, made)


def cached(
    run: Run, settings: RLSettings | DistillSettings, made: Scorer
) -> Scorer | CachedTeacher:
    """The scorer behind a cache, where one is set."""
    if not settings.cache.megabytes:
        return made
    weights = " ".join(digests(run, settings).values())
    if settings.teacher.is_model:
        weights = f"{weights} {run.config.teacher.quantise}"
    return CachedTeacher(
        made,
        run.mesh,
        settings.cache,
        model=weights,
        tokenizer=digest.of(run.data.tokenizer.backend_tokenizer.to_str()),
        warn=run.say,
    )


def digests(run: Run, settings: Any) -> dict[str, str]:
    """Digests of the weights of the teacher of a stage of kind rl or distill, by part."""
    if settings.teacher.is_model:
        return subjects.teacher(run).weights
    return run.student_digests(run.student(settings.start))
