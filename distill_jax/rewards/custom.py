"""A user's own reward: a Python function by import path, in a process of its own, with a deadline.

def reward(prompts, completions, gold, **columns) -> list of float or None

The arguments are lists of one item a completion: texts, gold answers, and the problems' other
columns (TRL's convention). None says that the reward does not apply.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import ConfigError, RewardError

WORKER = Path(__file__).with_name("custom_worker.py")


class _Late(Exception):
    """No reply before the deadline."""


class CustomReward:
    """Calls the function; starts its process at the first call, and again after a late one.

    Args:
        path: "module:function"; modules are looked for as `python -m` does.
        deadline_s: seconds for one batch, the import at the first included.
        late_in_row: so many late batches one after the other end the run. Where several hosts
            train one model it must be 1: a batch late on one of them would part their states.
    """

    def __init__(self, path: str, deadline_s: float, late_in_row: int = 3):
        self.path, self.deadline_s, self.late_in_row = path, deadline_s, late_in_row
        self.late = 0  # batches without a reward, in all
        self._in_row = 0
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        gold: Sequence[str],
        columns: Mapping[str, Sequence[Any]],
    ) -> np.ndarray:
        """f32 [B], NaN where the reward does not apply, everywhere if it came too late.

        Raises:
            RewardError: the function raised, gave something else, or was late too often in a row.
        """
        names = {"prompts", "completions", "gold"}
        if clash := names & columns.keys():
            raise ConfigError(
                f"columns {', '.join(sorted(clash))} in the data with a custom reward",
                wanted="other names: these are the function's own arguments",
            )
        arguments = {"prompts": prompts, "completions": completions, "gold": gold, **columns}
        done = False
        try:
            reply = self._ask({name: list(value) for name, value in arguments.items()})
            done = True
        except _Late:
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
        return self._values(reply, len(completions))

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait()

    def _ask(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        deadline = time.monotonic() + self.deadline_s
        self._number += 1
        line = json.dumps({"number": self._number, "arguments": arguments}).encode() + b"\n"
        process = self._start()
        assert process.stdin is not None and process.stdout is not None
        self._write(process.stdin.fileno(), line, deadline)
        raw = self._read_line(process.stdout.fileno(), deadline)
        try:
            reply = json.loads(raw)
        except ValueError:
            reply = {}
        if reply.get("number") != self._number:
            raise RewardError(
                f"the process of {self.path} answered {raw[:80]!r}", wanted="its reply"
            )
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            pipe = subprocess.PIPE
            command = [sys.executable, str(WORKER), self.path]
            # A session of its own: the terminal's Ctrl-C is the run's alone.
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, bufsize=0, start_new_session=True
            )
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                os.set_blocking(stream.fileno(), False)
        return self._process

    def _write(self, fd: int, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(fd, select.POLLOUT, deadline)
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return  # the reply's end of file says what there is to say

    def _read_line(self, fd: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            self._wait(fd, select.POLLIN, deadline)
            more = os.read(fd, 1 << 20)
            if not more:
                code = self._process.wait() if self._process is not None else None
                raise RewardError(
                    f"the process of {self.path} ended with code {code}",
                    wanted="a list of rewards",
                    fix="run the function by hand on what completions.jsonl holds",
                )
            parts.append(more)
        return b"".join(parts)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1e3):
            raise _Late

    def _values(self, reply: Mapping[str, Any], count: int) -> np.ndarray:
        if "error" in reply:
            raise RewardError(
                f"{self.path} raised\n{reply['error']}", fix="mend it and run the command again"
            )
        values = reply["values"]
        if len(values) != count:
            raise RewardError(
                f"{self.path} gave {len(values)} rewards for {count} completions",
                wanted="one each, in order",
            )
        return np.array([np.nan if value is None else value for value in values], np.float32)
