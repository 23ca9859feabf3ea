"""The pipeline of configs/pot.py:smoke, with small stages of the kinds that it leaves out."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from configs import pot
from configs.presets import changed
from distill_jax.data.fences import fenced
from distill_jax.data.problem import Problem
from distill_jax.reasoning import programs
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run
from distill_jax.stages.concise import ConciseSettings
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.executed import ExecutedSettings
from distill_jax.stages.synthesis_settings import SynthesisSettings
from distill_jax.training.optimizer import OptimizerSettings
from tests.stages import reasoned


def config(root: str) -> RunConfig:
    """Its models solve nothing, so answers and solutions of the added stages are files of `root`.

    A checkpoint a step: stages of two steps have one before they end.
    """
    base = pot.PRESETS["smoke"]()
    files = {name: str(Path(root) / f"{name}.jsonl") for name in ("answers", "traces")}
    added: dict[str, Any] = {
        "synthesis": SynthesisSettings(writer="file", answers=files["answers"], problems=12),
        "executed": ExecutedSettings(data=files["traces"]),
        "concise": ConciseSettings(data=files["traces"]),
        "dpo": DPOSettings(
            start="evolve", data="concise", steps=2, batch_size=4, max_length=320,
            guard_margin=100.0, eval_problems=4, optimizer=OptimizerSettings(learning_rate=1e-4),
        ),
    }  # fmt: skip
    missing = {n: s for n, s in added.items() if s.kind not in {x.kind for x in base.plan.values()}}
    plan = {**base.plan, **missing}
    # Evaluation comes last, and reports on the student of dpo, too.
    plan["evaluate"] = plan.pop("evaluate")
    checkpoint = dataclasses.replace(base.checkpoint, every=1)
    return changed(base, checkpoint=checkpoint, plan=plan, stages=tuple(plan))


def write_files(root: Path) -> None:
    """Given programs of training problems as answers of an endpoint, and as right solutions."""
    data = Run(config(str(root)), root / "data").data
    given = data.problems("train").problems[:12]
    answers = [{"id": one.id, "text": one.solution} for one in given]
    traces = [row for one in given for row in _traces(one, data.tokenizer)]
    for name, rows in (("answers", answers), ("traces", traces)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _traces(problem: Problem, tok: Any) -> list[dict[str, Any]]:
    """A short program and a longer one."""
    program = programs.extract(problem.solution).program
    assert program is not None
    long = "".join(f"# then step {i}\n{line}\n" for i, line in enumerate(program.splitlines()))
    return [
        {
            "id": problem.id, "question": problem.question, "answer": problem.answer,
            "completion": fenced(text),
            "tokens": tok.encode(fenced(text), add_special_tokens=False),
            "ended": True, "right": True, "undecided": False, "sample": sample, "score": None,
        }
        for sample, text in enumerate((program, long))
    ]  # fmt: skip


def left(workdir: Path, stage: str) -> dict[str, Any]:
    """What a stage leaves, without times, starts, checkpoints and what killed writers left.

    The work directory's own path is replaced.
    """
    found = reasoned.left(workdir, stage)
    for name in [name for name in found if name.endswith(".partial")]:
        del found[name]
    verified = "teacher_verified.jsonl"
    if verified in found:
        rows = [json.loads(line) for line in found[verified].splitlines()]
        found[verified] = [{n: v for n, v in row.items() if n != "runtime_s"} for row in rows]
    return {name: _unplaced(one, str(workdir)) for name, one in found.items()}


def _unplaced(value: Any, path: str) -> Any:
    if isinstance(value, bytes):
        return value.replace(path.encode(), b"WORKDIR")
    return json.loads(json.dumps(value).replace(path, "WORKDIR"))
