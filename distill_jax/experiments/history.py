"""Files of a run of an experiment: history, curriculum, pairs of answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_jax.core.files import read_json, write_json, write_text
from distill_jax.experiments.results import last_subject, pairs
from distill_jax.report import view as views
from distill_jax.training.records import METRICS_FILE, read_rows

_ARMS = {"q_values": "curriculum/q/", "selections": "curriculum/count/", "shares": "curriculum/p/"}
_SERIES = {
    "losses": "loss",
    "rewards": "reward",
    "accuracies": "eval/accuracy",
    "agreement": "eval/top1_agreement",
    "forward_kl": "eval/forward_kl",
    "examples_seen": "epoch",
    "tokens_seen": "num_tokens",
}


def write(workdir: Path) -> None:
    """history.json, curriculum_data.json and response_pairs.jsonl of a complete run.

    Raises:
        DataError: a damaged row of its records.
        CheckpointError: a file of its evaluation is not JSON.
    """
    view = views.load(workdir)
    subject, student = last_subject(workdir, view)
    stages = view.chain(subject)
    rows = read_rows(workdir / stages[-1].directory / METRICS_FILE) if stages else []
    write_json(workdir / "history.json", history(rows))
    write_json(workdir / "curriculum_data.json", curriculum(rows))
    teacher = read_json(view.result_file(workdir, views.TEACHER))
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in pairs(teacher, student)]
    write_text(workdir / "response_pairs.jsonl", "".join(lines))


def history(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{series: [[step, value], …]} of the metrics that were logged; `examples_seen` in epochs."""
    return {
        name: [[row["step"], row[metric]] for row in rows if row.get(metric) is not None]
        for name, metric in _SERIES.items()
    }


def curriculum(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{q_values, selections, shares: {arm: [[step, value], …]}}; empty where none was logged."""
    out: dict[str, dict[str, list[Any]]] = {name: {} for name in _ARMS}
    for row in rows:
        for name, prefix in _ARMS.items():
            for metric in row:
                if metric.startswith(prefix) and row[metric] is not None:
                    arm = metric.removeprefix(prefix)
                    out[name].setdefault(arm, []).append([row["step"], row[metric]])
    return out
