"""Stage kind injected: worked solutions with one number made wrong in some of them.

Rows have ProcessBench's form, {"id", "problem", "steps", "label"}; label is the step that was made
wrong, or −1. "step_tokens" come from tokenising the whole text and cutting it into steps, as at
use: a step that is tokenised alone can end in another token. The rows train a reward model without
any model's solutions, or check its scores on errors whose place is known. With form=pairs rows are
TRL's {"prompt", "chosen", "rejected"}: a solution, and the same one with a wrong number.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.data.problem import Problem
from distill_jax.data.sources import SPLITS
from distill_jax.evaluation.process_bench import NONE_WRONG
from distill_jax.reasoning import steps
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.settings import TASK, StageSettings
from distill_jax.stages.kinds import Kind, register

FORMS = ("process_bench", "pairs")
# Whole: of 3.10 the 10 alone, less 9, would leave the same value.
_NUMBER = re.compile(r"\d+(?:,\d{3}(?!\d))*(?:\.\d+)?")
# Most that is added to or taken from a number.
_MOST = 9


@dataclass(frozen=True)
class InjectedSettings(StageSettings, kind="injected", makes="rows"):
    """Worked solutions, a share of them with an error at a known step."""

    split: str = setting("train", "Split of the problems.", choices=SPLITS)
    problems: int = setting(0, "Problems, the first ones; 0 is all.", low=0)
    form: str = setting(
        FORMS[0], "Form of the rows: for reward models, or pairs for dpo.", choices=FORMS
    )
    share: float = setting(
        0.5, "Share of the solutions made wrong; form=pairs does not read it.",
        above=0.0, high=0.99,
    )  # fmt: skip
    separator: str = setting("\n", "Text between the steps of a solution.")

    def __post_init__(self) -> None:
        if not self.separator:
            raise ConfigError("separator is empty", wanted="a text")
        if self.form == "pairs" and self.share != type(self).share:
            raise ConfigError(f"share={self.share} with form=pairs", wanted="form=process_bench")

    def shared(self) -> tuple[str, ...]:
        """The problems' settings, and the tokenizer."""
        return ("seed", "tokenizer_size", *TASK, "data", "student.path")

    def splits(self) -> tuple[str, ...]:
        """The split that is read."""
        return (self.split,)


def inject(given: Sequence[str], rng: np.random.Generator) -> tuple[list[str], int] | None:
    """(steps with one of them made wrong, its place); None where no step has a number.

    The last number of the step, its result, is changed by 1 to 9 and stays at least 0. The steps
    after it are not changed: they continue from the right number.
    """
    places = [i for i, step in enumerate(given) if _NUMBER.search(step)]
    if not places:
        return None
    place = int(rng.choice(places))
    number = list(_NUMBER.finditer(given[place]))[-1]
    value, by = Decimal(number[0].replace(",", "")), int(rng.integers(1, _MOST + 1))
    wrong = value - by if value >= by and rng.random() < 0.5 else value + by
    text = f"{given[place][: number.start()]}{wrong}{given[place][number.end() :]}"
    return [*given[:place], text, *given[place + 1 :]], place


def _rows(run: Run, stage: Stage[InjectedSettings]) -> Iterator[dict[str, Any]]:
    s, rng = stage.settings, np.random.default_rng([run.seed(stage), 1])
    problems: list[Problem] = run.data.problems(s.split).problems
    for problem in problems[: s.problems or None]:
        split = steps.split_text(problem.solution, s.separator)
        if s.form == "pairs":
            if made := inject(split, rng):
                chosen, rejected = s.separator.join(split), s.separator.join(made[0])
                yield {"prompt": problem.question, "chosen": chosen, "rejected": rejected}
            continue
        made = inject(split, rng) if rng.random() < s.share else None
        found, label = made or (split, NONE_WRONG)
        if split:
            yield {"id": problem.id, "problem": problem.question, "steps": found, "label": label}


def _add_tokens(run: Run, rows: Sequence[dict[str, Any]], separator: str) -> None:
    """Adds "step_tokens" to rows of steps; DataError where they are not as many."""
    tok = run.data.tokenizer
    texts = [separator.join(row["steps"]) for row in rows]
    for row, ids in zip(rows, tok(texts, add_special_tokens=False)["input_ids"], strict=True):
        row["step_tokens"] = [one.tokens for one in steps.split_tokens(tok, ids, separator)]
        if len(row["step_tokens"]) != len(row["steps"]):
            raise DataError(
                f"{row['id']}: {len(row['steps'])} steps are {len(row['step_tokens'])} as tokens",
                wanted="a separator that no token has together with a whole step",
                fix="set separator to a line break",
            )


def _run(
    run: Run, stage: Stage[InjectedSettings], directory: Path, prepared: None
) -> dict[str, Any]:
    del prepared
    rows, pairs = list(_rows(run, stage)), stage.settings.form == "pairs"
    wrong = len(rows) if pairs else sum(row["label"] != NONE_WRONG for row in rows)
    if not wrong or (not pairs and wrong == len(rows)):
        raise DataError(
            f"{wrong} of {len(rows)} solutions of {stage.settings.split} made wrong",
            wanted="some, and others left as they were",
            fix=f"give {stage.name} more problems, with worked solutions",
        )
    if not pairs:
        _add_tokens(run, rows, stage.settings.separator)
    write_rows(directory / ROWS_FILE, rows)
    return {"rows": len(rows), "wrong": wrong}


KIND = register(Kind(InjectedSettings, _run))
