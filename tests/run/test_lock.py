"""The lock with real processes: refused while held, free after the end and after kill -9."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distill_jax.core.errors import BusyError, DataError
from distill_jax.run import lock

ROOT = Path(__file__).resolve().parents[2]
# Holds the lock of argv[1] until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from distill_jax.run import lock
with lock.held_here(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def start(path: Path, program: str = HOLDER) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("name", ["", "answers.jsonl"])
def test_a_second_process_is_refused_with_the_holder_named(tmp_path: Path, name: str):
    path = tmp_path / name
    holder = start(path)
    with pytest.raises(BusyError) as caught, lock.held(path):
        pass
    said = str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()} since 20" in said
    assert str(path) in said and "fix: " in said and "\n" not in said
    holder.communicate()
    with lock.held(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_kill_minus_nine_leaves_a_file_and_no_lock(tmp_path: Path):
    holder = start(tmp_path)
    holder.kill()
    assert holder.wait() == -signal.SIGKILL
    file = lock.lock_file(tmp_path)
    assert f"process {holder.pid} " in file.read_text()
    with lock.held(tmp_path):  # the old text is replaced
        assert re.fullmatch(rf"process {os.getpid()} on \S+ since \S+\n", file.read_text())
        with pytest.raises(BusyError, match=f"process {os.getpid()} "), lock.held(tmp_path):
            pass
    assert not file.exists()


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path):
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    program = HOLDER.replace('print("held"', f'print({sleeper}.pid, flush=True); print("held"')
    program = program.replace("import sys", "import subprocess, sys", 1)
    holder = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    try:
        os.kill(child, 0)  # it is still there
        with lock.held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_that_was_removed_between_open_and_flock_is_taken_again(tmp_path, monkeypatch):
    real, calls = lock.fcntl.flock, []

    def removed_first(number: int, how: int) -> None:
        if not calls:
            lock.lock_file(tmp_path).unlink()
        calls.append(number)
        real(number, how)

    monkeypatch.setattr(lock.fcntl, "flock", removed_first)
    with lock.held(tmp_path):
        assert lock.lock_file(tmp_path).exists() and len(calls) == 2
        monkeypatch.setattr(lock.fcntl, "flock", real)
        with pytest.raises(BusyError), lock.held(tmp_path):
            pass


def test_an_error_inside_frees_the_lock(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), lock.held(tmp_path):
        _ = 1 / 0
    with lock.held(tmp_path):
        pass


def test_other_processes_of_a_job_take_no_lock_and_stop_with_process_0(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.jax, "process_index", lambda: 1)
    monkeypatch.setattr(lock.jax, "process_count", lambda: 2)
    for busy in (False, True):
        monkeypatch.setattr(
            lock.multihost_utils, "broadcast_one_to_all", lambda mine, busy=busy: mine | busy
        )
        with lock.held_here(tmp_path):  # by process 0
            if busy:
                with pytest.raises(BusyError, match="process 0"), lock.held(tmp_path):
                    pass
            else:
                with lock.held(tmp_path):
                    pass


def test_a_file_system_without_locks_is_reported_and_used(tmp_path, monkeypatch, capsys):
    def no_locks(number: int, how: int) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    with lock.held(tmp_path):
        pass
    assert "cannot be locked (No locks available)" in capsys.readouterr().err


def test_a_place_that_takes_no_files_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"), lock.held(tmp_path / "file" / "inner"):
        pass
