"""How a student in training does on validation problems: the learning curves' `eval/` figures."""

from typing import Any

import numpy as np

from distill_jax.core import rng
from distill_jax.evaluation.runner import completions
from distill_jax.rewards.correctness import correctness
from distill_jax.rollout.sampler import Sampler
from distill_jax.stages.context import Context


def greedy(context: Context, sampler: Sampler, weights: Any, problems: int) -> dict[str, float]:
    """Greedy accuracy on the first problems of the validation split, lengths, share with EOS."""
    config, data = context.config, context.problems("validation")
    count = min(problems, len(data.prompts))
    tokens, lengths, ended = completions(
        sampler,
        weights,
        data.prompts[:count],
        config.evaluate.greedy(config.sampling),
        key=rng.stream_key(rng.run_key(config.seed), "validation"),
        samples=1,
        batch=config.evaluate.batch,
    )
    texts = [context.text(row[:n]) for row, n in zip(tokens, lengths, strict=True)]
    gold = [p.answer for p in data.problems[:count]]
    judged = correctness(gold, texts, right=1.0, wrong=0.0)
    return {
        "eval/accuracy": float(np.mean(judged.right_B)),
        "eval/mean_length": float(np.mean(lengths)),
        "eval/terminated": float(np.mean(ended)),
    }
