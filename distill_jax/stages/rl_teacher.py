"""The teacher of stage rl: scorer, and a cache of its scores where one is set."""

import hashlib

from distill_jax.rewards.cached_teacher import CachedTeacher, fingerprint
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.stages.context import Context


def make(context: Context) -> TeacherScorer | CachedTeacher | None:
    """The scorer; None where the intrinsic reward has no weight."""
    settings = context.config.rl
    if not settings.rewards.intrinsic_weight:
        return None
    loaded = context.load("teacher")
    scorer = TeacherScorer(
        loaded.model,
        loaded.params,
        context.mesh,
        alpha=settings.rewards.alpha,
        vocab=context.vocab,
    )
    if not settings.cache.megabytes:
        return scorer
    tokenizer = context.tokenizer.backend_tokenizer.to_str().encode()
    return CachedTeacher(
        scorer,
        context.mesh,
        settings.cache,
        model=fingerprint(context.model_path("teacher")),
        tokenizer=hashlib.blake2b(tokenizer, digest_size=16).hexdigest(),
        warn=context.say,
    )
