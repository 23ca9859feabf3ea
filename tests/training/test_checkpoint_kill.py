"""kill -9 while orbax writes: the next start finds a whole checkpoint, never half of one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.training.checkpoint import Checkpointer

# For each line of standard input a fork, which knows nothing of those before it, saves one step
# after another, resuming; every array holds its own step, so that a mixture of two steps would be
# seen. 4 MB in 8 arrays give the killer time to hit a write.
WRITERS = """
import os, sys
import numpy as np
from distill_jax.training.checkpoint import Checkpointer

def write():
    example = {f"x{i}": np.zeros(1 << 17, np.float32) for i in range(8)}
    with Checkpointer(sys.argv[1]) as saver:
        restored = saver.restore_latest(example)
        step = restored.step if restored else 0
        print("start", step, os.getpid(), flush=True)
        while True:
            step += 1
            saver.save(step, {name: x + step for name, x in example.items()}, {"step": step})
            print("step", step, flush=True)

for _ in sys.stdin:
    if not (child := os.fork()):
        write()
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def start_and_kill(writers: subprocess.Popen[str], steps: int, delay: float) -> tuple[int, int]:
    """Has a writer started, kills it `delay` s after its step number `steps`; (first, last)."""
    assert writers.stdin is not None and writers.stdout is not None
    print(file=writers.stdin, flush=True)
    first, pid = map(int, re.fullmatch(r"start (\d+) (\d+)\n", writers.stdout.readline()).groups())  # type: ignore[union-attr]
    for _ in range(steps):
        writers.stdout.readline()
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    rest = []
    while (line := writers.stdout.readline()).startswith("step "):
        rest.append(line)
    assert line == f"ended {-signal.SIGKILL}\n"
    seen = [int(line.split()[1]) for line in rest]
    return first, seen[-1] if seen else first + steps


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "XLA_FLAGS": ""}
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env=env, start_new_session=True
    ) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)  # and a writer that a failure left behind


def test_killed_while_saving(tmp_path: Path, writers: subprocess.Popen[str]) -> None:
    example = {f"x{i}": np.zeros(1 << 17, np.float32) for i in range(8)}
    before = 0
    half_written = 0
    for round_number, delay in enumerate((0.0, 0.007, 0.013, 0.02)):
        first, last = start_and_kill(writers, steps=2, delay=delay)
        # Each start resumes from what the inspection below found.
        assert first == before
        half_written += any(not p.name.isdigit() for p in tmp_path.iterdir())
        with Checkpointer(tmp_path) as reader:
            restored = reader.restore_latest(example)
        # save(s) waits for the write of s − 1: at most the last two are lost.
        assert restored is not None and restored.step >= max(last - 1, before), round_number
        assert restored.meta == {"step": restored.step}
        for x in restored.state.values():
            assert jnp.all(x == restored.step)
        # What was half written never counted as a checkpoint, so none is set aside as damaged.
        assert not list(tmp_path.glob("damaged-*"))
        before = restored.step
    # Cleaning up half-written steps goes on in the background; a save waits for it.
    with Checkpointer(tmp_path) as saver:
        saver.save(before + 1, example)
    assert all(p.name.isdigit() for p in tmp_path.iterdir())
    assert half_written, "no kill hit a write: the test proves nothing"
