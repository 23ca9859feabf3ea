"""A user's own reward: a Python function by import path, in a separate process, with a deadline.

def reward(prompts, completions, gold, **columns) -> list of float or None

The arguments are lists of one item a completion: texts, gold answers, and the columns of the
problems' rows by their names (TRL's convention). None says that the reward does not apply.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from distill_jax.core.errors import ConfigError, RewardError

ARGUMENTS = ("prompts", "completions", "gold")
WORKER = Path(__file__).with_name("custom_worker.py")


def check_function(path: str, deadline_s: float) -> None:
    """Imports the function in a separate process, before any stage begins.

    Raises:
        ConfigError: its module cannot be imported, has no such name, or it cannot be called.
        RewardError: the import takes too long.
    """
    command = [sys.executable, str(WORKER), path, "--check"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RewardError(
            f"the import of {path} took more than {deadline_s} s",
            fix="make it faster, or raise rl.rewards.custom_deadline_s",
        ) from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ConfigError(
            f"custom={path}: {lines[-1] if lines else f'exit code {done.returncode}'}",
            wanted="module:function that can be imported from the current directory",
            fix="correct the name, or the module",
        )


class CustomReward:
    """Calls the function; starts its process at the first call, and again after a late one.

    Args:
        path: "module:function"; modules are looked for as `python -m` does.
        deadline_s: seconds for one batch, the import at the first included.
        late_in_row: so many late batches one after the other end the run. Where several hosts
            train one model it must be 1: a batch late on one of them would part their states.
        say: takes the warning of a batch without any reward, once.
    """

    def __init__(
        self,
        path: str,
        deadline_s: float,
        late_in_row: int = 3,
        say: Callable[[str], None] = logging.warning,
    ):
        self.path, self.deadline_s, self.late_in_row = path, deadline_s, late_in_row
        self._say: Callable[[str], None] | None = say
        self.late = 0  # batches without a reward, in all
        self._in_row = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1)  # so that neither a write nor a read outlasts it

    def __call__(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        gold: Sequence[str],
        columns: Mapping[str, Sequence[Any]],
    ) -> np.ndarray:
        """f32 [B], NaN where the reward does not apply, everywhere if it came too late.

        Raises:
            RewardError: the function raised, gave something else (NaN and infinity, too), or was
                late too often in a row.
        """
        if clash := set(ARGUMENTS) & columns.keys():
            raise ConfigError(
                f"columns {', '.join(sorted(clash))} in the data with a custom reward",
                wanted="other names: these are the function's own arguments",
                fix="rename them in the file",
            )
        arguments = {"prompts": prompts, "completions": completions, "gold": gold, **columns}
        done = False
        try:
            line = json.dumps({name: list(value) for name, value in arguments.items()})
            raw = self._thread.submit(self._ask, self._started(), line).result(self.deadline_s)
            done = True
        except TimeoutError:
            self.late += 1
            self._in_row += 1
            if self._in_row >= self.late_in_row:
                raise RewardError(
                    f"{self.path} took more than {self.deadline_s} s ({self._in_row} in a row)",
                    wanted="an answer before the deadline",
                    fix="make it faster, or raise rl.rewards.custom_deadline_s",
                ) from None
            return np.full(len(completions), np.nan, np.float32)
        finally:
            if not done:  # whatever interrupted: its reply must not be taken for the next
                self.close()
        self._in_row = 0
        return self._values(raw, arguments)

    def close(self) -> None:
        """Ends the process, and those that the function started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert stream is not None
                stream.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            pipe = subprocess.PIPE
            command = [sys.executable, str(WORKER), self.path]
            # Its own session: the terminal's Ctrl-C goes to the run alone.
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, start_new_session=True
            )
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], line: str) -> bytes:
        """The reply's line; without its end if the process ended."""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
        return process.stdout.readline()

    def _values(self, raw: bytes, arguments: Mapping[str, Sequence[Any]]) -> np.ndarray:
        if not raw.endswith(b"\n"):  # it ended before or in the middle of its reply
            code = self._process.wait() if self._process is not None else None
            raise RewardError(
                f"the process of {self.path} ended with code {code}",
                wanted="a list of rewards",
                fix="run the function by hand on what completions.jsonl holds",
            )
        reply = json.loads(raw)
        if "error" in reply:
            raise RewardError(
                f"{self.path}, called with {', '.join(arguments)}, raised\n{reply['error']}",
                fix="mend it, delete the directory of the stage, and run the command again",
            )
        values, count = reply["values"], len(arguments["completions"])
        if len(values) != count:
            raise RewardError(
                f"{self.path} gave {len(values)} rewards for {count} completions",
                wanted="one each, in order",
                fix="return None for a completion that the reward does not apply to",
            )
        return self._finite(values, arguments.get("id"))

    def _finite(self, values: Sequence[float | None], ids: Sequence[Any] | None) -> np.ndarray:
        """The rewards as f32, NaN in place of None."""
        given = np.array([value is not None for value in values], bool)
        with np.errstate(over="ignore"):  # infinite in float32, and refused for it
            out = np.array([np.nan if value is None else value for value in values], np.float32)
        if (bad := np.flatnonzero(given & ~np.isfinite(out))).size:
            raise RewardError(
                f"{self.path} gave {values[bad[0]]} for completion {bad[0] + 1} of {len(values)}"
                f"{f' (problem {ids[bad[0]]})' if ids else ''}; {bad.size} of the batch's rewards "
                "are not finite",
                wanted="finite numbers, or None where the reward does not apply",
                fix="mend it, delete the directory of the stage, and run the command again",
            )
        if values and not given.any() and self._say is not None:
            self._say(
                f"WARNING: {self.path} gave None for all {len(values)} completions of a batch: it "
                "has no part in that batch's rewards; said once"
            )
            self._say = None
        return out
