"""Reads /proc: who descends from whom, and what others could have changed about a process."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def _stat(pid: int) -> tuple[int, str] | None:
    """Parent and state; None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return int(parent), state


def descendants(top: int, besides: int = 0) -> dict[int, str]:
    """Every process below `top` with its command line, zombies included.

    Args:
        top: process id.
        besides: a process whose subtree is left out.
    """
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))) is not None:
            children.setdefault(stat[0], []).append(int(entry))
    found, waiting = {}, [top]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            if pid != besides:
                waiting.append(pid)
                found[pid] = _command(pid)
    return found


def _command(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return raw.replace(b"\0", b" ").decode(errors="replace")[:1000] or "zombie"


def traits(pid: int) -> dict[str, object]:
    """What another process could set from outside: limits, priority, affinity, tracer, state."""
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(
            line.split(":\t", 1)
            for line in (folder / "status").read_text().splitlines()
            if ":\t" in line
        )
        return {
            "limits": (folder / "limits").read_text(),
            "affinity": sorted(os.sched_getaffinity(pid)),
            "priority": os.getpriority(os.PRIO_PROCESS, pid),
            "policy": os.sched_getscheduler(pid),
            "oom": (folder / "oom_score_adj").read_text(),
            "tracer": status["TracerPid"].strip(),
            "state": status["State"][0],
        }
    except (FileNotFoundError, ProcessLookupError):
        return {"state": "gone"}


def kill(pid: int) -> None:
    """SIGKILL, if it still runs."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def reap(pids: Iterable[int], wait: bool = False) -> None:
    """Takes the status of adopted orphans among `pids`; with `wait` for at most a second."""
    deadline = time.monotonic() + 1
    waiting = list(pids)
    while waiting:
        for pid in list(waiting):
            try:
                done = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                done = not Path(f"/proc/{pid}").exists() or not wait
            if done:
                waiting.remove(pid)
        if not wait or time.monotonic() > deadline:
            return
        time.sleep(0.005)
