"""A small run of the stages that reason, and what it leaves."""

import json
from pathlib import Path
from typing import Any

from configs import presets
from distill_jax.training.records import is_timing
from tests.stages import traced
from tests.stages.small import rows

# A random model solves nothing: reward model and preferences learn on injected errors.
STAGES: dict[str, dict[str, Any]] = {
    "traces": {"kind": "traces", "problems": 4, "samples": 4, "batch": 8},
    "labels": {
        "kind": "step_labels", "data": "traces", "model": "base", "n": 2, "batch": 8,
    },
    "judge": {
        "kind": "step_judge", "data": "labels", "model": "base", "samples": 2, "batch": 8,
        "max_new_tokens": 12,
    },
    "injected": {"kind": "injected", "problems": 12},
    "prm": {
        "kind": "prm", "start": "base", "data": "injected", "steps": 4, "batch_size": 4,
        "max_length": 96, "eval_every": 4, "validation_share": 0.3,
    },
    "bench": {"kind": "step_bench", "reward_model": "prm", "data": "injected"},
    "pairs": {"kind": "injected", "form": "pairs", "problems": 12},
    "dpo": {
        "kind": "dpo", "start": "base", "data": "pairs", "steps": 4, "batch_size": 4,
        "max_length": 96,
    },
    # It solves nothing, either: the rounds learn on given solutions.
    "evolve": {
        "kind": "evolve", "rounds": 2, "problems": 4, "samples": 2, "batch": 4, "steps": 4,
        "batch_size": 4, "k": 2, "eval_problems": 4, "patience": 9,
    },
    "solve": {
        "kind": "solve", "model": "base", "reward_model": "prm", "problems": 4, "attempts": 2,
        "batch": 4, "rounds": 1, "selector": "weighted", "plain": False,
    },
}  # fmt: skip


def settings(root: Path) -> dict[str, Any]:
    """Changes of the small run, as `small` takes them; models and problems are below `root`."""
    return {
        **traced.files(root, max_position_embeddings=1024),
        "plan": (*presets.smoke().plan, *STAGES),
        "stages": tuple(STAGES),
        "checkpoint__every": 2,
        "records__every": 1,
        "lora__dropout": 0.1,
        **STAGES,
    }


def left(workdir: Path, stage: str) -> dict[str, Any]:
    """What a stage leaves: contents of its files, without times, starts and checkpoints."""
    found: dict[str, Any] = {}
    for path in sorted((workdir / stage).rglob("*")):
        name = str(path.relative_to(workdir / stage))
        if path.is_dir() or "checkpoints/" in name or name == "run.json":
            continue
        if path.name == "metrics.jsonl":
            found[name] = rows(workdir, str(path.parent.relative_to(workdir)))
        elif path.suffix == ".json":
            found[name] = untimed(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


def untimed(value: Any) -> Any:
    """A JSON value without the fields that measure the machine."""
    if isinstance(value, dict):
        kept = {n: one for n, one in value.items() if n not in ("seconds", "training_date")}
        return {name: untimed(one) for name, one in kept.items() if not is_timing(name)}
    return [untimed(one) for one in value] if isinstance(value, list) else value
