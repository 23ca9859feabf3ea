"""Worker processes: deadlines, replacement, threads, forks, signals, confinement."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest

from distill_jax.answers import check, equivalent, library, pool
from distill_jax.answers import worker as worker_process
from distill_jax.answers.pool import Pool, Worker, WorkerError
from distill_jax.answers.single import Finding

ROOT = Path(__file__).resolve().parents[2]
# Takes 20 s: a difference of 18,000 digits, and then of three times as many.
SLOW = "+".join(rf"\ln(2^{{{60_000 + k}}}+1)-\ln(2^{{{60_000 + k}}})" for k in range(8))


@pytest.fixture(scope="module")
def shared():
    shared = Pool(2)
    yield shared
    shared.close()


@pytest.fixture
def worker(shared):
    """Whatever the last test did to it, it has a process."""
    worker = shared.workers[0]
    assert worker.judge(r"\sqrt{8}", r"2\sqrt{2}").verdict == "right"
    return worker


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()]


def test_a_check_that_takes_too_long_is_undecided_and_the_next_goes_on(worker):
    process = worker.process.pid
    found = worker.judge(SLOW, "3")
    assert (found.verdict, found.reason) == ("undecided", "longer than 1 s")
    assert worker.judge("x+x", "2x").verdict == "right"
    assert worker.process.pid == process  # a new fork, not a new start


def test_a_killed_child_costs_one_verdict_at_most(worker):
    process = worker.process.pid
    os.kill(children(process)[0], signal.SIGKILL)
    found = worker.judge("x+x", "2x")
    assert found.verdict in ("right", "undecided")
    assert worker.judge("x+x", "2x").verdict == "right"
    assert worker.process.pid == process


def test_a_killed_worker_is_replaced(worker):
    os.kill(worker.process.pid, signal.SIGKILL)
    found = worker.judge("x+x", "2x")
    assert found.verdict in ("right", "undecided")
    assert worker.judge("x+x", "3x").verdict == "wrong"


def test_the_child_is_confined_and_dies_with_the_worker(worker):
    (child,) = children(worker.process.pid)
    status = Path(f"/proc/{child}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    worker.stop()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.01)
    raise AssertionError("the child lives on")


@pytest.mark.skipif(not library.INSTALLED, reason="needs math-verify")
def test_math_verify_is_loaded_where_it_is_asked(worker):
    process = worker.process.pid
    assert worker.judge("the sum of the limits", "3").verdict == "wrong"
    assert worker.process.pid == process
    # What is tidied first: a separator of Unicode within the operator.
    assert worker.judge("\\s\u200bum_{k=1}^{10} k", "55").verdict == "right"
    assert worker.judge(r"\int_0^1 x^2 dx", r"\frac13").verdict == "right"
    with_library = worker.process.pid
    assert with_library != process
    assert worker.judge("x+x", "2x").verdict == "right"
    assert worker.judge(r"\sum_{k=1}^{10} k", "54").verdict == "wrong"
    assert worker.process.pid == with_library


def test_a_check_that_waits_for_the_machine_is_not_cut(worker):
    (child,) = children(worker.process.pid)
    os.kill(child, signal.SIGSTOP)
    later = threading.Timer(1.5, os.kill, (child, signal.SIGCONT))
    later.start()
    assert worker.judge("x+x", "2x").verdict == "right"
    later.join()


def test_a_check_that_the_clock_cuts_is_not_kept(monkeypatch):
    monkeypatch.setattr(worker_process, "WALL_SECONDS", 0.1)
    child = worker_process._Child.__new__(worker_process._Child)
    child.pid = os.posix_spawnp("sleep", ["sleep", "60"], os.environ)
    child.wire, theirs = Pipe()
    assert child.ask(["1", "x", "x"]) is None
    assert Finding("undecided", child.end()) == pool.NO_ANSWER
    theirs.close()


def test_a_worker_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(pool.sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="did not start"):
        Worker().judge("x", "y")


def test_many_threads_get_their_own_verdicts(shared):
    wrong = []

    def ask(number: int) -> None:
        for k in range(10):
            same = (number + k) % 2 == 0
            other = f"{number * 10 + k}x" if same else f"{number * 10 + k + 1}x"
            found = shared.judge(f"{number * 10 + k}x+0", other)
            if found.verdict != ("right" if same else "wrong"):
                wrong.append((number, k, found))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_pairs_come_back_in_order(shared):
    pairs = [(f"{k}x+x", f"{k + 1 + k % 3}x") for k in range(30)]
    found = [finding.verdict for finding in shared.judge_all(pairs)]
    assert found == ["right" if k % 3 == 0 else "wrong" for k in range(30)]


def test_works_in_an_event_loop_and_leaves_signals_alone():
    fired = []
    before = signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)

        async def ask():
            return equivalent("x+x+x+x", "4x")

        assert asyncio.run(ask()).right
        while not fired:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert fired == [1]


class Interrupt(BaseException):
    pass


def test_an_interrupted_check_shifts_no_verdicts(worker):
    """A handler of the host's that raises in the middle of a check."""

    def interrupt(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupt):
            worker.judge(SLOW, "3")
    finally:
        signal.signal(signal.SIGALRM, before)
    found = [worker.judge(f"x+{k}+1", f"x+{k + 1 + k % 2}").verdict for k in range(4)]
    assert found == ["right", "wrong", "right", "wrong"]


def test_verdicts_are_remembered(monkeypatch):
    assert equivalent("x+x+5", "2x+5").right
    monkeypatch.setattr(check, "shared_pool", None)  # would fail if asked again
    assert equivalent("2x+5", "x+x+5").right


PROGRAM = """
import os, sys
from distill_jax.answers import equivalent
assert equivalent("x+x", "2x").right
child = os.fork()
if child == 0:
    os._exit(0 if equivalent("x+x+x", "3x").right else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert equivalent("x+x+x+x", "4x").right
from distill_jax.answers.pool import shared_pool
print(*[w.process.pid for w in shared_pool().workers if w.process])
"""


def test_a_forked_host_gets_workers_of_its_own_and_none_outlive_the_host():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    time.sleep(0.2)
    for pid in done.stdout.split():
        assert not Path(f"/proc/{pid}").exists()
