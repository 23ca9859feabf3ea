"""Rows with a chosen and a rejected completion of one prompt, given or made of solutions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.errors import DataError
from distill_jax.data import trace_rows
from distill_jax.data.rows import read_rows
from distill_jax.data.trace_rows import Trace

# Of traces: right over wrong, or the shortest right one over longer right ones.
PREFER = ("right", "short")
_ROW = "{prompt, chosen, rejected} of texts or of messages, or a row of stage traces"


class Completion(NamedTuple):
    """A completion: token ids as they were drawn, EOS included, or None; its text."""

    text: str
    tokens: list[int] | None = None


class Pair(NamedTuple):
    """Two completions of one question; `where` names the row, for errors."""

    where: str
    question: str
    chosen: Completion
    rejected: Completion


def read(file: Path) -> list[Pair] | list[Trace]:
    """The rows of a file, all of one form; further columns are ignored.

    Traces are those of stage traces. Pairs are TRL's: {prompt, chosen, rejected} of texts, or of
    lists of messages, where the prompt is one user's turn and each completion one assistant's;
    without `prompt` it is what the lists of `chosen` and `rejected` have in common. System messages
    are dropped: the run has its own.

    Raises:
        DataError: of the file; or a column is missing or of another type (file, line).
    """
    _, first = next(iter(read_rows(file)))
    if "tokens" in first and "chosen" not in first:
        return trace_rows.read(file)
    return [_pair(row, where) for where, row in read_rows(file)]


def of_traces(
    traces: Sequence[Trace],
    *,
    prefer: str = "right",
    per_problem: int = 2,
    length_ratio: float = 1.3,
    seed: int = 0,
) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of two completions of one problem, and what became of the others.

    Undecided completions and those without EOS are in no pair; of equal ones the first counts.

    Args:
        traces: of many problems, each known by its question.
        prefer: "right": chosen is a right completion, rejected a wrong one, none twice before all
            of its verdict were in a pair, in an order that the seed draws. "short": chosen is the
            shortest right completion, rejected another right one.
        per_problem: most pairs of a problem.
        length_ratio: with prefer="short", the rejected has at least this times the chosen's tokens.
        seed: of the order.

    Returns:
        The pairs, and {"rows", "undecided", "truncated", "problems", "problems_without_pair"};
        truncated are completions without EOS.
    """
    of_problem: dict[str, list[Trace]] = {}
    for one in traces:
        of_problem.setdefault(one.question, []).append(one)
    out: list[Pair] = []
    without = 0
    for number, found in enumerate(of_problem.values()):
        usable: dict[tuple[int, ...], Trace] = {}
        for one in found:
            if one.ended and not one.undecided:
                usable.setdefault(tuple(one.tokens), one)
        right = [s for s in usable.values() if s.right]
        if prefer == "short":
            twos = _short_over_long(right, length_ratio)
        else:
            wrong = [s for s in usable.values() if not s.right]
            twos = _right_over_wrong(right, wrong, [seed, number])
        out += [_of_two(*two) for two in twos[:per_problem]]
        without += not twos
    return out, {
        "rows": len(traces),
        "undecided": sum(s.undecided for s in traces),
        "truncated": sum(not s.ended for s in traces),
        "problems": len(of_problem),
        "problems_without_pair": without,
    }


def _short_over_long(right: list[Trace], ratio: float) -> list[tuple[Trace, Trace]]:
    """The longest first: they differ most from the chosen."""
    if not right:
        return []
    shortest, *others = sorted(right, key=lambda s: len(s.tokens))
    least = ratio * len(shortest.tokens)
    return [(shortest, s) for s in reversed(others) if len(s.tokens) >= least]


def _right_over_wrong(
    right: list[Trace], wrong: list[Trace], seed: list[int]
) -> list[tuple[Trace, Trace]]:
    if not right or not wrong:
        return []
    draw = np.random.default_rng(seed)
    first, second = draw.permutation(len(right)), draw.permutation(len(wrong))
    count = max(len(right), len(wrong))
    return [(right[first[i % len(right)]], wrong[second[i % len(wrong)]]) for i in range(count)]


def _of_two(chosen: Trace, rejected: Trace) -> Pair:
    sides = (Completion(s.completion, s.tokens) for s in (chosen, rejected))
    return Pair(f"problem {chosen.id}", chosen.question, *sides)


def _pair(row: Mapping[str, Any], where: str) -> Pair:
    if "chosen" not in row or "rejected" not in row:
        raise DataError(
            f"{where}: columns {', '.join(row) or 'none'}",
            wanted=_ROW,
            fix="rename or add the columns",
        )
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return Pair(where, _asked(prompt, where), Completion(chosen), Completion(rejected))
    sides = [_turns(chosen, where, "chosen"), _turns(rejected, where, "rejected")]
    if prompt is None:
        most = min(map(len, sides)) - 1
        same = [a == b for a, b in zip(*sides, strict=False)][:most]
        count = [*same, False].index(False)
        asked, sides = sides[0][:count], [side[count:] for side in sides]
    else:
        asked = _turns(prompt, where, "prompt")
    if [role for role, _ in asked] != ["user"]:
        raise DataError(f"{where}: a prompt of {len(asked)} turns", wanted="one user's turn")
    if any([role for role, _ in side] != ["assistant"] for side in sides):
        got = f"{where}: completions of {len(sides[0])} and {len(sides[1])} turns"
        raise DataError(got, wanted="one assistant's turn each, after the prompt")
    question = _asked(asked[0][1], where)
    return Pair(where, question, *(Completion(side[0][1]) for side in sides))


def _asked(question: str, where: str) -> str:
    if not question.strip():
        raise DataError(f"{where}: an empty prompt", wanted="a question")
    return question


def _turns(value: Any, where: str, column: str) -> list[tuple[str, str]]:
    """(role, content) of each message but the system's."""
    if not isinstance(value, list) or not all(isinstance(m, Mapping) for m in value):
        raise DataError(f"{where}: field {column} is {value!r:.60}", wanted=_ROW)
    turns = [(m.get("role"), m.get("content")) for m in value if m.get("role") != "system"]
    if not turns or not all(isinstance(part, str) for turn in turns for part in turn):
        raise DataError(f"{where}: field {column} is {value!r:.60}", wanted="{role, content} each")
    return turns
