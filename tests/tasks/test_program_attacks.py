"""Hostile programs through the task's judge: no effect on the host, and a verdict on each."""

import json
import sys
from pathlib import Path

import pytest

from tests.profile import NIGHTLY
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.processes import run_alone

# By day a handful, which takes some of the families; all of them at night.
STEP = 1 if NIGHTLY else 25
STATUSES = {
    "ok", "no_output", "error", "assertion", "syntax", "rejected",
    "timeout", "memory", "output", "violation", "no_program:empty",
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp")
@pytest.mark.timeout(900)
def test_attacks_have_no_effect_and_are_wrong(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run_alone("tests.tasks.judged_attacks", str(report), str(STEP), timeout=800)
    found = json.loads(report.read_text())
    assert found["count"] == len(ATTACKS[::STEP]) >= 5
    assert (found["effects"], found["right"]) == ([], 0)
    # Neither late nor lost: the machine ran each of them.
    assert set(found["statuses"]) <= STATUSES and len(found["statuses"]) >= 3
