"""What /proc says about the processes and descriptors that a sandbox makes; attacks run apart."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def descendants(root: int) -> set[int]:
    """Process ids below `root`, zombies included."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    more = {root}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - found
        found |= more
    return found


def zygotes(root: int | None = None) -> set[int]:
    """Process ids of zygotes and their children, below this process or another."""
    return {pid for pid in descendants(root or os.getpid()) if "sandbox.zygote" in command(pid)}


def command(pid: int) -> str:
    """The command line; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def lives(pid: int) -> bool:
    """Whether it exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descriptors() -> set[str]:
    """This process's open descriptors."""
    return set(os.listdir("/proc/self/fd"))


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Whether it becomes true."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def run_alone(module: str, *arguments: str, timeout: float, env: dict[str, str] | None = None):
    """Runs a module of the tests apart and kills what it leaves; AssertionError where it fails."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, stderr = process.communicate(timeout=timeout)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    assert process.returncode == 0, stderr[-3000:]
