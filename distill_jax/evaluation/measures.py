"""What is measured of a model's completions beside their accuracy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.data.problem import Problem
from distill_jax.evaluation import hacking, passk, reasoning
from distill_jax.reasoning import quality


def measures(
    problems: Sequence[Problem],
    texts: Sequence[str],
    tokens: Sequence[list[int]],
    ended_B: np.ndarray,
    right_PG: np.ndarray,
) -> dict[str, Any]:
    """Reasoning quality and signs of reward hacking; with several samples pass@k and maj@k too.

    Args:
        problems: P.
        texts: B = P·G completions, prompt-major.
        tokens: their token ids, EOS included.
        ended_B: whether each ended by itself.
        right_PG: what the answer check said, bool.

    Returns:
        JSON-able {"reasoning", "hacking"} and, of several samples, {"pass@k", "maj@k"}: k -> an
        estimate, for k = 1, 2, 4, … and G.
    """
    samples = right_PG.shape[1]
    repeated = [problem for problem in problems for _ in range(samples)]
    found = [quality.reasoning(p.solution, text) for p, text in zip(repeated, texts, strict=True)]
    out: dict[str, Any] = {
        "reasoning": reasoning.summary(found, [problem.id for problem in repeated]),
        "hacking": hacking.indicators(
            texts, tokens, ended_B.tolist(), right_PG.reshape(-1).astype(float).tolist()
        ),
    }
    if samples > 1:
        stated = [passk.extracted(text) for text in texts]
        stated_PG = [stated[i : i + samples] for i in range(0, len(stated), samples)]
        drawn_P, right_P = np.full(len(problems), samples), right_PG.sum(axis=1)
        budgets = budgets_of(samples)
        out["pass@k"] = {str(k): passk.pass_at_k(drawn_P, right_P, k)._asdict() for k in budgets}
        out["maj@k"] = {
            str(k): passk.maj_at_k(stated_PG, right_PG.tolist(), k)._asdict() for k in budgets
        }
    return out


def budgets_of(samples: int) -> list[int]:
    """1, 2, 4, … up to the samples, and the samples themselves."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    return sorted({*powers, samples})
