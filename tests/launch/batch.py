"""Command lines that share one start of Python: what they import is imported once.

Each still runs in its own process, forked before JAX has started: flags are parsed and
exit codes are given as by `python -m launch.main ...`. The collector of garbage does not look at
what was imported: in a fork it would copy every page, at the end as well.
"""

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# Seconds; a bound against hangs.
LIMIT = 240

PROGRAM = """
import gc
gc.disable()
from tests.launch import batch
batch.program()
"""


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


def run(
    commands: Mapping[str, Sequence[str]], env: Mapping[str, str], cwd: Path = ROOT
) -> dict[str, Done]:
    """Runs all at once; each is what follows `python`: -m MODULE ... or -c PROGRAM ..."""
    with tempfile.TemporaryDirectory() as place:
        asked = [
            [f"{place}/{number}", *command] for number, command in enumerate(commands.values())
        ]
        made = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            cwd=cwd,
            env=dict(env),
        )
        assert made.returncode == 0, made.stderr
        codes = json.loads(made.stdout)
        texts = [[Path(f"{file}.{n}").read_text() for n in (1, 2)] for file, *_ in asked]
    found = zip(commands, codes, texts, strict=True)
    return {name: Done(code, *pair) for name, code, pair in found}


def _codes(asked: list[list[str]]) -> Iterator[int]:
    """Forks for each command line; in the fork, this runs it and does not return."""
    begun = []
    for file, *command in asked:
        begun.append(os.fork())
        if not begun[-1]:
            _become(file, command)
    for process in begun:
        yield os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _become(file: str, command: list[str]) -> None:
    signal.alarm(LIMIT)
    for number in (1, 2):
        os.dup2(os.open(f"{file}.{number}", os.O_WRONLY | os.O_CREAT), number)
    kind, program, *words = command
    sys.argv = [kind, *words]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        own: dict[str, Any] = {"__name__": "__main__"}
        exec(program, own)
    sys.exit()


def program() -> None:
    # What launch.main imports; itself it is run by each.
    from ml_collections import config_flags  # noqa: F401

    import distill_jax.stages.runner  # noqa: F401

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as in conftest.py
    gc.enable()
    print(json.dumps(list(_codes(json.load(sys.stdin)))))
