"""Hostile programs through the judge of task program, in a process of its own that may be hit.

`python -m tests.tasks.judged_attacks REPORT.json STEP` judges every STEP-th program.
"""

import json
import sys
from pathlib import Path

import numpy as np

from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.reasoning.programs import fenced
from distill_jax.tasks import ProgramSettings, ProgramTask
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.effects import Watch

SETTINGS = ProgramSettings(wall_s=1.0, cpu_s=0.25, deadline_s=600.0, workers=2)
GROUP = 32


def attack(step: int) -> dict[str, object]:
    """What the judge found, and every effect on the host."""
    chosen, watch, task = ATTACKS[::step], Watch(), ProgramTask(DataSettings(), None, SETTINGS)
    effects: list[str] = []
    details, right = [], 0
    try:
        # Each worker has both of its processes before the watch looks.
        started = [f"import sympy\nprint({n})" for n in range(8)]
        _judge(task, [*started, *(f"print({n})" for n in range(8))], ["0"] * 16)
        watch.settle()
        for at in range(0, len(chosen), GROUP):
            group = chosen[at : at + GROUP]
            sources = [watch.fill(one.source) for one in group]
            found = _judge(task, sources, [watch.gold] * len(group))
            right += int(found.right_B.sum())
            details += found.details
            said = [f"{one['printed']} {one['error']}" for one in found.details]
            # The answer check starts workers when printed text needs algebra.
            seen = [one for one in watch.effects(said) if "answers/worker.py" not in one]
            effects += [f"{at}: {effect}" for effect in seen]
    finally:
        watch.close()
        task.close()
    statuses = sorted({str(one["status"]) for one in details})
    return {
        "count": len(details), "effects": effects, "right": right, "statuses": statuses,
    }  # fmt: skip


def _judge(task, sources, golds):
    problems = [Problem("p", "Add 2 and 3.", "", gold) for gold in golds]
    return task.judge(problems, [fenced(one) for one in sources], np.ones(len(sources), bool))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(attack(int(sys.argv[2]))))
