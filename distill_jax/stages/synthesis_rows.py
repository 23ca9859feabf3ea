"""The rows of stage synthesis: every solution as a trace, and the verified ones."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from distill_jax.core.text import encodable
from distill_jax.data.tokenizer import eos_id
from distill_jax.data.trace_rows import Trace
from distill_jax.run.run import Run
from distill_jax.stages.synthesis_check import AGREEMENT, Checked, Written
from distill_jax.synthesis import failures

# Of a row whose text would open or end a turn of the chat.
SPECIAL = "special_token"


def without_specials(run: Run, written: Sequence[Written]) -> list[Written]:
    """The answers, those that hold a special token of the run's tokenizer of class SPECIAL."""
    added = run.data.tokenizer.added_tokens_decoder.values()
    specials = [token.content for token in added if token.special]
    return [
        one._replace(kind=SPECIAL)
        if one.kind == failures.OK and any(special in one.text for special in specials)
        else one
        for one in written
    ]


def batches(given: Sequence[Written], size: int) -> Iterator[list[Written]]:
    """Parts of at least `size` answers, but for the last; those of one problem stay together."""
    part: list[Written] = []
    for _, group in itertools.groupby(given, key=lambda one: one.problem.id):
        part += group
        if len(part) >= size:
            yield part
            part = []
    if part:
        yield part


def keep(given: Sequence[Written], checked: Sequence[Checked], most: int) -> list[int]:
    """Places of the verified answers that are kept: of each problem the first of each shape.

    most: of a problem; 0: all.
    """
    seen: dict[str, set[str]] = {}
    kept = []
    for place, (one, found) in enumerate(zip(given, checked, strict=True)):
        shapes = seen.setdefault(one.problem.id, set())
        if found.verified and found.shape not in shapes and (not most or len(shapes) < most):
            shapes.add(found.shape)
            kept.append(place)
    return kept


def traces(
    run: Run, given: Sequence[Written], checked: Sequence[Checked], kept: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """A row an answer that has a text, as stage traces writes it, with `class` and `kept`.

    Tokens are those that were drawn, else the text's in the run's tokenizer, EOS where it ended.
    """
    tokenizer = run.data.tokenizer
    end = eos_id(tokenizer)
    of_kept = set(kept)
    for place, (one, found) in enumerate(zip(given, checked, strict=True)):
        if not one.text.strip() or one.kind == SPECIAL:
            continue
        ended = one.kind == failures.OK
        if one.ids is None:
            tokens = tokenizer(encodable(one.text), add_special_tokens=False)["input_ids"]
            ids = [*tokens, end] if ended else tokens
        else:
            ids = list(one.ids)
        trace = Trace(
            one.problem.id,
            one.problem.question,
            one.problem.answer or found.answer or "",
            one.text,
            ids,
            ended,
            found.verified,
            found.kind in ("undecided", "unverified"),
            one.sample,
        )
        yield {**dataclasses.asdict(trace), "class": found.kind, "kept": place in of_kept}


def verified(
    given: Sequence[Written], checked: Sequence[Checked], kept: Sequence[int], source: str
) -> Iterator[dict[str, Any]]:
    """The rows of teacher_verified.jsonl. All but `runtime_s` is the same at every run.

    `answer` is the gold answer, or the agreed one; `final_answer` what this solution gives.
    """
    for place in kept:
        one, found = given[place], checked[place]
        problem = one.problem
        solution = {"cot_program": found.program}
        yield {
            "id": problem.id,
            "question": problem.question,
            **(solution if found.program is not None else {"solution": one.text}),
            "tests": list(found.tests),
            "final_answer": problem.answer if found.answer is None else found.answer,
            "answer": found.answer if found.evidence == AGREEMENT else problem.answer,
            "tool_mode": "none" if found.program is None else "python",
            "level": problem.level,
            "source": source,
            "model": one.model,
            "sample": one.sample,
            "tokens": one.tokens,
            "runtime_s": found.seconds,
            "verdict": "verified",
            "checks": dict(found.checks),
            "evidence": found.evidence,
        }
