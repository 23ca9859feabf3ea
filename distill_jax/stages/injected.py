"""Stage kind injected: worked solutions with one number made wrong in some of them.

Rows have ProcessBench's form, {"id", "problem", "steps", "label", "step_split"}; label is the step
that was made wrong, or −1. "step_tokens" come from tokenising the whole text and cutting it into
steps, as at use: a step that is tokenised alone can end in another token. The rows train a reward
model without any model's solutions, or check its scores on errors whose place is known. With
form=pairs rows are TRL's {"prompt", "chosen", "rejected"}: a solution, and the same one with a
wrong number. Programs are run: those that are wrong as they are make no row.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.core.text import encodable
from distill_jax.data.problem import Problem
from distill_jax.data.sources import SPLITS
from distill_jax.evaluation.process_bench import NONE_WRONG
from distill_jax.reasoning import steps
from distill_jax.reasoning.steps import Format
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.settings import TASK, Shared, StageSettings
from distill_jax.stages.kinds import Kind, register

FORMS = ("process_bench", "pairs")
# Whole: of 3.10 the 10 alone, less 9, would leave the same value. Of a program no part of a name.
_NUMBERS = {
    "text": re.compile(r"\d+(?:,\d{3}(?!\d))*(?:\.\d+)?"),
    "program": re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])"),
}
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
    step_split: str = steps.split_setting()
    separator: str = setting("\n", "Text between the steps of a solution; of split=text.")

    def __post_init__(self) -> None:
        self.how.check()
        if self.form == "pairs" and self.share != type(self).share:
            raise ConfigError(f"share={self.share} with form=pairs", wanted="form=process_bench")

    @property
    def how(self) -> Format:
        """How a solution is cut into steps."""
        return Format(self.step_split, self.separator)

    def check_with(self, shared: Shared, name: str) -> None:
        """See StageSettings."""
        self.how.check_task(shared.task, f"{name}.step_split")

    def shared(self) -> tuple[str, ...]:
        """The problems' settings, and the tokenizer."""
        return ("seed", "tokenizer_size", *TASK, "data", "student.path")

    def splits(self) -> tuple[str, ...]:
        """The split that is read."""
        return (self.split,)


def inject(
    given: Sequence[str], rng: np.random.Generator, number: re.Pattern[str] = _NUMBERS["text"]
) -> tuple[list[str], int] | None:
    """(steps with one of them made wrong, its place); None where no step has a number.

    The last number of the step, its result, is changed by 1 to 9 and stays at least 0. The steps
    after it are not changed: they continue from the right number.
    """
    places = [i for i, step in enumerate(given) if number.search(step)]
    if not places:
        return None
    place = int(rng.choice(places))
    last = list(number.finditer(given[place]))[-1]
    value, by = Decimal(last[0].replace(",", "")), int(rng.integers(1, _MOST + 1))
    wrong = value - by if value >= by and rng.random() < 0.5 else value + by
    text = f"{given[place][: last.start()]}{wrong}{given[place][last.end() :]}"
    return [*given[:place], text, *given[place + 1 :]], place


class _Made(NamedTuple):
    """A worked solution as steps, and the same with an error, or None."""

    problem: Problem
    steps: list[str]
    wrong: tuple[list[str], int] | None


def _made(run: Run, stage: Stage[InjectedSettings]) -> list[_Made]:
    s, rng = stage.settings, np.random.default_rng([run.seed(stage), 1])
    problems: list[Problem] = run.data.problems(s.split).problems
    out = []
    for problem in problems[: s.problems or None]:
        if run.data.task.response(problem, bare=False) is None:
            continue
        split = steps.split_text(problem.solution, s.how)
        changed = s.form == "pairs" or rng.random() < s.share
        wrong = inject(split, rng, _NUMBERS[s.step_split]) if changed else None
        out.append(_Made(problem, split, wrong))
    return out if s.step_split == "text" else _run_too(run, out)


def _run_too(run: Run, made: Sequence[_Made]) -> list[_Made]:
    """The same without solutions that are wrong as they are, and without errors that change
    nothing, such as another bound of an assertion."""
    texts = ["".join(one.steps) for one in made]
    texts += ["".join(one.wrong[0] if one.wrong else one.steps) for one in made]
    problems, ended_B = [one.problem for one in made] * 2, np.ones(len(texts), bool)
    judged = run.data.task.judge(problems, texts, ended_B)
    right_2N = sharding.of_first_process(judged.right_B).reshape(2, -1)
    wrong_2N = ~right_2N & ~sharding.of_first_process(judged.undecided_B).reshape(2, -1)
    return [
        one if wrong else one._replace(wrong=None)
        for one, right, wrong in zip(made, right_2N[0], wrong_2N[1], strict=True)
        if right
    ]


def _rows(run: Run, stage: Stage[InjectedSettings]) -> Iterator[dict[str, Any]]:
    s = stage.settings
    for problem, split, wrong in _made(run, stage):
        if s.form == "pairs":
            if wrong:
                chosen, rejected = s.how.joint.join(split), s.how.joint.join(wrong[0])
                yield {"prompt": problem.question, "chosen": chosen, "rejected": rejected}
            continue
        found, label = wrong or (split, NONE_WRONG)
        if split:
            yield {
                "id": problem.id, "problem": problem.question, "steps": found, "label": label,
                "step_split": s.step_split,
            }  # fmt: skip


def _add_tokens(run: Run, rows: Sequence[dict[str, Any]], how: Format) -> None:
    """Adds "step_tokens" to rows of steps; DataError where they are not as many."""
    tok = run.data.tokenizer
    texts = [encodable(how.joint.join(row["steps"])) for row in rows]
    for row, ids in zip(rows, tok(texts, add_special_tokens=False)["input_ids"], strict=True):
        row["step_tokens"] = [one.tokens for one in steps.split_tokens(tok, ids, how)]
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
        _add_tokens(run, rows, stage.settings.how)
    write_rows(directory / ROWS_FILE, rows)
    return {"rows": len(rows), "wrong": wrong}


KIND = register(Kind(InjectedSettings, _run))
