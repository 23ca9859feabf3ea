"""What a completion shows without gold: its answer and its failures, by hand."""

import sys

import pytest

from distill_jax.data.fences import fenced
from distill_jax.data.sources import DataSettings
from distill_jax.tasks import ProgramSettings, ProgramTask, TextTask, observed
from distill_jax.tasks.program_check import ProgramCheck


def seen(program, status, printed=None, error="", lines=1):
    check = ProgramCheck(printed is not None, 0, None, None, status, printed, 0.1, error, lines)
    return observed.of_program(program, check)


def test_texts():
    found = TextTask(DataSettings(), None).observe(["so #### 24", "nothing"])
    assert found == [("24", ()), (None, (("no_answer", ""),))]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("error", "crash"), ("syntax", "crash"), ("rejected", "crash"), ("violation", "crash"),
        ("output", "crash"), ("timeout", "timeout"), ("memory", "memory"),
        ("assertion", "assertion"), ("no_output", "empty"),
    ],
)  # fmt: skip
def test_each_ending_is_a_failure_with_its_error(status, kind):
    assert seen("print(1)", status, error="why") == (None, ((kind, "why"),))


@pytest.mark.parametrize("status", ["late", "lost"])
def test_a_failure_of_the_machine_is_none_of_the_program(status):
    assert seen("print(1)", status) == (None, ())


@pytest.mark.parametrize(
    "printed", ["None", "nan", "[]", "( )", "{}", "set()", "<function f at 0x7f>", "ValueError: x"]
)
def test_no_number_and_no_expression(printed):
    assert seen("f()", "ok", printed) == (printed, (("no_value", printed),))


@pytest.mark.parametrize("printed", ["7", "1/2", "x + 1", "(1, 2)", "[3]", "Monday", "no", "inf"])
def test_answers_of_other_forms_are_answers(printed):
    assert seen("f()", "ok", printed) == (printed, ())


def test_several_lines():
    assert seen("f()", "ok", "7", lines=3) == ("7", (("several_lines", "3 lines"),))


def test_a_reviser_reads_the_program_alone():
    program = fenced("print(7)")
    assert observed.shown(f"I think.\n{program}\nThe answer is 7.") == program
    assert observed.shown("I think.") == "I think."


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp")
def test_programs_that_ran():
    task = ProgramTask(DataSettings(), None, ProgramSettings(wall_s=20.0))
    programs = [
        "x = 15 - 6\nassert x == 8, 'nine'\nprint(x)",
        "def f(n):\n    return f(n + 1)\nf(0)",
        "print(1)\n\nprint('x: 7')",
        "print(None)",
        "x = 1",
        "print(7)",
    ]
    found = task.observe([*map(fenced, programs), "#### 7", "```python\nprint(7)"])
    assert [one.answer for one in found] == [None, None, "7", "None", None, "7", None, None]
    assert [[kind for kind, _ in one.failures] for one in found] == [
        ["assertion"], ["crash"], ["several_lines"], ["no_value"], ["empty"], [], ["no_program"],
        ["no_program"],
    ]  # fmt: skip
    (_, detail), (_, crash) = found[0].failures[0], found[1].failures[0]
    assert detail.splitlines()[-2:] == ["AssertionError: nine", "line 2: assert x == 8, 'nine'"]
    assert "RecursionError" in crash and len(crash.splitlines()) <= 20
    assert found[2].failures == (("several_lines", "2 lines"),)
    assert not task.repeatable and TextTask.repeatable
