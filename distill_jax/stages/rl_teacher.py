"""The teacher of stage rl: scorer, in length buckets and with a cache of scores where set."""

import hashlib

from distill_jax.rewards import length_buckets
from distill_jax.rewards.cached_teacher import CachedTeacher, fingerprint
from distill_jax.rewards.length_buckets import BucketedTeacher, Scorer
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.stages.context import Context


def make(context: Context) -> Scorer | CachedTeacher | None:
    """The scorer; None where the intrinsic reward has no weight."""
    settings = context.config.rl
    if not settings.rewards.intrinsic_weight:
        return None
    loaded = context.load("teacher")
    scorer: Scorer = TeacherScorer(
        loaded.model,
        loaded.params,
        context.mesh,
        alpha=settings.rewards.alpha,
        vocab=context.vocab,
    )
    if settings.buckets.lengths > 1:
        sampling, data = context.config.sampling, context.config.data
        longest = data.max_prompt_tokens + sampling.max_new_tokens
        scorer = BucketedTeacher(
            scorer,
            context.mesh,
            sizes=length_buckets.lengths(settings.buckets, longest, settings.batch_multiple),
            rows=settings.buckets.rows,
            response=sampling.max_new_tokens,
        )
    return cached(context, scorer, settings.cache)


def cached(context: Context, scorer: Scorer, settings: CacheSettings) -> Scorer | CachedTeacher:
    """The scorer of the run's teacher, behind a cache where one is set."""
    if not settings.megabytes:
        return scorer
    tokenizer = context.tokenizer.backend_tokenizer.to_str().encode()
    return CachedTeacher(
        scorer,
        context.mesh,
        settings,
        model=f"{fingerprint(context.model_path('teacher'))} {context.config.teacher.quantise}",
        tokenizer=hashlib.blake2b(tokenizer, digest_size=16).hexdigest(),
        warn=context.say,
    )
