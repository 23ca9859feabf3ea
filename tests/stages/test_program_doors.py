"""Hostile programs through each stage that runs programs: no effect on the host, none is right."""

import json
import sys
from pathlib import Path

import pytest

from tests.profile import NIGHTLY
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.processes import run_alone
from tests.stages.small import environment

DOORS = {"file", "teacher", "rl", "evolve", "solve", "concise", "evaluate", "turns"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp")
@pytest.mark.timeout(1800)
def test_no_door_lets_an_attack_through(tmp_path: Path) -> None:
    """By day a third of the attacks, each through one door; at night all through each."""
    report, share = tmp_path / "report.json", [] if NIGHTLY else ["--share"]
    run_alone("tests.stages.attacked", str(report), *share, timeout=1700, env=environment())
    found = json.loads(report.read_text())
    assert found.keys() == DOORS
    assert {name: one["effects"] for name, one in found.items() if one["effects"]} == {}
    # They reached the sandbox: the task read a program in nearly all of them, and each was run.
    assert {name: one["not_run"] for name, one in found.items() if one["not_run"]} == {}
    assert all(one["ran"] > 0.8 * one["attacks"] > 0 for one in found.values())
    total = sum(one["attacks"] for one in found.values())
    assert total > (0.9 * len(DOORS) * len(ATTACKS) if NIGHTLY else 0.3 * len(ATTACKS))
