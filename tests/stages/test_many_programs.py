"""Thousands of programs through a run's task, some of whose workers are killed, leave nothing."""

import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from distill_jax.data.fences import fenced
from distill_jax.data.problem import Problem
from distill_jax.run.run import Run
from distill_jax.sandbox import shared
from distill_jax.tasks import program_runs
from tests.profile import NIGHTLY
from tests.sandbox.processes import descendants, descriptors, eventually, zygotes
from tests.stages.small import small

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp"),
]

MANY, SIZE = (10_000, 500) if NIGHTLY else (300, 100)

# By number of the program: no two are the same text, so that each of them is run.
FORMS = (
    "print({} + 1)",
    "print({} + 1)",
    "import sympy\nprint(sympy.Integer({}) + 1)",
    "print({} / 0)",
    "import os\nprint({})",
    "def f(: {}",
    "exit({})",
    "x = [0] * 10**10\nprint({})",
    "print('{}' * 10**5)",
    "x = {}",
)
RIGHT = (0, 1, 2)


def traces() -> tuple[set[str], int, set[int], set[str]]:
    """Descriptors, number of threads, processes below this one, files of programs."""
    own = {name for name in os.listdir("/dev/shm") if Path("/dev/shm", name).owner() == "nobody"}
    return descriptors(), threading.active_count(), descendants(os.getpid()), own


def counts(found: tuple[set[str], int, set[int], set[str]]) -> tuple[int, int, int]:
    return len(found[0]), found[1], len(found[2])


@contextmanager
def killing(others: set[int]) -> Iterator[Counter[str]]:
    """Zygotes and their children but `others` are killed, one about each half second."""
    killed, over, drawn = Counter[str](), threading.Event(), random.Random(0)

    def kill() -> None:
        while not over.wait(0.5):
            for pid in drawn.sample(sorted(zygotes() - others), 1):
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed["killed"] += 1
                except ProcessLookupError:
                    pass  # a program that ended meanwhile

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_many_programs_of_a_run_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.close_shared()
    program_runs.forget()
    (tmp_path / "files").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "files"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "files"))
    config = small(
        task="program", programs__instruction="", programs__wall_s=30.0, programs__workers=2
    )
    others, statuses = zygotes(), Counter[str]()
    with Run(config, tmp_path / "run") as run:
        assert run.data.vocab  # the tokenizer's threads and files are there before
        before = traces()
        task = run.data.task

        def judge(numbers: range) -> None:
            texts = [fenced(FORMS[n % len(FORMS)].format(n)) for n in numbers]
            problems = [Problem(str(n), f"{n} and 1?", "", str(n + 1)) for n in numbers]
            found = task.judge(problems, texts, np.ones(len(texts), bool))
            statuses.update(str(one["status"]) for one in found.details)
            for n, right, one in zip(numbers, found.right_B, found.details, strict=True):
                if right == (n % len(FORMS) in RIGHT) or one["status"] == "lost":
                    continue
                # The program itself was killed: what ended it is not known, so it failed.
                assert not right and one["status"] == "error"
                statuses["struck"] += 1

        judge(range(20))  # both kinds of zygote
        assert len(zygotes() - others) >= 3
        running = traces()
        with killing(others) as killed:
            start = 20
            # A fast machine runs them all before the first is killed.
            while start < 20 + MANY or not killed["killed"]:
                judge(range(start, start + SIZE))
                start += SIZE
        print(f"{start} programs, {killed['killed']} processes killed, {dict(statuses)}")
        assert killed["killed"] > (20 if NIGHTLY else 0)

        def replaced() -> bool:
            # A lost worker is replaced when its next program comes.
            nonlocal start
            judge(range(start, start + 20))
            start += 20
            return counts(traces()) == counts(running)

        # Other workers are in the places of the lost ones, and nothing else is.
        assert eventually(replaced), (traces(), running)
        assert traces()[3] == before[3]
        assert statuses["lost"] + statuses["struck"] <= killed["killed"]
        assert statuses["late"] == 0
        task.close()
        assert eventually(lambda: traces() == before)
    assert zygotes() <= others and list((tmp_path / "files").iterdir()) == []
