"""Every program such as models write for mathematics prints exactly what it should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill_jax.sandbox import Sandbox
from distill_jax.sandbox.probe import probe
from tests.sandbox.legit import LONG, PROGRAMS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(probe().level == "none", reason="no program can be held on this machine"),
]


def test_there_are_enough_programs_and_each_has_a_name() -> None:
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS) >= 220
    assert len({program.source for program in PROGRAMS}) == len(PROGRAMS)
    assert max(len(program.source.splitlines()) for program in LONG) >= 200


def test_all_in_one_batch_with_default_limits() -> None:
    with Sandbox(allow_partial=True) as sandbox:
        results = sandbox.run_batch([program.source for program in PROGRAMS])
    wrong = [
        (program.name, result.status, result.stdout, result.stderr)
        for program, result in zip(PROGRAMS, results, strict=True)
        if (result.status, result.stdout) != ("ok", program.expected)
    ]
    assert wrong == []


# A fork for each program: the next one sees a python that has run none. Taking the interpreter
# down would cost more than most programs.
FORKS = """
import json, os, sys
for number, source in enumerate(json.loads(sys.argv[2])):
    if os.fork() == 0:
        for name, stream in (("out", 1), ("err", 2)):
            file = os.open(f"{sys.argv[1]}/{number}.{name}", os.O_CREAT | os.O_WRONLY)
            os.dup2(file, stream)
        exec(source, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_none_writes_to_the_standard_error_nor_needs_the_order_of_hashes(tmp_path: Path) -> None:
    """In plain python, whose seed of hashes is another in each run of the tests."""
    plain = [program for program in PROGRAMS if "sympy" not in program.source]
    assert len(plain) >= 120
    sources = json.dumps([program.source for program in plain])
    command = [sys.executable, "-I", "-X", "utf8", "-c", FORKS, str(tmp_path), sources]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    codes = done.stdout.split()
    for number, (program, code) in enumerate(zip(plain, codes, strict=True)):
        texts = [(tmp_path / f"{number}.{name}").read_text("utf-8") for name in ("out", "err")]
        assert [code, *texts] == ["0", program.expected, ""], program.name
