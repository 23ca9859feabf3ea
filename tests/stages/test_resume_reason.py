"""SIGKILL in each stage that reasons, and the same command again: the same bytes as without it.

Nightly: by day each of these stages is broken off within the test's process, in its own file.
"""

import json
from pathlib import Path

import pytest

from tests.profile import nightly
from tests.stages import forks, reasoned
from tests.stages.forks import Job, Kill
from tests.stages.small import run_here

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), nightly]

# In each stage that keeps what it has done: file, lines, step, and what must be saved.
KILLS = (
    Kill("traces/answers.jsonl", 2, 0),
    Kill("labels/prefixes.jsonl", 3, 0),
    Kill("judge/votes.jsonl", 3, 0),
    Kill("prm/metrics.jsonl", 4, 3, "prm/checkpoints/2/commit_success.txt"),
    Kill("dpo/metrics.jsonl", 3, 3, "dpo/checkpoints/2/commit_success.txt"),
    Kill("evolve/round_1/answers.jsonl", 2, 0),
    Kill("evolve/round_1/metrics.jsonl", 3, 3, "evolve/round_1/checkpoints/2/commit_success.txt"),
    Kill("evolve/round_2/held_out.jsonl", 2, 0),
    Kill("solve/answers.jsonl", 4, 0),
)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A work directory whose run was killed in each stage, and one whose run was not."""
    root = tmp_path_factory.mktemp("reason")
    settings, cut, whole = reasoned.settings(root), root / "cut", root / "whole"
    run_here(whole, **settings)
    forks.run(*([Job(str(cut), settings, kill=tuple(kill))] for kill in KILLS))
    for stage in ("injected", "bench"):  # they begin again: as killed before their last line
        (cut / stage / "done.json").unlink()
    run_here(cut, **settings)
    return cut, whole


@pytest.mark.parametrize("stage", reasoned.STAGES)
def test_killed_in_each_stage_that_reasons(killed: tuple[Path, Path], stage: str) -> None:
    cut, whole = (reasoned.left(workdir, stage) for workdir in killed)
    assert cut.keys() == whole.keys()
    for name in cut:
        assert cut[name] == whole[name], name
    starts = json.loads((killed[0] / stage / "run.json").read_text())["starts"]
    assert len(starts) == {"pairs": 1, "evolve": 4}.get(stage, 2)
