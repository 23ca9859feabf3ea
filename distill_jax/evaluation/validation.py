"""Accuracy of a student in training on validation problems: the `eval/` metrics."""

from typing import Any

import numpy as np

from distill_jax.core import rng
from distill_jax.evaluation.runner import completions, greedily
from distill_jax.rollout.sampler import Sampler
from distill_jax.run.run import Run
from distill_jax.run.settings import TrainSettings


def greedy(run: Run, sampler: Sampler, weights: Any, settings: TrainSettings) -> dict[str, float]:
    """Greedy accuracy on the first problems of the validation split, lengths, share with EOS."""
    config, data = run.config, run.data.problems("validation")
    count = min(settings.eval_problems, len(data.prompts))
    tokens, lengths, ended = completions(
        sampler,
        weights,
        data.prompts[:count],
        greedily(config.sampling),
        key=rng.stream_key(rng.run_key(config.seed), "validation"),
        samples=1,
        batch=settings.eval_batch,
    )
    texts = [run.data.text(row[:n]) for row, n in zip(tokens, lengths, strict=True)]
    judged = run.data.task.judge(data.problems[:count], texts, ended)
    return {
        "eval/accuracy": float(np.mean(judged.right_B)),
        "eval/mean_length": float(np.mean(lengths)),
        "eval/terminated": float(np.mean(ended)),
    }
