"""Strings that sympy evaluates, files that it writes, programs that it starts."""

from tests.sandbox.attacks.program import Attack

CODE = "__import__('os').mkdir('@CANARY@/a')"

# Each takes a string and evaluates it as Python.
READERS = {
    "sympify": "sympy.sympify(code)",
    "S": "sympy.S(code)",
    "parse-expr": "sympy.parse_expr(code)",
    "simplify": "sympy.simplify(code)",
    "solve": "sympy.solve(code)",
    "integrate": "sympy.integrate(code, sympy.Symbol('x'))",
    "N": "sympy.N(code)",
    "Matrix": "sympy.Matrix([[code]])",
    "Eq": "sympy.Eq(sympy.Symbol('x'), sympy.S(code))",
    "operator": "sympy.Symbol('x') + sympy.expand(code)",
    "nsimplify": "sympy.nsimplify(code)",
    "factor": "sympy.factor(code)",
    "limit": "sympy.limit(code, sympy.Symbol('x'), 0)",
    "FiniteSet": "sympy.FiniteSet(*[sympy.sympify(c) for c in [code]])",
}

ATTACKS = [
    Attack(
        f"sympy-reads-{name}",
        f'import sympy\ncode = "{CODE}"\n{call}\n',
        works_bare=name in ("sympify", "parse-expr", "Matrix"),
    )
    for name, call in READERS.items()
] + [
    Attack(
        "sympy-reads-lambda-in-parse",
        r"""
from sympy.parsing.sympy_parser import parse_expr, standard_transformations
parse_expr("f(1)", local_dict={"f": lambda x: print.__self__.open("@CANARY@/a", "w")})
""",
        works_bare=True,
    ),
    Attack(
        "sympy-reads-global-dict",
        r"""
import sympy, fractions
sympy.parse_expr("m('@CANARY@' + '/a')", global_dict={"m": fractions.sys.modules["os"].mkdir})
""",
    ),
    Attack(
        "sympy-lambdify-symbol-name",
        r"""
import sympy
sympy.lambdify([], sympy.Symbol("__import__('os').mkdir('@CANARY@/a')"))()
""",
        works_bare=True,
    ),
    Attack(
        "sympy-lambdify-function-name",
        r"""
import sympy
x = sympy.Symbol("x")
f = sympy.Function("(lambda *a: __import__('os').mkdir('@CANARY@/a'))")
sympy.lambdify(x, f(x))(1)
""",
    ),
    Attack(
        "sympy-lambdify-argument-name",
        r"""
import sympy
x = sympy.Symbol("x=__import__('os').mkdir('@CANARY@/a')")
sympy.lambdify(x, x, dummify=False)()
""",
    ),
    Attack(
        "sympy-preview-writes-tex",
        r"""
import sympy
sympy.preview(sympy.Symbol("x"), viewer="file", filename="@CANARY@/a.png",
              outputTexFile="@CANARY@/a.tex")
""",
        works_bare=True,
    ),
    Attack(
        "sympy-codegen-writes",
        r"""
import sympy
from sympy.utilities.codegen import codegen
codegen(("f", sympy.Symbol("x")), "C99", "@CANARY@/a", to_files=True)
""",
        works_bare=True,
    ),
    Attack(
        "sympy-autowrap-compiles",
        r"""
import sympy
from sympy.utilities.autowrap import autowrap
x = sympy.Symbol("x")
autowrap(x + 1, backend="f2py", tempdir="@CANARY@/wrapped")
""",
    ),
    Attack(
        "sympy-plot-saves",
        r"""
import sympy
from sympy.plotting import plot
plot(sympy.Symbol("x"), show=False).save("@CANARY@/a.png")
""",
    ),
    Attack(
        "sympy-plot-textplot-open",
        r"""
import sympy
from sympy.plotting import textplot
x = sympy.Symbol("@CANARY@/a")
textplot(x**2, 0, 1)
textplot.__globals__["__builtins__"]["open"]("@CANARY@/a", "w")
""",
        works_bare=True,
    ),
    Attack(
        "sympy-test-runner",
        r"""
import sympy
import sympy.testing.runtests as r
r.run_in_subprocess_with_hash_randomization("test", function_args=("none",))
r.os.makedirs("@CANARY@/a")
""",
        works_bare=True,
    ),
    Attack(
        "sympy-import-ctypes",
        r"""
from sympy.external import import_module
c = import_module("ctypes")
c.CDLL(None).mkdir(b"@CANARY@/a", 511)
""",
        works_bare=True,
    ),
    Attack(
        "sympy-latex-parser",
        r"""
from sympy.parsing.latex import parse_latex
parse_latex(r"\operatorname{eval}(x)")
from sympy.parsing.mathematica import parse_mathematica
parse_mathematica("Import[\"!touch @CANARY@/a\"]")
from sympy.parsing.sympy_parser import eval_expr
eval_expr("__import__('os').mkdir('@CANARY@/a')", {}, {})
""",
    ),
    Attack(
        "sympy-srepr-round-trip",
        r"""
import sympy
class X(sympy.Symbol):
    def _sympyrepr(self, printer):
        return "__import__('os').mkdir('@CANARY@/a')"
sympy.sympify(sympy.srepr(X("x")))
""",
        works_bare=True,
    ),
]
