"""kill -9 while orbax writes: the next start finds a whole checkpoint, never half of one."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from distill_jax.training.checkpoint import Checkpointer

# Saves one step after another, resuming; every array holds its own step, so that a mixture of two
# steps would be seen. 4 MB in 8 arrays give the killer time to hit a write.
WRITER = """
import sys
import numpy as np
from distill_jax.training.checkpoint import Checkpointer
example = {f"x{i}": np.zeros(1 << 17, np.float32) for i in range(8)}
with Checkpointer(sys.argv[1]) as saver:
    restored = saver.restore_latest(example)
    step = restored.step if restored else 0
    print("start", step, flush=True)
    while True:
        step += 1
        saver.save(step, {name: x + step for name, x in example.items()}, {"step": step})
        print("step", step, flush=True)
"""


def run_and_kill(directory: Path, steps: int, delay: float) -> tuple[int, int]:
    """Starts the writer, kills it `delay` s after its step number `steps`; (first, last) step."""
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "XLA_FLAGS": ""}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True, env=env
    )
    assert writer.stdout is not None
    try:
        first = int(re.fullmatch(r"start (\d+)\n", writer.stdout.readline())[1])  # type: ignore[index]
        for _ in range(steps):
            writer.stdout.readline()
        time.sleep(delay)
    finally:
        writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read()
    writer.wait()
    seen = re.findall(r"step (\d+)", rest)
    return first, int(seen[-1]) if seen else first + steps


def test_killed_while_saving(tmp_path: Path) -> None:
    example = {f"x{i}": np.zeros(1 << 17, np.float32) for i in range(8)}
    before = 0
    half_written = 0
    for round_number, delay in enumerate((0.0, 0.007, 0.013, 0.02)):
        first, last = run_and_kill(tmp_path, steps=2, delay=delay)
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
