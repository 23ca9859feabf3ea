"""The results of one run, read from the files of its directory; files in other tools' forms."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import DataError
from distill_jax.core.files import read_json, write_json, write_text
from distill_jax.evaluation import learning
from distill_jax.experiments import compute, pooled
from distill_jax.report import view as views
from distill_jax.report.view import RunView
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


def collect(workdir: Path, arm: str, seed: int) -> dict[str, Any]:
    """A complete run as one JSON-able row.

    Also writes history.json, curriculum_data.json and response_pairs.jsonl into its directory.

    Returns:
        arm, seed, subject, greedy, pass@1 and pass@k of all samples (shares), samples, levels and
        subjects {name: {greedy, pass@1, problems}}, agreement (see `agreement`), mean_length,
        terminated, tokens (of the stages that led to the subject, and "all"), seconds (likewise),
        flops ({parts: {part: operations} or None, estimated, missing}, see `compute.Spent`), curve
        [{step, tokens, flops, seconds, accuracy}] on validation, flops and seconds (of training)
        None where unknown, gain_tokens and gain_steps (`convergence`), curriculum
        [{step, p: {arm: share}}], measures (`pooled.measures`).

    Raises:
        CheckpointError: a file is not JSON.
        DataError: nothing was evaluated here, or a damaged row.
    """
    view = views.load(workdir)
    subject, result = last_subject(workdir, view)
    teacher = read_json(view.result_file(workdir, views.TEACHER))
    chain = view.chain(subject)
    rows = {s.name: read_rows(workdir / s.directory / METRICS_FILE) for s in chain}
    tokens = {name: _tokens(found) for name, found in rows.items() if found}
    seconds = {}
    for directory in (*(workdir / s.directory for s in chain), view.results_directory(workdir)):
        done = read_json(directory / "done.json")
        if done is not None:
            seconds[directory.name] = done["seconds"]
    last = rows.get(subject, [])
    curve = _curve(last, sum(tokens.values()) - tokens.get(subject, 0))
    spent, times = compute.operations(workdir, rows), compute.training_seconds(workdir, rows)
    for point in curve:
        step = point["step"]
        point["flops"] = spent.at(step)
        point["seconds"] = None if times is None else float(np.interp(step, *times))
    problems = result["problems"]
    write_json(workdir / "history.json", history(last))
    write_json(workdir / "curriculum_data.json", curriculum(last))
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in pairs(teacher, result)]
    write_text(workdir / "response_pairs.jsonl", "".join(lines))
    return {
        "arm": arm,
        "seed": seed,
        "subject": subject,
        "greedy": result["greedy"]["accuracy"]["mean"],
        "pass@1": result["sampled"]["pass@1"]["mean"],
        "pass@k": _of_all_samples(result["sampled"]),
        "samples": result["samples"],
        "agreement": agreement(teacher, result),
        "mean_length": result["greedy"]["mean_length"],
        "terminated": result["greedy"]["terminated"],
        "levels": _groups(problems, "level"),
        "subjects": _groups(problems, "subject"),
        "tokens": {**tokens, "all": sum(tokens.values())},
        "seconds": {**seconds, "all": sum(seconds.values())},
        "flops": {n: getattr(spent, n) for n in ("parts", "estimated", "missing")},
        "curve": curve,
        **convergence(curve),
        "curriculum": _selection(last),
        "measures": pooled.measures(workdir, view),
    }


def _of_all_samples(sampled: Mapping[str, Any]) -> float:
    """pass@k of as many samples as there are; pass@1 of one."""
    of_k = sampled.get("pass@k")
    return (of_k[max(of_k, key=int)] if of_k else sampled["pass@1"])["mean"]


def last_subject(workdir: Path, view: RunView) -> tuple[str, dict[str, Any]]:
    """The last student of the run that was evaluated, and its result; DataError without one."""
    for name in (*(stage.name for stage in reversed(view.students)), views.BASE):
        result = read_json(view.result_file(workdir, name))
        if result is not None:
            return name, result
    raise DataError(f"no student is evaluated in {workdir}", wanted="stage evaluate in the arm")


def _tokens(rows: Sequence[Mapping[str, Any]]) -> int:
    return max((int(row["num_tokens"]) for row in rows if "num_tokens" in row), default=0)


def _curve(rows: Sequence[Mapping[str, Any]], before: int) -> list[dict[str, Any]]:
    """Validation accuracy over training tokens, those of the stages before counted in."""
    out, tokens = [], 0
    for row in rows:
        tokens = row.get("num_tokens", tokens)
        if (accuracy := row.get("eval/accuracy")) is not None:
            out.append({"step": row["step"], "tokens": before + tokens, "accuracy": accuracy})
    return out


def convergence(curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """gain_steps, gain_tokens: the first evaluation with 95% of the whole gain, as
    `evaluation.learning` has it; None without a gain or with fewer than three evaluations."""
    points = [(point["step"], point["accuracy"]) for point in curve]
    step = learning.convergence_step(np.array(points, float).reshape(-1, 2))
    tokens = {point["step"]: point["tokens"] for point in curve}
    return {"gain_steps": step, "gain_tokens": None if step is None else tokens[step]}


def pairs(teacher: Mapping[str, Any] | None, student: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Greedy answers of student and teacher to each problem; the teacher's None without one."""
    theirs = {row["id"]: row for row in (teacher or {"problems": []})["problems"]}
    out = []
    for row in student["problems"]:
        other = theirs.get(row["id"], {})
        one = {name: row.get(name) for name in ("id", "question", "level", "subject", "answer")}
        one |= {"student": row["greedy"], "student_right": row["greedy_right"]}
        one |= {"teacher": other.get("greedy"), "teacher_right": other.get("greedy_right")}
        out.append(one)
    return out


def agreement(teacher: Mapping[str, Any] | None, student: Mapping[str, Any]) -> float | None:
    """Of the problems that the teacher gets right, the share that the student does too, or None."""
    known = [row for row in pairs(teacher, student) if row["teacher_right"]]
    return sum(row["student_right"] for row in known) / len(known) if known else None


def _groups(problems: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, float]]:
    names = sorted({str(row[key]) for row in problems if row.get(key) is not None})
    out = {}
    for name in names:
        chosen = [row for row in problems if str(row.get(key)) == name]
        out[name] = {
            "greedy": float(np.mean([row["greedy_right"] for row in chosen])),
            "pass@1": float(np.mean([np.mean(row["sampled_right"]) for row in chosen])),
            "problems": len(chosen),
        }
    return out


def _selection(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How often a curriculum meant to choose each of its arms, over steps; [] without one."""
    prefix, out = _ARMS["shares"], []
    for row in rows:
        shares = {name[len(prefix) :]: row[name] for name in row if name.startswith(prefix)}
        if shares:
            out.append({"step": row["step"], "p": shares})
    return out


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
