"""Nothing is left: no process, descriptor, file or shared memory, even when the host is killed."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distill_jax.sandbox import Layers, Limits, Sandbox, frames, process
from tests.sandbox.processes import descendants, descriptors, eventually, lives, zygotes

PROGRAMS = [
    "print(1)",
    "1/0",
    "import os",
    "def f(:",
    "print('x' * 10**6)",
    "x = [0] * 10**10",
    "exit(3)",
]


def traces() -> tuple[set[str], set[int], set[str]]:
    """Of this process alone: others may work on this machine."""
    own = {name for name in os.listdir("/dev/shm") if Path("/dev/shm", name).owner() == "nobody"}
    return descriptors(), descendants(os.getpid()), own


def in_zygote(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_after_many_programs_all_is_as_before() -> None:
    before = traces()
    with Sandbox(workers=2) as own:
        own.run_batch(PROGRAMS * 2)
        started = {pid: in_zygote(pid) for pid in zygotes()}
        running = traces()
        results = own.run_batch(PROGRAMS * 40)
        assert traces() == running
        assert {pid: in_zygote(pid) for pid in zygotes()} == started
    assert [r.status for r in results[: len(PROGRAMS)]] == [
        "ok", "error", "rejected", "rejected", "output", "memory", "error",
    ]  # fmt: skip
    assert traces() == before


def test_a_program_killed_at_a_limit_leaves_nothing(hasty: Sandbox) -> None:
    before = traces()
    assert hasty.run("while True: pass").status == "timeout"
    assert hasty.run("while True: print('x' * 1000)").status == "output"
    assert traces() == before


def test_descendants_are_ended_where_the_filter_is_gone() -> None:
    """A detached grandchild is found by the subreaper."""
    program = """
import os, time
go, ready = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.write(ready, b'1')
        time.sleep(60)
    os._exit(0)
os.read(go, 1)
"""
    bare = Layers(syntax=False, identity=False, limits=False, filter=False)
    before = descendants(os.getpid())
    with Sandbox(layers=bare, limits=Limits(wall_s=3.0)) as own:
        running = descendants(os.getpid())
        result = own.run(program)
        assert result.status == "ok", result
        assert not lives(int(result.stdout))  # wherever it hangs in the tree of processes
        assert descendants(os.getpid()) == running
        assert own.run("print(1)").stdout == "1\n"
    assert descendants(os.getpid()) == before


HOST = """
import os, sys, threading, time
from distill_jax.sandbox import Layers, Sandbox
sandbox = Sandbox(workers=2, layers=Layers(syntax=False))
{extra}
threading.Thread(target=sandbox.run, args=["import time; time.sleep(60)"], daemon=True).start()
time.sleep(0.5)
print("running", flush=True)
time.sleep(60)
"""


def kill_host(extra: str) -> list[int]:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST.format(extra=extra)], stdout=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    try:
        assert host.stdout.readline() == "running\n"
        started = zygotes(host.pid)
        assert len(started) >= 3
    finally:
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
        host.stdout.close()
    return sorted(started)


def test_a_killed_host_leaves_no_process() -> None:
    started = kill_host("")
    assert eventually(lambda: not any(map(lives, started)), within_s=5)


def test_a_killed_host_leaves_no_process_where_a_fork_of_it_holds_the_sockets() -> None:
    started = kill_host("if os.fork() == 0:\n    time.sleep(8)\n    os._exit(0)")
    assert eventually(lambda: not any(map(lives, started)), within_s=5)


def test_a_zygote_ends_by_itself_when_the_host_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a program, and with exit code 0: it was not killed."""
    monkeypatch.setattr(process, "LEAVE_S", 60.0)
    zygote = process.Zygote("light", Limits(wall_s=100.0), Layers(syntax=False))
    zygote.await_ready(60.0)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            zygote.exchange(1, frames.SKIP_SYNTAX, b"import time; time.sleep(100)", 100.0)
        except process.ZygoteLost as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert eventually(lambda: len(descendants(zygote._process.pid)) == 1)
    (child,) = descendants(zygote._process.pid)
    zygote.hang_up()
    thread.join()
    zygote.close()
    assert zygote._process.returncode == 0
    assert len(failures) == 1 and not lives(child)


def test_a_sandbox_nobody_closed_ends_with_its_host() -> None:
    program = (
        "from distill_jax.sandbox import Sandbox\ns = Sandbox()\nprint(s.run('print(1)').stdout)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("1\n\n", 0)
