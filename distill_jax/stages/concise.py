"""Stage kind concise: pairs for dpo, a short right solution over a longer right one.

A row: {"prompt", "chosen", "rejected", "id", "len_chosen", "len_rejected", "kind", "level"}; the
first three are TRL's. Both sides were judged right when the row was made, whatever their source
says; a chosen program holds at least as many assertions as the rejected one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from distill_jax.core import sharding, unread
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.core.text import encodable
from distill_jax.core.unread import Unread, off
from distill_jax.data import concise_pairs, trace_rows
from distill_jax.data.concise_pairs import NATURAL, STRIPPED, Sample
from distill_jax.data.problem import Problem
from distill_jax.data.trace_rows import Trace
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.inference import process_scorer
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.settings import TASK, Shared, StageSettings
from distill_jax.stages.kinds import Kind, register


@dataclass(frozen=True)
class ConciseSettings(StageSettings, kind="concise", makes="rows"):
    """Pairs of right solutions of one problem, a short one over a longer one."""

    data: str = setting(
        "", "Solutions: a stage of kind traces or evolve, or a file of such rows.", ref="rows"
    )
    also: str = setting("", "More solutions, of the same form.", ref="rows")
    ratio: float = setting(
        1.3, "The rejected has at least this times the chosen's tokens.", above=1.0
    )
    per_problem: int = setting(2, "Most pairs of a problem.", low=1)
    most: int = setting(1500, "Most pairs; natural ones first, levels in turn. 0 is all.", low=0)
    stripped: bool = setting(
        True,
        "Where a problem has too few natural pairs, prefer a program without its comments and "
        "docstrings over a longer one; task text has no such pairs.",
    )
    reward_model: str = setting(
        "",
        "Process reward model that the chosen must convince, too: a stage, or a directory; empty: "
        "none.",
        ref="reward_model",
    )
    threshold: float = setting(
        0.5, "The chosen's score by the reward model is at least this.", low=0.0, high=1.0
    )
    batch: int = setting(256, "Solutions judged at a time.", low=1, affects="nothing")

    UNREAD: ClassVar = (Unread(("threshold",), ("reward_model",), off),)

    def __post_init__(self) -> None:
        unread.refuse(unread.find(self))

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the rows are."""
        return tuple(one for one in (self.data, self.also) if one)

    def shared(self) -> tuple[str, ...]:
        """The problems' settings, and the tokenizer."""
        student = "student" if self.reward_model else "student.path"  # a model's dtypes
        return ("seed", "tokenizer_size", *TASK, "data", student)

    def splits(self) -> tuple[str, ...]:
        """Levels are those of train; questions of the others are dropped from the rows."""
        return ("train", "validation", "test")

    def check_with(self, shared: Shared, name: str) -> None:
        """See StageSettings."""
        if not self.data and name in shared.stages:
            raise ConfigError(
                f"{name}.data is empty",
                wanted="solutions with verdicts",
                fix=f"set {name}.data to a stage of kind traces or evolve, or to a file",
            )
        if self.also and self.also == self.data:
            raise ConfigError(f"{name}.also={self.also}, the rows of {name}.data", wanted="others")


def _run(
    run: Run, stage: Stage[ConciseSettings], directory: Path, prepared: None
) -> dict[str, Any]:
    del prepared
    s, figures = stage.settings, Counter[str]()
    given = [one for source in s.sources for one in trace_rows.read(run.rows(source))]
    usable = _usable(run, stage.name, given, figures)
    found = _verified(run, s, [one.problem for one in usable], [one.completion for one in usable])
    figures["no_longer_right"] = sum(one is None for one in found)
    of_question: dict[str, list[Sample]] = {}
    problems: dict[str, Problem] = {}
    for trace, one in zip(usable, found, strict=True):
        if one is not None:
            problems.setdefault(trace.question, trace.problem)
            of_question.setdefault(trace.question, []).append(one)
    if s.stripped:
        _add_stripped(run, s, problems, of_question, figures)
    if s.reward_model:
        _doubt(run, s, problems, of_question, figures)
    rows = _rows(run, stage, problems, of_question, figures)
    if not rows:
        raise DataError(
            f"{stage.name}: none of {len(of_question)} problems with right solutions has two of "
            "which one is short enough",
            wanted=f"a right solution of {s.ratio:g} times the tokens of another right one",
            fix=f"draw more samples, or lower {stage.name}.ratio",
        )
    write_rows(directory / ROWS_FILE, rows)
    kinds = Counter(row["kind"] for row in rows)
    counts = {"pairs": len(rows), NATURAL: kinds[NATURAL], STRIPPED: kinds[STRIPPED]}
    sides = ("len_chosen", "len_rejected")
    means = {name: float(np.mean([row[name] for row in rows])) for name in sides}
    out = {"rows": len(given), **figures, "problems": len(of_question), **counts, **means}
    run.say(f"{stage.name}: " + ", ".join(f"{name} {value:g}" for name, value in out.items()))
    return out


def _usable(run: Run, name: str, given: Sequence[Trace], figures: Counter[str]) -> list[Trace]:
    """Right solutions that ended, each text of a question once, of no held-out question."""
    out: dict[tuple[str, str], Trace] = {}
    held_out = run.data.held_out([one.question for one in given], name)
    for one, drop in zip(given, held_out, strict=True):
        if not one.right or not one.ended:
            figures["dropped_not_right"] += 1
        elif drop:
            figures["dropped_held_out"] += 1
        elif (one.question, one.completion) in out:
            figures["dropped_repeated"] += 1
        else:
            out[one.question, one.completion] = one
    return list(out.values())


def _verified(
    run: Run,
    s: ConciseSettings,
    problems: Sequence[Problem],
    texts: Sequence[str],
    *,
    stripped: bool = False,
) -> list[Sample | None]:
    """The completions that the task judges right now, with their lengths; None for the others."""
    task, tok = run.data.task, run.data.tokenizer
    whole = [encodable(text) for text in texts]
    tokens = tok(whole, add_special_tokens=False)["input_ids"] if whole else []
    lengths = list(map(len, tokens))
    out: list[Sample | None] = []
    for start in range(0, len(texts), s.batch):
        part = slice(start, start + s.batch)
        judged = task.judge(problems[part], texts[part], np.ones(len(texts[part]), bool))
        right = np.flatnonzero(sharding.of_first_process(judged.right_B)).tolist()
        guessed = task.guesses([problems[part][i] for i in right], [texts[part][i] for i in right])
        guess_of = dict(zip(right, guessed, strict=True))
        for i, text in enumerate(texts[part]):
            held, length = judged.details[i].get("assertions", 0), lengths[part][i]
            one = Sample(text, length, task.key(text), held, guess_of.get(i, False), stripped)
            out.append(one if i in guess_of else None)
    return out


def _add_stripped(
    run: Run,
    s: ConciseSettings,
    problems: dict[str, Problem],
    of_question: dict[str, list[Sample]],
    figures: Counter[str],
) -> None:
    """Adds the samples without what their answers do not need, where they are still right."""
    made = [
        (question, text)
        for question, samples in of_question.items()
        for one in samples
        if (text := run.data.task.shortened(one.text)) is not None
    ]
    made = list(dict.fromkeys(made))
    found = _verified(
        run, s, [problems[q] for q, _ in made], [text for _, text in made], stripped=True
    )
    figures["stripped_not_right"] = sum(one is None for one in found)
    for (question, _), one in zip(made, found, strict=True):
        if one is not None:
            of_question[question].append(one)


def _doubt(
    run: Run,
    s: ConciseSettings,
    problems: dict[str, Problem],
    of_question: dict[str, list[Sample]],
    figures: Counter[str],
) -> None:
    """Marks the samples that the reward model scores below the threshold, or cannot score whole."""
    scorer = process_scorer.load(run, s.reward_model)
    pool = run.data.task.prompts([problems[question] for question in of_question])
    prompts = process_scorer.read_by(run, scorer, pool)
    read = dict(zip([one.question for one in pool.problems], prompts, strict=True))
    tok = run.data.tokenizer
    for question, samples in of_question.items():
        scores: list[float] = [float("nan")] * len(samples)
        if question in read:
            ids = tok([encodable(one.text) for one in samples], add_special_tokens=False)[
                "input_ids"
            ]
            steps = scorer.score([read[question]] * len(samples), ids)
            whole = [bool(np.isfinite(one).all()) for one in steps]
            found = scorer.aggregate(steps).tolist()
            scores = [x if all_ else x * np.nan for x, all_ in zip(found, whole, strict=True)]
        for i, score in enumerate(scores):
            if not score >= s.threshold:  # NaN, too
                samples[i] = samples[i]._replace(doubted=True)
                figures["doubted"] += 1


def _rows(
    run: Run,
    stage: Stage[ConciseSettings],
    problems: dict[str, Problem],
    of_question: dict[str, list[Sample]],
    figures: Counter[str],
) -> list[dict[str, Any]]:
    s = stage.settings
    level_of = {one.question: one.level for one in run.data.problems("train").problems}
    rows: list[dict[str, Any]] = []
    for question, samples in of_question.items():
        pairs = concise_pairs.of_problem(samples, ratio=s.ratio, per_problem=s.per_problem)
        figures["problems_without_pair"] += not pairs
        for pair in pairs:
            chosen, rejected = samples[pair.chosen], samples[pair.rejected]
            rows.append(
                {
                    "prompt": question,
                    "chosen": chosen.text,
                    "rejected": rejected.text,
                    "id": problems[question].id,
                    "len_chosen": chosen.length,
                    "len_rejected": rejected.length,
                    "kind": pair.kind,
                    "level": level_of.get(question),
                }
            )
    kinds, levels = [row["kind"] for row in rows], [row["level"] for row in rows]
    kept = concise_pairs.within(kinds, levels, s.most, (run.seed(stage), 0))
    figures["dropped_over_most"] = len(rows) - len(kept)
    return [rows[i] for i in kept]


def _forecast(job: Job, s: ConciseSettings) -> list[Part]:
    return job.scoring_steps(process_scorer.BATCH) if s.reward_model else []


KIND = register(Kind(ConciseSettings, _run, forecast=_forecast))
