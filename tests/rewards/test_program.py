import pytest

from distill_jax.rewards.program import check_programs
from distill_jax.sandbox import Limits, Sandbox


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2, limits=Limits(wall_s=10.0)) as opened:
        yield opened


def test_programs_are_run_and_their_answers_checked(sandbox):
    programs = [
        "print(40 + 2)",
        "from sympy import sqrt\nprint('x =', sqrt(8))",
        "print(41)",
        "print(42)\nraise ValueError('late')",
        "x = 42",
        "import os\nprint(42)",
        "print('f(x)')",
    ]
    hints = ["42", r"so \boxed{2\sqrt{2}}", "42", "42", "42", "42", "f(y)"]
    checks = check_programs(sandbox, programs, hints)
    assert [c.equal_to_hint for c in checks] == [True, True, False, False, False, False, None]
    assert [c.ok for c in checks] == [True, True, True, False, True, False, True]
    assert [c.rc for c in checks[:3]] == [0, 0, 0]
    assert checks[3].rc == 1
    assert "ValueError: late" in checks[3].stderr
    assert checks[0].stdout == "42\n"
    assert "os" in checks[5].stderr
    assert all(0 < c.final_runtime < 60 for c in checks[:5])


def test_a_program_that_failed_is_not_right_whatever_the_hint(sandbox):
    unreadable = "x" * 100_000
    checks = check_programs(sandbox, ["1 / 0", "", "print(1)"], [unreadable] * 3)
    assert [check.equal_to_hint for check in checks] == [False, False, None]


def test_a_hint_for_each_program(sandbox):
    with pytest.raises(ValueError, match="2 programs and 1 hints"):
        check_programs(sandbox, ["print(1)", "print(2)"], ["1"])


def test_no_programs_no_checks(sandbox):
    assert check_programs(sandbox, [], []) == []
