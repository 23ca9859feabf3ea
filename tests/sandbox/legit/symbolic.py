"""sympy: simplification, printing, sets, logic, polynomials."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "simplify",
        r"""
from sympy import symbols, simplify, sin, cos
x = symbols("x")
print(simplify(sin(x)**2 + cos(x)**2), simplify((x**2 - 1)/(x - 1)))
""",
        "1 x + 1\n",
    ),
    Program(
        "expand-factor-collect",
        r"""
from sympy import symbols, expand, factor, collect, cancel, together
x, y = symbols("x y")
print(expand((x + y)**3), factor(x**4 - 16), collect(x*y + x - 3 + 2*x**2 - y*x**2, x))
print(cancel((x**2 - 4)/(x - 2)), together(1/x + 1/y))
""",
        "x**3 + 3*x**2*y + 3*x*y**2 + y**3 (x - 2)*(x + 2)*(x**2 + 4) x**2*(2 - y) + "
        "x*(y + 1) - 3\n"
        "x + 2 (x + y)/(x*y)\n",
    ),
    Program(
        "assumptions",
        r"""
from sympy import Symbol, sqrt, Abs, Q, ask, refine
x = Symbol("x", positive=True)
n = Symbol("n", integer=True)
print(sqrt(x**2), Abs(x), (-1)**(2*n), ask(Q.even(2*n)), x.is_positive)
print(refine(Abs(Symbol("y")), Q.negative(Symbol("y"))))
""",
        "x x 1 True True\n-y\n",
    ),
    Program(
        "rational",
        r"""
from sympy import Rational, Integer, S, nsimplify
print(Rational(3, 4) + Rational(1, 6), Integer(7) / 2, S(1) / 3, S.Half, nsimplify(0.125))
print(nsimplify("0.333333333333333", tolerance=1e-9))
""",
        "11/12 7/2 1/3 1/2 1/8\n1/3\n",
    ),
    Program(
        "evalf",
        r"""
from sympy import pi, E, sqrt, N, EulerGamma, GoldenRatio
print(pi.evalf(30), N(sqrt(2), 20), E.n(10), N(GoldenRatio, 8), float(EulerGamma))
""",
        "3.14159265358979323846264338328 1.4142135623730950488 2.718281828 1.6180340 "
        "0.5772156649015329\n",
    ),
    Program(
        "latex",
        r"""
from sympy import symbols, latex, Integral, sqrt, Rational, Matrix
x = symbols("x")
print(latex(Integral(sqrt(1/x), x)), latex(Rational(3, 4)), latex(Matrix([[1, x], [0, 1]])))
""",
        "\\int \\sqrt{\\frac{1}{x}}\\, dx \\frac{3}{4} \\left[\\begin{matrix}1 & x\\\\0 & "
        "1\\end{matrix}\\right]\n",
    ),
    Program(
        "pprint",
        r"""
from sympy import symbols, pprint, Integral, sqrt, Rational
x, y = symbols("x y")
pprint(x**2 / (y + 1) + Rational(1, 2))
pprint(sqrt(x), use_unicode=False)
""",
        "  2      \n x      1\n───── + ─\ny + 1   2\n  ___\n\\/ x \n",
    ),
    Program(
        "pretty-unicode",
        r"""
from sympy import symbols, pretty, Integral, Sum, pi, oo
x, n = symbols("x n")
print(pretty(Integral(x**2, (x, 0, pi)), use_unicode=True))
print(pretty(Sum(1/n**2, (n, 1, oo)), use_unicode=True))
""",
        "π      \n"
        "⌠      \n"
        "⎮  2   \n"
        "⎮ x  dx\n"
        "⌡      \n"
        "0      \n"
        " ∞      \n"
        "____    \n"
        "╲       \n"
        " ╲    1 \n"
        "  ╲   ──\n"
        "  ╱    2\n"
        " ╱    n \n"
        "╱       \n"
        "‾‾‾‾    \n"
        "n = 1   \n",
    ),
    Program(
        "sets",
        r"""
from sympy import Interval, FiniteSet, Union, Intersection, S, EmptySet
a, b = Interval(0, 5), Interval.open(3, 8)
print(a & b, a | b, FiniteSet(1, 2, 3) - FiniteSet(2), 4 in b, a.measure)
print(S.Integers.intersect(Interval(1, 4)))
""",
        "Interval.Lopen(3, 5) Interval.Ropen(0, 8) {1, 3} True 5\nRange(1, 5, 1)\n",
    ),
    Program(
        "logic",
        r"""
from sympy import symbols, And, Or, Not, Implies, satisfiable, simplify_logic
from sympy.logic.boolalg import to_cnf, truth_table
a, b = symbols("a b")
print(to_cnf(Implies(a, b)), satisfiable(a & ~a), simplify_logic((a & b) | (a & ~b)))
for values, result in truth_table(a ^ b, [a, b]):
    print(values, result)
""",
        "b | ~a False a\n[0, 0] False\n[0, 1] True\n[1, 0] True\n[1, 1] False\n",
    ),
    Program(
        "polys",
        r"""
from sympy import Poly, symbols, gcd, lcm, resultant, discriminant, degree
x = symbols("x")
p = Poly(x**3 - 2*x + 1, x)
print(p.all_coeffs(), p.eval(2), p.nroots(n=5), degree(p), discriminant(x**2 + 3*x + 1, x))
print(gcd(x**2 - 1, x**2 - 3*x + 2), lcm(x - 1, x + 1), resultant(x**2 - 2, x - 1, x))
""",
        "[1, 0, -2, 1] 5 [-1.6180, 0.61803, 1.0000] 3 5\nx - 1 x**2 - 1 -1\n",
    ),
    Program(
        "groebner",
        r"""
from sympy import groebner, symbols
x, y = symbols("x y")
print(groebner([x**2 + y**2 - 1, x - y], x, y, order="lex").exprs)
""",
        "[x - y, 2*y**2 - 1]\n",
    ),
    Program(
        "minimal-polynomial",
        r"""
from sympy import minimal_polynomial, sqrt, Symbol, cbrt
x = Symbol("x")
print(minimal_polynomial(sqrt(2) + sqrt(3), x), minimal_polynomial(cbrt(2), x))
""",
        "x**4 - 10*x**2 + 1 x**3 - 2\n",
    ),
]
