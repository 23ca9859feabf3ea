"""Rows of exported answers, one a problem, and the most probable tokens at each place of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp

from distill_jax.answers.check import final_answer
from distill_jax.answers.numbers import parse_number
from distill_jax.core import sharding
from distill_jax.core.batching import filled, round_up
from distill_jax.data.problem import Problem
from distill_jax.rewards.top_k import TopKScorer
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.sampler import Rollout

# Integers above are not exact in readers that hold numbers as doubles.
_EXACT = 2**53
# Responses in a batch: their activations stay small compared with the weights.
ROWS = 16


class Answer(NamedTuple):
    """An answer: text without special tokens; token ids, EOS included; whether it ended by itself;
    verdict (right, wrong or undecided); the final answer that it gives, or None; the most probable
    tokens at each place and their probabilities, None where not asked for; the outputs among the
    tokens, as `completions.Output`, None where completions have one turn."""

    text: str
    tokens: list[int]
    ended: bool
    verdict: str
    stated: str | None = None
    top_ids: list[list[int]] | None = None
    top_probs: list[list[float]] | None = None
    outputs: list[list[Any]] | None = None


def row(
    index: int, problem: Problem, prompt: str | None, answer: Answer | None, error: str | None
) -> dict[str, Any]:
    """All columns of a row, JSON-able; `right` is false for the verdict "undecided" too.

    Args:
        index: of the problem in its split, from 0.
        problem: its worked solution, else its gold answer, is ground_truth.
        prompt: the text put to the model, chat format included; None where it has none.
        answer: None leaves the columns of the answer empty.
        error: why there is no answer, one line; else None.
    """
    gold = final_answer(problem.answer)
    stated = answer.stated if answer else None
    between = {"outputs": answer.outputs} if answer and answer.outputs is not None else {}
    return {
        "index": index,
        "id": problem.id,
        "level": problem.level,
        "question": problem.question,
        "prompt": prompt,
        "ground_truth": problem.solution or problem.answer,
        "ground_truth_text": gold,
        "ground_truth_num": number(gold),
        "response": answer.text if answer else None,
        "answer_text": stated,
        "answer_num": None if stated is None else number(stated),
        "right": answer.verdict == "right" if answer else None,
        "verdict": answer.verdict if answer else None,
        "ended": answer.ended if answer else None,
        "response_ids": answer.tokens if answer else None,
        **between,
        "top_ids": answer.top_ids if answer else None,
        "top_probs": answer.top_probs if answer else None,
        "error": error,
    }


def number(text: str) -> int | float | None:
    """The number that an answer writes, as JSON has numbers: "$1,000" is 1000, "1/2" is 0.5.

    None where it writes none, or one beyond a double. Units are ignored: "25%" is 25.
    """
    found = parse_number(text)
    if found is None:
        return None
    value: Fraction = found.value
    if value.denominator == 1 and abs(value) <= _EXACT:
        return int(value)
    try:
        return float(value)
    except OverflowError:
        return None


@dataclass(eq=False)
class TopTokens:
    """Reads responses teacher-forced; probabilities at temperature 1 over the tokens that exist.

    Attributes:
        scorer: of the model, at temperature 1.
        pad_id: fills rows behind the response.
        multiple: lengths are rounded up to multiples of it, to limit the compiled programs.
    """

    scorer: TopKScorer
    pad_id: int
    multiple: int

    def __post_init__(self) -> None:
        self._batch_rows = round_up(ROWS, sharding.batch_shards(self.scorer.mesh))

    def read(self, prompts: Sequence[Sequence[int]], rollout: Rollout) -> dict[str, list[Any]]:
        """Columns top_ids and top_probs of the responses, one a prompt: for each of a response's
        tokens K numbers, descending, given the tokens before it; probabilities to 6 digits."""
        out: dict[str, list[Any]] = {"top_ids": [], "top_probs": []}
        for start in range(0, len(prompts), self._batch_rows):
            count = min(self._batch_rows, len(prompts) - start)
            chosen = filled(range(start, start + count), self._batch_rows)
            part = Rollout(*(leaf[chosen] for leaf in rollout))
            batch = training_batch(
                [prompts[i] for i in chosen], part, 1, pad_id=self.pad_id, multiple=self.multiple
            )
            top = self.scorer.score(batch.to_score())
            ids_BRK, probs_BRK = sharding.fetch((top.ids_XK, jnp.exp(top.logp_XK)))
            for ids_RK, probs_RK, n in zip(ids_BRK, probs_BRK, part.length_B[:count], strict=False):
                out["top_ids"].append(ids_RK[:n].tolist())
                shown = [[float(f"{p:.6g}") for p in probs] for probs in probs_RK[:n].tolist()]
                out["top_probs"].append(shown)
        return out
