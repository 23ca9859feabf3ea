"""Assertions that can fail, constant answers, numbers of the question: by hand."""

import ast

import pytest

from distill_jax.reasoning.program_checks import numbers
from distill_jax.reasoning.programs import assertions, ignores, is_constant, perturbed


@pytest.mark.parametrize(
    "program",
    [
        "x = 2 + 3\nassert x == 5",
        "x = 2\nx += 3\nassert x == 5, 'sum'",
        "def f(n): return n + 1\nassert f(1) == 2",
        "for i in range(3):\n    assert i < 3",
        "x = 1 + 1\nif True:\n    assert not x < 0",
        "a, b = divmod(7, 2)\nassert a == 3 and True",
        "x: int = 1 + 1\nassert x == 2",
    ],
)
def test_an_assertion_on_what_is_computed_counts(program):
    assert assertions(program) == 1


@pytest.mark.parametrize(
    "test",
    [
        "True",
        "1 == 1",
        "5",
        "'text'",
        "len('ab') == 2",
        "x == x",
        "x <= x",
        "(x == 6, 'message')",
        "[x]",
        "x == 6 or True",
        "not (x == x)",
        "lambda: x",
        "c == 2",  # a literal, by its name
        "c + 1 == 3",
        "f'{x}'",
    ],
)
def test_an_assertion_that_cannot_fail_or_reads_literals_alone_does_not(test):
    assert assertions(f"x = 2 + 3\nc = 2\nassert {test}\n") == 0


def test_assertions_of_what_does_not_parse_or_is_too_deep():
    assert assertions("assert x ==") == 0
    assert assertions("x = 1 + 1\nassert " + "not " * 2000 + "x") == 0


@pytest.mark.parametrize(
    "program",
    [
        "print(24)",
        "print('24')",
        "print(-24)",
        "x = 24\nprint(x)",
        "x: int = 24\ny = x\nprint(f'Answer: {y}')",
        "a = 5\nb = 6\ntotal = a + b\nprint(total)\nprint(24)",
        "print(str(24))",
        "print()",
    ],
)
def test_answers_that_are_literals(program):
    assert is_constant(program)


@pytest.mark.parametrize(
    "program",
    [
        "print(15 - 6)",  # arithmetic works it out
        "x = 15\nx -= 6\nprint(x)",
        "x = 15 - 6\nprint(x)",
        "for x in [15]:\n    print(x)",
        "x = 15\nif x > 3: print(1)\nelse: print(2)",
        "x, y = 1, 2\nprint(x)",
        "def f(): return 24\nprint(f())",
        "a = b\nb = a + 1\nprint(a)",
        "x = 24",
        "print(24",
    ],
)
def test_answers_that_are_not(program):
    assert not is_constant(program)


def test_names_of_names_end():
    assert is_constant("a = b\nb = a\n" * 200 + "print(a)")  # it raises when it is run


def test_numbers_of_a_question():
    assert numbers("Tom has 15 pens, drops 6 and pays 1,250.50 for 6.") == [15, 6, 1250.5]
    assert numbers("20% of 1,000") == [20, 0.2, 0.8, 1.2, 1000]
    assert numbers("Twelve pens") == []


def test_perturbed_changes_the_question_s_numbers_and_drops_assertions():
    program = "x = 15  # pens\nx -= 6\nassert x == 9\nprint(x + 100, '6', True, 6.0)"
    # 15 + 7 = 22; 6 + 11 = 17
    assert perturbed(program, "15 pens, 6") == ast.unparse(
        ast.parse("x = 22\nx -= 17\npass\nprint(x + 100, '17', True, 17.0)")
    )


@pytest.mark.parametrize("program", ["print(9)", "x = (", "print('15 pens')"])
def test_nothing_to_change(program):
    assert perturbed(program, "15 pens, 6") is None
    assert perturbed("print(9)", "nine") is None


@pytest.mark.parametrize(
    ("program", "question", "found"),
    [
        ("print(3 * 3)", "15 pens, 6", True),
        ("print(15 - 6)", "15 pens, 6", False),
        ("print(solve('x - 15'))", "15 pens", False),
        ("print(0.8 * 5)", "20% off", False),
        ("print(9)", "nine", False),
        ("print(", "15 pens", False),
    ],
)
def test_programs_that_ignore_the_question(program, question, found):
    assert ignores(program, question) is found
