"""SIGKILL in each stage of configs/pot.py:smoke, and the same command again: the same bytes.

Nightly: by day stages are broken off within the test's process, each kind in its own file.
"""

import json
import sys
from pathlib import Path

import pytest

from distill_jax.stages import runner
from distill_jax.tasks import program_runs
from tests.profile import nightly
from tests.stages import forks, pot_smoke
from tests.stages.forks import UNNAMED, Job, Kill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    nightly,
    pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp"),
]


def training(folder: str, hold: int) -> Kill:
    """In the middle of a training, at its last step, once an earlier checkpoint is whole."""
    saved = f"{folder}/checkpoints/{hold - 1}/commit_success.txt"
    return Kill(f"{folder}/metrics.jsonl", hold, hold, saved)


def kills(stage: str, kind: str) -> list[Kill]:
    """Where the processes of a stage are killed, one after another."""
    if kind in ("sft", "rl"):
        return [training(stage, 3)]
    if kind in ("prm", "dpo"):
        return [training(stage, 2)]
    return {
        "pretrain": [training(f"{stage}/{role}", 4) for role in ("teacher", "student")],
        "synthesis": [Kill(f"{stage}/teacher_verified.jsonl", UNNAMED, 0)],
        "traces": [Kill(f"{stage}/answers.jsonl", 1, 0)],
        "step_labels": [
            Kill(f"{stage}/prefixes.jsonl", 2, 0), Kill(f"{stage}/rows.jsonl", UNNAMED, 0),
        ],
        "executed": [Kill(f"{stage}/rows.jsonl", UNNAMED, 0)],
        "injected": [Kill(f"{stage}/rows.jsonl", UNNAMED, 0)],
        "concise": [Kill(f"{stage}/rows.jsonl", UNNAMED, 0)],
        "step_bench": [Kill(f"{stage}/step_scores.json", UNNAMED, 0)],
        "evolve": [
            Kill(f"{stage}/round_0/held_out.jsonl", 1, 0),
            Kill(f"{stage}/round_1/answers.jsonl", 1, 0),
            training(f"{stage}/round_1", 2),
            Kill(f"{stage}/round_1/held_out.jsonl", 1, 0),
        ],
        "solve": [Kill(f"{stage}/answers.jsonl", 3, 0), Kill(f"{stage}/results.json", UNNAMED, 0)],
        "evaluate": [Kill(f"{stage}/sft.checkpoint.jsonl", 2, 0)],
    }[kind]  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A work directory whose run was killed in each stage, and one whose run was not."""
    root = tmp_path_factory.mktemp("pot")
    pot_smoke.write_files(root)
    config, cut, whole = pot_smoke.config(str(root)), root / "cut", root / "whole"
    runner.run(config, whole)
    how = {"changes": {"root": str(root)}, "config": "tests.stages.pot_smoke:config"}
    jobs = [
        Job(str(cut), kill=tuple(kill), **how)
        for stage, settings in config.plan.items()
        for kill in kills(stage, settings.kind)
    ]
    forks.run(*([job] for job in jobs))
    program_runs.forget()
    runner.run(config, cut)
    return cut, whole


@pytest.mark.parametrize("stage", pot_smoke.config("/rows").plan)
def test_killed_in_each_stage_of_program_of_thought(killed: tuple[Path, Path], stage: str) -> None:
    cut, whole = (pot_smoke.left(workdir, stage) for workdir in killed)
    assert cut.keys() == whole.keys() and len(cut) > 2
    for name in cut:
        assert cut[name] == whole[name], name
    kind = pot_smoke.config("/rows").plan[stage].kind
    starts = json.loads((killed[0] / stage / "run.json").read_text())["starts"]
    assert len(starts) == 1 + len(kills(stage, kind))
