"""Runs in processes of their own, which are forks of one: the imports, seconds each, are paid once.

This module is also the program. It imports everything and starts no JAX; each of its forks does.
The collector of garbage does not look at what was imported: in a fork it would copy every page.
"""

import ast
import contextlib
import gc
import importlib
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.stages.small import ROOT

PROGRAM = """
import gc
gc.disable()
from tests.stages import forks
forks.program()
"""


UNNAMED = -9
INTERRUPTED = 3


class Kill(NamedTuple):
    """SIGKILL once the file has this many lines, up to 50 ms later.

    So that no kill comes too late to test anything, its process waits there: a training stage
    after `hold` steps, a store of answers at the line after these, half of it written.
    saved: a file that must be there, too, e.g. of a checkpoint, which is written meanwhile.
    With `lines` UNNAMED the file is written, and has not got its name.
    """

    file: str
    lines: int
    hold: int
    saved: str = ""


class Stop(NamedTuple):
    """SIGTERM to one process of a group after a step of a stage; all then end by Interrupted."""

    stage: str
    step: int
    process: int


class Job(NamedTuple):
    """One process: the small run with these changes; its standard error goes to WORKDIR.N.err.

    config: "module:function", what that makes of the changes in place of the small run.
    """

    workdir: str
    changes: dict[str, Any]
    devices: int = 1
    process: tuple[str, int, int] | None = None  # as jax.distributed.initialize takes them
    kill: tuple[str, int, int, str] | None = None  # a Kill
    config: str = "tests.stages.small:small"
    stop: tuple[str, int, int] | None = None  # a Stop


def run(*groups: list[Job]) -> list[str]:
    """Runs the groups one after another, the jobs of a group together; standard error of each job.

    Those of a group that are to be killed are killed together, when the last of them is to be.

    Fails unless each is killed or stopped as it asks for, and all others end with exit code 0.
    """
    plain = repr([[tuple(job) for job in group] for group in groups])
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, plain], cwd=ROOT, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = program.communicate(timeout=900)
    finally:
        if program.poll() is None:  # with its forks
            os.killpg(program.pid, signal.SIGKILL)
    assert program.returncode == 0, errors[-3000:]
    jobs = [job for group in groups for job in group]
    return [_errors(job, number).read_text() for number, job in enumerate(jobs)]


def _errors(job: Job, number: int) -> Path:
    return Path(f"{job.workdir}.{number}.err")


def _fork(job: Job, number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(_errors(job, number), os.O_WRONLY | os.O_CREAT), 2)
        code = _run(job)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)  # not what the parent has to do at its end


def _run(job: Job) -> int:
    import jax

    from distill_jax.run.stop import Interrupted
    from distill_jax.stages import runner

    jax.config.update("jax_num_cpu_devices", job.devices)
    if job.process:
        jax.distributed.initialize(*job.process)
    if job.kill:
        _wait_for(Kill(*job.kill), Path(job.workdir))
    if job.stop:
        _stop_at(Stop(*job.stop))
    module, _, name = job.config.partition(":")
    config, code = getattr(importlib.import_module(module), name)(**job.changes), 0
    try:
        runner.run(config, Path(job.workdir))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        code = INTERRUPTED
    if job.process:
        jax.distributed.shutdown()
    return code


def _stop_at(stop: Stop) -> None:
    """Makes this process, if it is the one, ask itself to stop."""
    import jax

    from distill_jax.training.records import Recorder

    note = Recorder.metrics

    def metrics(self: Recorder, step: int, figures: Mapping[str, Any]) -> None:
        note(self, step, figures)
        if (self.workdir.name, step, jax.process_index()) == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    Recorder.metrics = metrics  # type: ignore


def _wait_for(kill: Kill, workdir: Path) -> None:
    """Makes this process wait where it is to be killed."""
    from distill_jax.core import files
    from distill_jax.inference.store import AnswerStore, Batch
    from distill_jax.training.records import Recorder

    file, note, add, whole = workdir / kill.file, Recorder.metrics, AnswerStore.add, files.whole

    def metrics(self: Recorder, step: int, figures: Mapping[str, Any]) -> None:
        note(self, step, figures)
        if step == kill.hold and self.workdir.name == file.parent.name:
            signal.pause()

    def torn(self: AnswerStore, batch: Batch) -> None:
        if self.path == file and _lines(file) >= kill.lines:
            with file.open("a") as handle:
                handle.write('{"decoding":"')
            signal.pause()
        add(self, batch)

    @contextlib.contextmanager
    def unnamed(path: Path) -> Iterator[Path]:
        with whole(path) as partial:
            yield partial
            if path == file and kill.lines == UNNAMED:
                signal.pause()

    Recorder.metrics, AnswerStore.add, files.whole = metrics, torn, unnamed  # type: ignore


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else -1


def _wait_to_kill(pid: int, job: Job) -> None:
    kill = Kill(*job.kill or ())
    path, limit = Path(job.workdir) / kill.file, time.monotonic() + 240
    saved = Path(job.workdir) / kill.saved

    def there() -> bool:
        if kill.lines == UNNAMED:
            return any(path.parent.glob(f"{path.name}.*.partial"))
        return _lines(path) >= kill.lines and saved.exists()

    while not there():
        ended, _ = os.waitpid(pid, os.WNOHANG)
        assert not ended and time.monotonic() < limit, (
            f"{path}: not {kill.lines} lines, or no {saved}"
        )
        time.sleep(0.002)


def _kill(pids: list[int]) -> None:
    """All at once: none sees that another is gone, which would end it by an error."""
    time.sleep(random.uniform(0, 0.05))
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def main(groups: list[list[Job]]) -> None:
    number = 0
    for group in groups:
        started = []
        for job in group:
            started.append((_fork(job, number), job, number))
            number += 1
        killed = [(pid, job) for pid, job, _ in started if job.kill]
        for pid, job in killed:
            _wait_to_kill(pid, job)
        _kill([pid for pid, _ in killed])
        for pid, job, its in started:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            wanted = -signal.SIGKILL if job.kill else INTERRUPTED if job.stop else 0
            assert code == wanted, f"exit code {code}\n{_errors(job, its).read_text()}"


def program() -> None:
    # What a run imports late.
    import transformers  # noqa: F401

    import distill_jax.stages.runner  # noqa: F401

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as in conftest.py
    gc.enable()
    main([[Job(*job) for job in group] for group in ast.literal_eval(sys.argv[1])])
