"""Rows of exported answers: one a problem, with its answer or the reason why there is none."""

from fractions import Fraction
from typing import Any, NamedTuple

from distill_jax import answers
from distill_jax.answers.check import final_answer
from distill_jax.answers.numbers import parse_number
from distill_jax.data.problem import Problem

# Integers above are not exact in readers that hold numbers as doubles.
_EXACT = 2**53


class Answer(NamedTuple):
    """An answer to a problem: text without special tokens; token ids, EOS included; whether it
    ended by itself; verdict (right, wrong or undecided); at the place of each token the most
    probable tokens and their probabilities, None where not asked for.
    """

    text: str
    tokens: list[int]
    ended: bool
    verdict: str
    top_ids: list[list[int]] | None = None
    top_probs: list[list[float]] | None = None


def row(
    index: int, problem: Problem, prompt: str | None, answer: Answer | None, error: str | None
) -> dict[str, Any]:
    """All columns of a row, JSON-able.

    Args:
        index: of the problem in its split, from 0.
        problem: the problem.
        prompt: the text put to the model, chat format included; None where it has none.
        answer: None leaves the columns of the answer empty.
        error: why there is no answer, one line; else None.

    Returns:
        ground_truth is the worked solution, or the gold answer without one; ground_truth_num the
        number of the gold answer, or None; `right` is false for the verdict "undecided" too.
    """
    gold = final_answer(problem.answer)
    found = answers.extract(answer.text) if answer else None
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
        "answer_text": found.text if found else None,
        "answer_num": number(found.text) if found else None,
        "right": answer.verdict == "right" if answer else None,
        "verdict": answer.verdict if answer else None,
        "ended": answer.ended if answer else None,
        "response_ids": answer.tokens if answer else None,
        "top_ids": answer.top_ids if answer else None,
        "top_probs": answer.top_probs if answer else None,
        "error": error,
    }


def number(text: str) -> int | float | None:
    """The number that an answer writes, as JSON has numbers: "$1,000" is 1000, "1/2" is 0.5.

    None where it writes none, or one beyond a double. Units are left out: "25%" is 25.
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
