"""The run's teacher as a scorer: in length buckets and with a cache of scores where set."""

from distill_jax.core import digest
from distill_jax.data.batching import bucket_sizes
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.length_buckets import BucketedTeacher, Scorer
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.run.run import Run
from distill_jax.stages.settings import RLSettings


def scorer(run: Run, settings: RLSettings) -> Scorer | CachedTeacher | None:
    """The teacher's Q and V of each token; None where the intrinsic reward has no weight."""
    if not settings.rewards.intrinsic_weight:
        return None
    loaded = run.models.load("teacher")
    made: Scorer = TeacherScorer(
        loaded.model, loaded.params, run.mesh, alpha=settings.rewards.alpha, vocab=run.data.vocab
    )
    if settings.buckets.lengths > 1:
        sampling, data = run.config.sampling, run.config.data
        longest = data.max_prompt_tokens + sampling.response_tokens
        made = BucketedTeacher(
            made,
            run.mesh,
            sizes=bucket_sizes(
                longest, count=settings.buckets.lengths, multiple=settings.batch_multiple
            ),
            rows=settings.buckets.rows,
            response=sampling.response_tokens,
        )
    return cached(run, made, settings.cache)


def cached(run: Run, made: Scorer, settings: CacheSettings) -> Scorer | CachedTeacher:
    """The scorer behind a cache, where one is set."""
    if not settings.megabytes:
        return made
    return CachedTeacher(
        made,
        run.mesh,
        settings,
        model=f"{run.digest(run.models.path('teacher'))} {run.config.teacher.quantise}",
        tokenizer=digest.of(run.data.tokenizer.backend_tokenizer.to_str()),
        warn=run.say,
    )
