"""A confined child can use all that it may import, in every spelling, without a file."""

import pytest

from distill_jax.sandbox import Sandbox
from distill_jax.sandbox.policy import ALLOWED_IMPORTS
from distill_jax.sandbox.preload_sympy import SUBMODULES


@pytest.mark.parametrize("module", ALLOWED_IMPORTS)
def test_allowed_modules(sandbox: Sandbox, module: str) -> None:
    program = f"import {module}\nimport {module} as m\nfrom {module} import *\nprint(m.__name__)"
    assert sandbox.run(program).stdout == f"{module}\n"


def test_every_submodule(sandbox: Sandbox) -> None:
    programs = [
        f"import sympy.{name}\nfrom sympy import {name}\nfrom sympy.{name} import *\n"
        f"import sympy.{name} as module_of_sympy\nprint(module_of_sympy)"
        for name in SUBMODULES
    ]
    for name, result in zip(SUBMODULES, sandbox.run_batch(programs), strict=True):
        # sympy.series is the function of this name, as sympy itself wants it.
        assert result.stdout.startswith((f"<module 'sympy.{name}'", "<function")), result


CALLS = [
    (
        "import sympy as sp\nx = sp.symbols('x')\nprint(sp.solve(x**2 - 2, x))",
        "[-sqrt(2), sqrt(2)]",
    ),
    (
        "from sympy import *\nprint(Rational(1, 3) + Rational(1, 6))",
        "1/2",
    ),
    (
        "from sympy.ntheory import factorint\nprint(factorint(2024))",
        "{2: 3, 11: 1, 23: 1}",
    ),
    (
        "import sympy.ntheory.factor_\nprint(sympy.ntheory.factor_.totient(36))",
        "12",
    ),
    (
        "from sympy.abc import x\nfrom sympy import integrate\nprint(integrate(x**2, (x, 0, 3)))",
        "9",
    ),
    (
        "from sympy import *\nx = symbols('x')\nprint(limit((1 + 1/x)**x, x, oo))",
        "E",
    ),
    (
        "from sympy import *\nn = symbols('n')\nprint(factor(summation(n**2, (n, 1, 10))))",
        "385",
    ),
    (
        "from sympy import *\nprint(Matrix([[2, 1], [1, 2]]).eigenvals())",
        "{3: 1, 1: 1}",
    ),
    (
        "from sympy import *\nx = symbols('x')\nprint(nsolve(cos(x) - x, 1))",
        "0.739085133215161",
    ),
    (
        "from sympy import *\n"
        "x = symbols('x')\n"
        "f = Function('f')\n"
        "print(dsolve(f(x).diff(x, 2) + f(x)))",
        "Eq(f(x), C1*sin(x) + C2*cos(x))",
    ),
    (
        "from sympy.stats import *\nprint(P(Die('X', 6) + Die('Y', 6) > 9))",
        "1/6",
    ),
    (
        "from sympy.geometry import *\nprint(Triangle(Point(0, 0), Point(4, 0), Point(0, 3)).area)",
        "6",
    ),
    (
        "from sympy.combinatorics import *\nprint(AlternatingGroup(4).order())",
        "12",
    ),
    (
        "from sympy.ntheory.modular import crt\nprint(crt([3, 5, 7], [2, 3, 2]))",
        "(23, 105)",
    ),
    (
        "from sympy.solvers.diophantine import diophantine\n"
        "from sympy.abc import x, y\n"
        "print(sorted(diophantine(x*y - 6 + 0*x), key=str)[0])",
        "(-1, -6)",
    ),
    (
        "from sympy import *\nprint(latex(sqrt(x)/2)) if (x := Symbol('x')) else 0",
        "\\frac{\\sqrt{x}}{2}",
    ),
    (
        "from sympy import *\nprint(simplify('(x**2 - 1)/(x - 1)'))",
        "x + 1",
    ),
    (
        "from sympy import *\n"
        "x = Symbol('x')\n"
        "print(solve_univariate_inequality(x**2 < 4, x, False))",
        "Interval.open(-2, 2)",
    ),
    (
        "from sympy import *\nprint(minimal_polynomial(sqrt(2) + sqrt(3)))",
        "_x**4 - 10*_x**2 + 1",
    ),
    (
        "from sympy import *\n"
        "n = Symbol('n')\n"
        "y = Function('y')\n"
        "r = rsolve(y(n + 2) - y(n + 1) - y(n), y(n), {y(0): 0, y(1): 1})\n"
        "print(r.subs(n, 10).simplify())",
        "55",
    ),
    (
        "from sympy.polys import *\nfrom sympy.abc import x\nprint(Poly(x**2 - 1).factor_list())",
        "(1, [(Poly(x - 1, x, domain='ZZ'), 1), (Poly(x + 1, x, domain='ZZ'), 1)])",
    ),
    (
        "from sympy import *\n"
        "x = Symbol('x')\n"
        "print(fourier_transform(exp(-x**2), x, Symbol('k')))",
        "sqrt(pi)*exp(-pi**2*k**2)",
    ),
    (
        "from sympy import *\nx = Symbol('x')\npprint(Integral(x**2, x))",
        "⌠",
    ),
    (
        "from sympy import *\nx = Symbol('x')\nprint(lambdify(x, sin(x)**2 + cos(x)**2)(0.3))",
        "1.0",
    ),
    (
        "from sympy import *\nprint(N(pi, 40), zeta(2), gamma(Rational(1, 2)))",
        "3.141592653589793238462643383279502884197 pi**2/6 sqrt(pi)",
    ),
    (
        "from sympy import *\nx = Symbol('x')\nprint(series(tan(x), x, 0, 6))",
        "x + x**3/3 + 2*x**5/15 + O(x**6)",
    ),
    (
        "from sympy.logic import *\nfrom sympy.abc import a, b\nprint(satisfiable(a & ~b))",
        "{a: True, b: False}",
    ),
    (
        "from sympy.vector import CoordSys3D\nN = CoordSys3D('N')\nprint(N.i.cross(N.j))",
        "N.k",
    ),
    (
        "from sympy.parsing.sympy_parser import parse_expr\nprint(parse_expr('2*3'))",
        "6",
    ),
    (
        "from sympy import *\nx, y = symbols('x y')\nprint(solve([x + y - 3, x*y - 2], [x, y]))",
        "[(1, 2), (2, 1)]",
    ),
    (
        "from sympy import *\nx = symbols('x')\nprint(solveset(Eq(sin(x), 0), x, Interval(0, 4)))",
        "{0, pi}",
    ),
    (
        "from sympy import *\nx = symbols('x')\nprint(Poly(x**5 - x - 1).nroots(n=5)[0])",
        "1.1673",
    ),
    (
        "from sympy import *\nprint(npartitions(100), fibonacci(50), bernoulli(4))",
        "190569292 12586269025 -1/30",
    ),
]


@pytest.mark.parametrize(("program", "stdout"), CALLS, ids=[p[-40:] for p, _ in CALLS])
def test_calls(sandbox: Sandbox, program: str, stdout: str) -> None:
    result = sandbox.run(program)
    assert result.status == "ok", result.stderr
    assert stdout in result.stdout.splitlines()[0]


def test_what_is_not_loaded_is_a_plain_import_error(unchecked: Sandbox) -> None:
    for module in ("sympy.parsing.latex.nothing", "numpy", "email.mime.text"):
        result = unchecked.run(f"# sympy\nimport {module}")
        assert (result.status, result.rc) == ("error", 1), result
        assert "ModuleNotFoundError" in result.stderr or "ImportError" in result.stderr
