"""Rows of solutions whose steps are labelled, of the published forms and of our own counts.

| form | columns |
| --- | --- |
| steps (TRL's stepwise supervision) | prompt, completions, labels |
| prm800k | question {problem}, label {steps [{completions [{text, rating}], chosen_completion}]} |
| math_shepherd | input with " ки" after each step, label with + or - in their place |
| process_bench | problem, steps, label: the first wrong step or -1; perhaps step_tokens |
| counts (stage step_labels) | question, steps, step_tokens, mc, root |

Rows of our own stages say in "step_split" where their steps end.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import DataError
from distill_jax.data.rows import read_rows

NEUTRAL = ("positive", "negative", "ignore")
COUNTS, PRM800K = "counts", "prm800k"
# TRL's mark of a step without a label.
_NO_LABEL = -100
_TAG = "ки"
_SIGNS = {"+": 1.0, "-": 0.0}
Labels = list[float | None]
# (counts of each step, those of the bare prompt) -> labels.
Derive = Callable[[Sequence[Mapping[str, int] | None], Mapping[str, int]], Labels]


class StepRow(NamedTuple):
    """A solution with labelled steps.

    Attributes:
        where: file and line, for errors.
        form: of the row, see the module.
        question: text put to the model.
        steps: texts, none blank.
        labels: P(right) in [0, 1] of each step; None: not labelled.
        tokens: token ids of each step where the row has them.
        right: whether the solution is, where the row says so.
        step_split: where its steps end, as the row says; see `reasoning.steps.SPLITS`.
    """

    where: str
    form: str
    question: str
    steps: list[str]
    labels: Labels
    tokens: list[list[int]] | None = None
    right: bool | None = None
    step_split: str | None = None

    @property
    def outcome(self) -> float | None:
        """Whether the solution is right: as the row says, else its last labelled step; or None."""
        if self.right is not None or self.form == COUNTS:
            return None if self.right is None else float(self.right)
        known = [y for y in self.labels if y is not None]
        return float(known[-1] >= 0.5) if known else None


def read(path: Path, *, neutral: str, derive: Derive) -> list[StepRow]:
    """The rows of a file, of any of the forms.

    Args:
        path: .jsonl, .json or .parquet.
        neutral: what PRM800K's rating 0 counts as, one of NEUTRAL.
        derive: labels of rows that hold counts.

    Raises:
        DataError: naming the line: a form or value that is not known, a blank step, as many labels
            as steps are not there.
    """
    rows = []
    for where, row in read_rows(path):
        for one in _parsed(row, where, neutral, derive):
            _check(one)
            rows.append(one._replace(step_split=row.get("step_split")))
    return rows


def _parsed(row: Mapping[str, Any], where: str, neutral: str, derive: Derive) -> Iterator[StepRow]:
    if {"mc", "root", "steps"} <= row.keys():
        yield _of_counts(row, where, derive)
    elif {"prompt", "completions", "labels"} <= row.keys():
        yield _of_steps(row, where)
    elif isinstance(row.get("label"), Mapping) and "question" in row:
        yield from _of_prm800k(row, where, neutral)
    elif {"input", "label"} <= row.keys():
        yield _of_math_shepherd(row, where)
    elif {"problem", "steps", "label"} <= row.keys():
        yield _of_process_bench(row, where)
    else:
        raise DataError(
            f"{where}: columns {', '.join(row) or 'none'}",
            wanted="prompt, completions and labels; or the columns of PRM800K, Math-Shepherd, "
            "ProcessBench or labelled steps (mc, root, steps)",
            fix="rename or add the columns",
        )


def _check(row: StepRow) -> None:
    if not isinstance(row.question, str) or not row.question.strip():
        raise DataError(f"{row.where}: the question is {row.question!r:.60}", wanted="a text")
    if not row.steps:
        raise DataError(f"{row.where}: no steps", wanted="at least one", fix="drop the row")
    for number, step in enumerate(row.steps):
        # Tokens may stand for what only Python's strip() calls blank, e.g. U+001C.
        if not isinstance(step, str) or not (step.strip() or row.tokens):
            got = f"{row.where}: step {number} is {step!r:.60}"
            raise DataError(got, wanted="a text that is not blank", fix="drop the step, or the row")
    if len(row.labels) != len(row.steps):
        got = f"{row.where}: {len(row.labels)} labels for {len(row.steps)} steps"
        raise DataError(got, wanted="a label for each, null where there is none")
    tokens = row.tokens
    if tokens is not None and (len(tokens) != len(row.steps) or not all(tokens)):
        got = f"{row.where}: step_tokens of {len(tokens)} steps, {sum(map(bool, tokens))} not empty"
        raise DataError(got, wanted=f"tokens of each of the {len(row.steps)} steps")


def _list(row: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = row.get(name)
    if not isinstance(value, list):
        raise DataError(f"{where}: {name} is {value!r:.60}", wanted="a list")
    return value


def _label(value: Any, where: str) -> float | None:
    """A bool, a number in [0, 1], or null or -100. A soft label is not cut to 0."""
    if value is None or (value == _NO_LABEL and not isinstance(value, bool)):
        return None
    number = isinstance(value, bool | int | float)
    if not number or not math.isfinite(value) or not 0 <= value <= 1:
        wanted = f"true, false, a number in [0, 1], null or {_NO_LABEL}"
        raise DataError(f"{where}: label {value!r:.60}", wanted=wanted)
    return float(value)


def _of_steps(row: Mapping[str, Any], where: str) -> StepRow:
    labels = [_label(value, where) for value in _list(row, "labels", where)]
    return StepRow(where, "steps", row["prompt"], _list(row, "completions", where), labels)


def _until_wrong(labels: Labels) -> Labels:
    """Steps after the first wrong one say nothing: whatever they are, they continue an error."""
    wrong = next((i for i, y in enumerate(labels) if y == 0.0), len(labels))
    return labels[: wrong + 1] + [None] * (len(labels) - wrong - 1)


def _of_process_bench(row: Mapping[str, Any], where: str) -> StepRow:
    steps, first = _list(row, "steps", where), row["label"]
    if isinstance(first, bool) or not isinstance(first, int) or not -1 <= first < len(steps):
        raise DataError(f"{where}: label {first!r:.60}", wanted=f"-1 to {len(steps) - 1}")
    labels = _until_wrong([float(i != first) for i in range(len(steps))])
    right = _verdict(row, "final_answer_correct", where)
    tokens = _list(row, "step_tokens", where) if "step_tokens" in row else None
    return StepRow(where, "process_bench", row["problem"], steps, labels, tokens, right)


def _of_math_shepherd(row: Mapping[str, Any], where: str) -> StepRow:
    """The label column is the input with a sign instead of each tag."""
    text, signs = row["input"], row["label"]
    wanted = f'steps "Step 1: ... {_TAG}", and label: the same text with + or - for each {_TAG}'
    if not isinstance(text, str) or not isinstance(signs, str):
        raise DataError(f"{where}: input or label is no text", wanted=wanted)
    *parts, rest = text.split(_TAG)
    labels, at = Labels(), 0
    for part in parts:
        sign = signs[at + len(part) : at + len(part) + 1]
        if not signs.startswith(part, at) or sign not in _SIGNS:
            raise DataError(f"{where}: input and label differ after {at} letters", wanted=wanted)
        labels.append(_SIGNS[sign])
        at += len(part) + 1
    begin = parts[0].find("Step 1") if parts else -1
    if begin < 0 or rest.strip():
        raise DataError(
            f"{where}: no step before the first {_TAG}, or none after it", wanted=wanted
        )
    steps = [parts[0][begin:].strip(), *(part.strip() for part in parts[1:])]
    return StepRow(where, "math_shepherd", parts[0][:begin].strip(), steps, labels)


def _of_prm800k(row: Mapping[str, Any], where: str, neutral: str) -> Iterator[StepRow]:
    """The chosen steps as one row, and a row for each other completion of a step.

    The label of a step counts once: in the other rows the steps before are not labelled.
    """
    try:
        question, chosen = row["question"]["problem"], list[str]()
        labels, others = Labels(), list[tuple[list[str], float | None]]()
        for step in row["label"]["steps"]:
            pick, tries = step["chosen_completion"], step["completions"] or []
            others += [
                ([*chosen, one["text"]], _rating(one["rating"], where, neutral))
                for number, one in enumerate(tries)
                if number != pick and 0.0 not in labels
            ]
            human = step.get("human_completion")
            if pick is None and not human:
                break
            taken = tries[pick] if pick is not None else human
            chosen.append(taken["text"])
            # A person's own step has no rating.
            labels.append(1.0 if pick is None else _rating(taken["rating"], where, neutral))
    except (KeyError, TypeError, IndexError) as error:
        wanted = "question.problem and label.steps, each with completions and chosen_completion"
        raise DataError(f"{where}: not a row of PRM800K: {error!r}", wanted=wanted) from error
    if chosen:
        yield StepRow(where, PRM800K, question, chosen, _until_wrong(labels))
    for steps, label in others:
        yield StepRow(where, PRM800K, question, steps, [*[None] * (len(steps) - 1), label])


def _rating(rating: Any, where: str, neutral: str) -> float | None:
    known = {1: 1.0, -1: 0.0, None: None}
    known[0] = {"positive": 1.0, "negative": 0.0, "ignore": None}[neutral]
    if isinstance(rating, bool) or rating not in known:
        raise DataError(f"{where}: rating {rating!r:.60}", wanted="-1, 0, 1 or null")
    return known[rating]


def _of_counts(row: Mapping[str, Any], where: str, derive: Derive) -> StepRow:
    steps, mc = _list(row, "steps", where), _list(row, "mc", where)
    for one in (*mc, row["root"]):
        names = ("right", "wrong", "undecided")
        counts = [one.get(name) for name in names] if isinstance(one, Mapping) else [None]
        if one is None and one is not row["root"]:
            continue
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in counts):
            raise DataError(f"{where}: counts {one!r:.80}", wanted=f"whole {', '.join(names)}")
    tokens = _list(row, "step_tokens", where)
    right = _verdict(row, "trace_right", where)
    if mc and mc[-1] and mc[-1]["undecided"] and not right:
        right = None  # stage step_labels writes false for undecided, too
    labels = derive(mc, row["root"])
    return StepRow(where, COUNTS, row.get("question", ""), steps, labels, tokens, right)


def _verdict(row: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"{where}: {name} is {value!r:.60}", wanted="true, false or null")
    return value
