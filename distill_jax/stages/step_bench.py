"""Stage kind step_bench: a reward model's scores against labelled steps, as ProcessBench does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.data import step_rows
from distill_jax.data.problem import Problem
from distill_jax.data.step_rows import COUNTS, StepRow
from distill_jax.evaluation import process_bench, step_metrics
from distill_jax.evaluation.process_bench import NONE_WRONG
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.inference import process_scorer
from distill_jax.inference.process_scorer import ProcessScorer
from distill_jax.reasoning import steps
from distill_jax.run.console import write_json
from distill_jax.run.run import Run, Stage
from distill_jax.run.settings import TASK, StageSettings
from distill_jax.stages import prm_rows
from distill_jax.stages.kinds import Kind, register

SCORES_FILE = "step_scores.json"
DEFAULT_THRESHOLD = 0.5
# Prediction on a solution that does not fit: equal to no label.
_UNSCORED = -2


@dataclass(frozen=True)
class StepBenchSettings(StageSettings, kind="step_bench", makes="results"):
    """How well a reward model finds the first wrong step of solutions."""

    reward_model: str = setting(
        "", "Reward model: a stage that makes one, or a directory.", ref="reward_model"
    )
    data: str = setting("", "Labelled solutions to score: a stage, or a file.", ref="rows")
    threshold_data: str = setting(
        "",
        "Labelled solutions of other problems, on which the threshold is chosen; empty: 0.5.",
        ref="rows",
    )
    batch: int = setting(64, "Solutions scored at a time.", low=1, affects="rounding")

    def shared(self) -> tuple[str, ...]:
        """Settings of the prompts, and the student's, whose dtypes the scores depend on."""
        return ("seed", "tokenizer_size", *TASK, "data", "student")

    def check_with(self, shared: Any, name: str) -> None:
        """See StageSettings."""
        missing = [one for one in ("reward_model", "data") if not getattr(self, one)]
        if missing and name in shared.stages:
            raise ConfigError(f"{name}.{missing[0]} is empty", fix=f"set {name}.{missing[0]}")
        if self.threshold_data and self.threshold_data == self.data:
            raise ConfigError(
                f"{name}.threshold_data={self.threshold_data}, the reported rows",
                wanted="other problems: a threshold chosen on them would flatter the model",
            )


def read(run: Run, reference: str) -> list[StepRow]:
    """Solutions with a label for each step up to the first wrong one.

    Raises:
        DataError: rows of counts, which have labels only under the settings of stage prm.
    """
    path = run.rows(reference)
    found = step_rows.read(path, neutral="positive", derive=lambda *_: [])
    if any(row.form == COUNTS for row in found):
        raise DataError(f"{path}: rows of counts", wanted="rows with labels of their steps")
    return found


def score(run: Run, scorer: ProcessScorer, rows: Sequence[StepRow]) -> list[np.ndarray | None]:
    """P(right) of the steps of each solution; None if one of them has no room."""
    prm_rows.refuse_other_split(rows, scorer.how.split, "the reward model's step_split")
    problems = {row.question: Problem(row.where, row.question, "", "") for row in rows}
    fitting = run.data.task.prompts(list(problems.values()))
    read = process_scorer.read_by(run, scorer, fitting)
    prompts = dict(zip([p.question for p in fitting.problems], read, strict=True))
    encoded: dict[int, steps.Encoded] = {}
    for place, split in enumerate(prm_rows.step_tokens(run, rows)):
        prompt = prompts.get(rows[place].question)
        if prompt is not None:
            one = steps.encode(prompt, split, scorer.step_id, scorer.max_length)
            if not one.dropped:
                encoded[place] = one
    found = scorer.probabilities(list(encoded.values()))
    of_place = dict(zip(encoded, found, strict=True))
    return [of_place.get(place) for place in range(len(rows))]


def first_label(row: StepRow) -> int:
    """The first step labelled below 1/2, or −1."""
    wrong = (i for i, y in enumerate(row.labels) if y is not None and y < 0.5)
    return next(wrong, NONE_WRONG)


def _threshold(run: Run, scorer: ProcessScorer, reference: str, avoid: set[str]) -> float:
    if not reference:
        return DEFAULT_THRESHOLD
    rows = read(run, reference)
    both = sum(row.question in avoid for row in rows)
    if both:
        raise DataError(
            f"{both} problems of {reference} are among those that are reported",
            wanted="none: the threshold is chosen on other problems",
        )
    found = zip(score(run, scorer, rows), rows, strict=True)
    scored = [(one, row) for one, row in found if one is not None]
    if not scored:
        raise DataError(f"no solution of {reference} fits the reward model", wanted="some")
    return process_bench.best_threshold(
        [s.tolist() for s, _ in scored], [first_label(row) for _, row in scored]
    )


def _run(
    run: Run, stage: Stage[StepBenchSettings], directory: Path, prepared: None
) -> dict[str, Any]:
    del prepared
    s = stage.settings
    scorer = process_scorer.load(run, s.reward_model, batch=s.batch)
    rows = read(run, s.data)
    threshold = _threshold(run, scorer, s.threshold_data, {row.question for row in rows})
    scores = score(run, scorer, rows)
    labels = [first_label(row) for row in rows]
    there = [place for place, one in enumerate(scores) if one is not None]
    if not there:
        raise DataError(
            f"none of {len(rows)} solutions fits the reward model's {scorer.max_length} tokens",
            fix="train a reward model with a larger max_length",
        )
    # A solution that does not fit counts as wrong: to drop it would favour a short max_length.
    predicted = [
        None if one is None else process_bench.first_wrong(one.tolist(), threshold)
        for one in scores
    ]
    found = process_bench.f1([_UNSCORED if one is None else one for one in predicted], labels)
    constant = {
        name: process_bench.f1([value] * len(rows), labels).f1
        for name, value in (("all_right", NONE_WRONG), ("first_wrong", 0))
    }
    figures = {
        "solutions": len(rows),
        "with_error": sum(label != NONE_WRONG for label in labels),
        "too_long": len(rows) - len(there),
        "threshold": threshold,
        "f1": found.f1,
        "acc_error": found.acc_error,
        "acc_correct": found.acc_correct,
        "f1_of_constants": constant,
    }
    of_steps = step_metrics.figures(
        [one for one in scores if one is not None], [rows[place].labels for place in there]
    )
    results = [
        {
            "question": row.question,
            "label": label,
            "predicted": one,
            "scores": None if scored is None else [round(float(x), 6) for x in scored],
        }
        for row, label, one, scored in zip(rows, labels, predicted, scores, strict=True)
    ]
    write_json(directory / SCORES_FILE, {**figures, "steps": of_steps, "results": results})
    run.say(
        f"{stage.name}: F1 {found.f1:.3f} at threshold {threshold:.3f}, "
        f"AUC {of_steps.get('auc', float('nan')):.3f}, {len(rows)} solutions"
    )
    return figures | {f"steps/{name}": value for name, value in of_steps.items()}


def _forecast(job: Job, s: StepBenchSettings) -> list[Part]:
    return job.scoring_steps(s.batch)


KIND = register(Kind(StepBenchSettings, _run, forecast=_forecast))
