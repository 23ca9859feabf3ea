"""`evaluation_results.json`: a subject's result under the names that other tools use.

The figures are those of `evaluate/SUBJECT.json`; the time of evaluation is in this file alone.
"""

import datetime
from pathlib import Path
from typing import Any

import jax

from distill_jax.core.files import read_json
from distill_jax.evaluation import learning
from distill_jax.evaluation.leading import EVALUATION_RESULTS
from distill_jax.evaluation.subjects import CHECKPOINT, Subject
from distill_jax.run.console import write_json
from distill_jax.run.run import Run
from distill_jax.training.records import METRICS_FILE, read_rows


def write_evaluation(
    run: Run, directory: Path, subject: Subject, result: dict[str, Any], *, fresh: bool
) -> None:
    """Writes `evaluation_results.json` of a subject into its directory, if it holds anything new.

    result: as in SUBJECT.json; fresh: it was made just now, else the recorded time is kept.
    """
    if jax.process_index() != 0:
        return
    path = directory / EVALUATION_RESULTS
    before = read_json(path)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    # Greedy decoding's figures are first in each group, those of the samples below "sampled".
    greedy, sampled = result["greedy"], result["sampled"] or {}
    shares = ["mean_length", "terminated", "undecided", "hacking", "levels"]
    if "programs" in greedy:  # of task program
        shares.append("programs")
    said = 1.0 - greedy["hacking"]["no_answer"]
    view = {
        "benchmark": result.get("benchmark", "test"),
        "checkpoint_path": str(subject.path),
        "teacher_model": run.models.name("teacher"),
        "evaluation_time": now if fresh or before is None else before["evaluation_time"],
        "accuracy": greedy["accuracy"]["mean"],
        "accuracy_interval": [greedy["accuracy"]["low"], greedy["accuracy"]["high"]],
        "num_problems": result["num_problems"],
        # Of the last number of each answer, as lm-evaluation-harness' flexible extraction.
        "flexible_accuracy": greedy.get("flexible"),
        "answer_rate": said,
        # Without the limit on tokens an accuracy cannot be compared with another.
        "max_new_tokens": result.get("max_new_tokens"),
        "truncation_rate": 1.0 - greedy["terminated"],
        "pass@1": sampled.get("pass@1"),
        "pass@k": sampled.get("pass@k"),
        "maj@k": sampled.get("maj@k"),
        "reasoning_quality": {**greedy["reasoning"], "sampled": sampled.get("reasoning")},
        "distillation_effect": result["distribution"],
        "statistics": {
            "num_problems": result["num_problems"],
            "num_right": sum(problem["greedy_right"] for problem in result["problems"]),
            **{name: greedy[name] for name in shares},
            "sampled": {
                "samples": result["samples"],
                "temperature": result["temperature"],
                **{name: sampled[name] for name in shares if name in sampled},
            },
        },
        "training": _training(run, subject),
        "individual_results": result["problems"],
    }
    if view != before:
        write_json(path, view)


def _training(run: Run, subject: Subject) -> dict[str, Any] | None:
    """How the subject's stage learned up to its weights; None without a curve."""
    if not subject.stage:
        return None
    _, checkpoint, number = subject.name.rpartition(CHECKPOINT)
    last = int(number) if checkpoint else None
    rows = read_rows(run.workdir / subject.stage / METRICS_FILE)
    rows = [row for row in rows if last is None or row["step"] <= last]
    return learning.summary(rows)
