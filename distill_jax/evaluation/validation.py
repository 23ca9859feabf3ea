"""Accuracy of a student in training on validation problems: the `eval/` metrics."""

from typing import Any

import numpy as np

from distill_jax.core import rng
from distill_jax.inference import generate
from distill_jax.rollout.sampler import Sampler
from distill_jax.run.run import Run
from distill_jax.run.settings import TrainSettings


def greedy(run: Run, sampler: Sampler, weights: Any, settings: TrainSettings) -> dict[str, float]:
    """Greedy accuracy on the first problems of the validation split, lengths, share with EOS."""
    config, data = run.config, run.data.problems("validation")
    count = min(settings.eval_problems, len(data.prompts))
    drawn = generate.answers(
        sampler,
        lambda: weights,
        data.prompts[:count],
        config.sampling.whole(0.0),
        key=rng.stream_key(rng.run_key(config.seed), "validation"),
        batch=settings.eval_batch,
    )
    texts = [run.data.text(row) for row in drawn.tokens]
    judged = run.data.task.judge(data.problems[:count], texts, drawn.ended_B)
    return {
        "eval/accuracy": float(np.mean(judged.right_B)),
        "eval/mean_length": float(np.mean(drawn.length_B)),
        "eval/terminated": float(np.mean(drawn.ended_B)),
    }
