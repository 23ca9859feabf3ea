"""Every program such as models write for mathematics prints exactly what it should."""

import subprocess
import sys

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
    with Sandbox(workers=2, allow_partial=True) as sandbox:
        results = sandbox.run_batch([program.source for program in PROGRAMS])
    wrong = [
        (program.name, result.status, result.stdout, result.stderr)
        for program, result in zip(PROGRAMS, results, strict=True)
        if (result.status, result.stdout) != ("ok", program.expected)
    ]
    assert wrong == []


def test_none_writes_to_the_standard_error_nor_needs_the_order_of_hashes() -> None:
    """Plain python, with a new seed of hashes each time: the expectations are the programs' own."""
    plain = [program for program in PROGRAMS if "sympy" not in program.source]
    assert len(plain) >= 120
    for program in plain:
        done = subprocess.run(
            [sys.executable, "-I", "-X", "utf8", "-c", program.source],
            capture_output=True,
            check=False,
        )
        found = (done.returncode, done.stdout.decode(), done.stderr.decode())
        assert found == (0, program.expected, ""), program.name
