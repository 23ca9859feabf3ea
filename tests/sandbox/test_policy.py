"""The policy refuses with a line and a reason, and lets ordinary programs pass."""

import ast

import pytest

from distill_jax.sandbox import Sandbox, policy
from distill_jax.sandbox.policy import MOST_PROBLEMS, clearly_allowed, problems_of

ALLOWED = [
    "import math, fractions, decimal, itertools, sympy",
    "import sympy as sp\nfrom sympy.ntheory import factorint\nimport sympy.ntheory.factor_",
    "from __future__ import annotations",
    "if __name__ == '__main__':\n    print(__name__, type(1).__name__)",
    "class P:\n    def __init__(self):\n        super().__init__()\n    def __add__(self, o):\n"
    "        return o.__radd__(self)\n    __hash__ = None",
    "vars = [1]\nprint(vars)",
    "def compile(x):\n    return x\nprint(compile(2))",
    "for locals in range(3):\n    print(locals)",
    "f = lambda eval: eval + 1\nprint(f(1))",
    "x = 1\nprint(x.open, getattr(x, 'real'))",
]
REFUSED = [
    ("import os", "line 1: import of os"),
    ("x = 1\nimport math, sys", "line 2: import of sys"),
    ("from os.path import join", "import of os.path"),
    ("import sympyx", "import of sympyx"),
    ("from . import x", "relative import"),
    ("import math as __builtins__\nprint(__builtins__)", "__builtins__ is not allowed"),
    ("x = 1\n\nopen('x')", "line 3: open is not allowed"),
    ("f = eval", "eval is not allowed"),
    ("__import__('os')", "__import__ is not allowed"),
    ("().__class__", "attribute __class__"),
    ("(lambda: 0).__globals__", "attribute __globals__"),
    ("def f():\n  def g():\n    return x.__subclasses__()", "line 3: attribute __subclasses__"),
]


def problems(program: str) -> list[str]:
    return policy.problems(program, compile(program, "", "exec"))


@pytest.mark.parametrize("program", ALLOWED)
def test_allowed(program: str) -> None:
    assert problems(program) == problems_of(ast.parse(program)) == []


@pytest.mark.parametrize(("program", "message"), REFUSED)
def test_refused(program: str, message: str) -> None:
    (found,) = problems(program)
    assert message in found and "fix: " in found


TRICKS = [
    "import math, os",
    "import math; import os",
    "import math\\\n, os",
    "from math import sqrt; import os",
    "import\tos",
    "if 1: import os",
    "x = 'import math'\nimport \\\n os",
    "from sympy import (\n    pi)\nfrom os import *",
    "import mathos",
    "import os.math",
    "from os.sympy import x",
    "import sympy as os, os",
    "ｅｖａｌ('1')",
    "x.__ｄict__",
    "def f():\n    return [lambda: eval for x in y]",
    "class A:\n    x = __import__",
    "del x.__dict__",
    "x.__code__ = 1",
    "f'{x.__class__}'",
    "match x:\n    case y.__dict__: pass",
    "import math\nimport math as importos\nfrom . import y",
    "@eval\ndef f(): pass",
]


@pytest.mark.parametrize("program", TRICKS)
def test_the_shortcut_allows_nothing_that_the_tree_refuses(program: str) -> None:
    assert problems_of(ast.parse(program))
    assert not clearly_allowed(program, compile(program, "", "exec"))


def test_the_shortcut_is_taken() -> None:
    """By programs as models write them; it is what makes them cheap."""
    program = "import math\nfrom sympy import symbols, solve\nimport sympy as sp\nprint(sp.pi.n())"
    assert clearly_allowed(program, compile(program, "", "exec"))


def test_problems_come_in_the_order_of_lines_and_not_without_end() -> None:
    found = problems("import os\n" * 100)
    assert [line.split(":")[0] for line in found] == [f"line {i + 1}" for i in range(MOST_PROBLEMS)]


@pytest.mark.parametrize(("program", "message"), REFUSED)
def test_a_refused_program_is_not_run(sandbox: Sandbox, program: str, message: str) -> None:
    result = sandbox.run("print('ran')\n" + program)
    assert result.status == "rejected" and result.stdout == ""
    assert message.partition(": ")[2] in result.stderr or message in result.stderr


@pytest.mark.parametrize(
    "program",
    [
        "def f(:",
        "x = 'no end",
        "  indented",
        "\0",
        "print('\ud800')",
        "(" * 5000,
        "-" * 99_000 + "1",
        "x = " + "[" * 300 + "]" * 300,
        "return 1",
        "await x",
    ],
    ids=lambda program: program[:12].encode("ascii", "replace").decode(),
)
def test_what_is_no_python_is_rejected(sandbox: Sandbox, program: str) -> None:
    result = sandbox.run(program)
    assert result.status in ("rejected", "error"), result.stderr
    assert result.status == "rejected" or (result.rc or 0) < 0  # a parser that crashed
    assert result.stderr
