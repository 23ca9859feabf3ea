"""Hostile programs through the task's judge: no effect on the host, and a verdict on each."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.profile import NIGHTLY
from tests.sandbox.attacks import ATTACKS

ROOT = Path(__file__).resolve().parents[2]
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
    command = [sys.executable, "-m", "tests.tasks.judged_attacks", str(report), str(STEP)]
    with subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, stderr = process.communicate(timeout=800)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    assert process.returncode == 0, stderr[-3000:]
    found = json.loads(report.read_text())
    assert found["count"] == len(ATTACKS[::STEP]) >= 5
    assert (found["effects"], found["right"]) == ([], 0)
    # Neither late nor lost: the machine ran each of them.
    assert set(found["statuses"]) <= STATUSES and len(found["statuses"]) >= 3
