"""Metrics of an rl step, under TRL's names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.core import sharding
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.rollout import rounds
from distill_jax.rollout.completions import student_mass
from distill_jax.rollout.groups import Drawn
from distill_jax.tasks import Judged


def of_rollout(host: RolloutBatch, judged: Judged, samples: int) -> dict[str, float]:
    """Lengths, endings and verdicts of a step's completions; samples: of each problem."""
    length_B, ended_B = host.response_mask_BR.sum(axis=1).astype(np.int32), host.ended_B
    ended = length_B[ended_B]
    right_PG = judged.right_B.reshape(-1, samples)
    return {
        "completions/mean_length": float(length_B.mean()),
        "completions/min_length": float(length_B.min()),
        "completions/max_length": float(length_B.max()),
        "completions/clipped_ratio": float(1.0 - ended_B.mean()),
        "completions/mean_terminated_length": float(ended.mean()) if len(ended) else 0.0,
        "student/mass": student_mass(host.behaviour_logp_BR, host.response_mask_BR),
        "rewards/correctness/undecided": float(judged.undecided_B.mean()),
        "accuracy": float(judged.right_B.mean()),
        # Groups from which correctness alone learns nothing.
        "frac_groups_all_right": float(right_PG.all(axis=1).mean()),
        "frac_groups_all_wrong": float((~right_PG).all(axis=1).mean()),
        "step_tokens": int(host.prompt_len_B.sum() + host.response_len_B.sum()),
        "step_response_tokens": int(host.response_len_B.sum()),
    }


def of_draws(draws: Sequence[Drawn]) -> dict[str, int]:
    """Tokens of all that a step has drawn, trained on or not: see `rounds.counts`."""
    return rounds.counts((one.prompts, one.rollout) for one in draws)


def mean_of(seen: list[dict[str, Any]]) -> dict[str, Any]:
    """A step's metrics from those of its updates: means, and the extremes of extremes."""
    seen, out = sharding.fetch(seen), {}
    for name in seen[0]:
        values = np.stack([m[name] for m in seen])
        if name.endswith("max"):
            out[name] = values.max()
        elif name.endswith("min"):
            out[name] = values.min()
        else:
            out[name] = values.sum() if name == "skipped" else values.mean()
    return out
