"""Rows of exported answers: one a problem, its answer or the reason why there is none."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from distill_jax import answers
from distill_jax.answers.check import final_answer
from distill_jax.answers.numbers import parse_number
from distill_jax.data.problem import Problem
from distill_jax.evaluation.top_tokens import TopOfResponse

# Integers above are not exact in readers that hold numbers as doubles.
_EXACT = 2**53
_DIGITS = 6


def unanswered(
    index: int, problem: Problem, prompt: str | None, error: str | None
) -> dict[str, Any]:
    """A row without an answer: all columns, `error` saying why.

    Args:
        index: of the problem in its split, from 0.
        problem: the problem.
        prompt: the text put to the model, chat format included; None where it has none.
        error: one line; None in a row that is still to be answered.

    Returns:
        JSON-able. ground_truth is the worked solution, or the gold answer where there is none;
        ground_truth_text the gold answer; ground_truth_num its number, or None.
    """
    gold = final_answer(problem.answer)
    return {
        "index": index,
        "id": problem.id,
        "level": problem.level,
        "question": problem.question,
        "prompt": prompt,
        "ground_truth": problem.solution or problem.answer,
        "ground_truth_text": gold,
        "ground_truth_num": number(gold),
        "response": None,
        "answer_text": None,
        "answer_num": None,
        "right": None,
        "verdict": None,
        "ended": None,
        "response_ids": None,
        "top_ids": None,
        "top_probs": None,
        "error": error,
    }


def answered(
    rows: Sequence[dict[str, Any]],
    texts: Sequence[str],
    tokens: Sequence[Sequence[int]],
    ended: Sequence[bool],
    tops: Sequence[TopOfResponse] | None,
) -> list[dict[str, Any]]:
    """The rows with their answers.

    Args:
        rows: of `unanswered`, B of them.
        texts: B responses without special tokens.
        tokens: B responses' token ids, EOS included.
        ended: whether each ended by itself.
        tops: B; None leaves top_ids and top_probs empty.

    Returns:
        `right` is true, or false where the verdict is "wrong" or "undecided". top_ids and
        top_probs have a list for each response token: the most probable tokens at that place,
        and their probabilities to 6 digits.
    """
    golds = [row["ground_truth_text"] for row in rows]
    out = []
    for i, verdict in enumerate(answers.check_batch(golds, list(texts))):
        found = answers.extract(texts[i])
        made: dict[str, Any] = {
            "response": texts[i],
            "answer_text": found.text if found else None,
            "answer_num": number(found.text) if found else None,
            "right": verdict.verdict == "right",
            "verdict": verdict.verdict,
            "ended": bool(ended[i]),
            "response_ids": [int(token) for token in tokens[i]],
        }
        if tops is not None:
            made["top_ids"] = tops[i].ids_NK.tolist()
            made["top_probs"] = [
                [float(f"{p:.{_DIGITS}g}") for p in probs] for probs in tops[i].probs_NK.tolist()
            ]
        out.append({**rows[i], **made})
    return out


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
