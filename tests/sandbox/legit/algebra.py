"""Equations, polynomials, sequences, complex numbers."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "quadratic-roots",
        r"""
import math
a, b, c = 2, -7, 3
d = b * b - 4 * a * c
print((-b - math.sqrt(d)) / (2 * a), (-b + math.sqrt(d)) / (2 * a))
""",
        "0.5 3.0\n",
    ),
    Program(
        "sympy-quadratic",
        r"""
from sympy import symbols, solve
x = symbols("x")
print(solve(x**2 - 5*x + 6, x))
""",
        "[2, 3]\n",
    ),
    Program(
        "sympy-system",
        r"""
import sympy as sp
x, y = sp.symbols("x y")
print(sp.solve([sp.Eq(2*x + 3*y, 12), sp.Eq(x - y, 1)], [x, y]))
""",
        "{x: 3, y: 2}\n",
    ),
    Program(
        "nonlinear-system",
        r"""
from sympy import *
x, y = symbols('x y', real=True)
s = solve([x**2 + y**2 - 25, x*y - 12], [x, y])
print(sorted(s))
""",
        "[(-4, -3), (-3, -4), (3, 4), (4, 3)]\n",
    ),
    Program(
        "sum-of-cubes-of-roots",
        r"""
from sympy import symbols, Poly
x = symbols("x")
p = Poly(x**3 - 3*x**2 + 4*x - 1, x)
_, a, b, c = p.all_coeffs()
e1, e2, e3 = -a, b, -c
print(e1**3 - 3*e1*e2 + 3*e3)
""",
        "-6\n",
    ),
    Program(
        "vieta-check",
        r"""
from sympy import symbols, roots, expand
x = symbols("x")
r = roots(x**3 - 6*x**2 + 11*x - 6, x)
print(sorted(r), sum(r), r[1] + r[2])
""",
        "[1, 2, 3] 6 2\n",
    ),
    Program(
        "rational-root",
        r"""
from fractions import Fraction
def p(t):
    return 6*t**3 - 5*t**2 - 2*t + 1
tries = [Fraction(n, d) for n in (1, -1) for d in (1, 2, 3, 6)]
print(*sorted(t for t in tries if p(t) == 0))
""",
        "-1/2 1/3 1\n",
    ),
    Program(
        "absolute-value-equation",
        r"""
from sympy import symbols, solveset, Abs, S
x = symbols("x", real=True)
print(solveset(Abs(2*x - 3) - 7, x, S.Reals))
""",
        "{-2, 5}\n",
    ),
    Program(
        "inequality",
        r"""
from sympy import symbols, solve_univariate_inequality
x = symbols("x", real=True)
print(solve_univariate_inequality(x**2 - x - 6 < 0, x, relational=False))
""",
        "Interval.open(-2, 3)\n",
    ),
    Program(
        "rational-inequality",
        r"""
import sympy
x = sympy.symbols("x", real=True)
print(sympy.reduce_inequalities((x - 1)/(x + 2) >= 0, x))
""",
        "(1 <= x) | (x < -2)\n",
    ),
    Program(
        "log-equation",
        r"""
from sympy import symbols, log, solve
x = symbols("x", positive=True)
print(solve(log(x, 2) + log(x - 2, 2) - 3, x))
""",
        "[4]\n",
    ),
    Program(
        "exponential-equation",
        r"""
from sympy import symbols, solve, Rational, simplify
x = symbols("x", real=True)
print(solve(4**x - 6*2**x + 8, x))
""",
        "[1, 2]\n",
    ),
    Program(
        "functional-iteration",
        r"""
def f(x):
    return 1 / (1 - x)
x = 5.0
for _ in range(3):
    x = f(x)
print(round(x, 9))
""",
        "5.0\n",
    ),
    Program(
        "arithmetic-sequence",
        r"""
a1, d = 7, 4
terms = [a1 + d * k for k in range(20)]
print(terms[-1], sum(terms))
""",
        "83 900\n",
    ),
    Program(
        "geometric-sum",
        r"""
from fractions import Fraction
r = Fraction(2, 3)
print(sum(r**k for k in range(10)), 1 / (1 - r))
""",
        "58025/19683 3\n",
    ),
    Program(
        "telescoping",
        r"""
from fractions import Fraction
print(sum(Fraction(1, k * (k + 1)) for k in range(1, 100)))
""",
        "99/100\n",
    ),
    Program(
        "partial-fractions",
        r"""
from sympy import symbols, apart
x = symbols("x")
print(apart((3*x + 5)/((x - 1)*(x + 3))))
""",
        "1/(x + 3) + 2/(x - 1)\n",
    ),
    Program(
        "polynomial-division",
        r"""
from sympy import symbols, div
x = symbols("x")
q, r = div(x**4 - 3*x**2 + 2*x - 5, x**2 + 1, x)
print(q, "remainder", r)
""",
        "x**2 - 4 remainder 2*x - 1\n",
    ),
    Program(
        "remainder-theorem",
        r"""
coeffs = [2, 0, -3, 1, 7]
value = 0
for c in coeffs:
    value = value * -2 + c
print(value)
""",
        "25\n",
    ),
    Program(
        "complete-the-square",
        r"""
from sympy import symbols, expand
x = symbols("x")
h, k = -3, -4
assert expand((x - h)**2 + k) == x**2 + 6*x + 5
print(f"vertex ({h}, {k})")
""",
        "vertex (-3, -4)\n",
    ),
    Program(
        "max-of-quadratic",
        r"""
best = max(range(0, 101), key=lambda n: n * (100 - n))
print(best, best * (100 - best))
""",
        "50 2500\n",
    ),
    Program(
        "complex-numbers",
        r"""
z = complex(3, 4)
w = (1 + 2j) * (3 - 1j)
print(abs(z), w, z.conjugate(), (1j) ** 2)
""",
        "5.0 (5+5j) (3-4j) (-1+0j)\n",
    ),
    Program(
        "complex-power",
        r"""
from sympy import I, expand
print(expand((1 + I)**10), expand((2 - 3*I)**3))
""",
        "32*I -46 - 9*I\n",
    ),
    Program(
        "roots-of-unity",
        r"""
from sympy import symbols, factor
x = symbols("x")
print(factor(x**6 - 1))
""",
        "(x - 1)*(x + 1)*(x**2 - x + 1)*(x**2 + x + 1)\n",
    ),
    Program(
        "binomial-coefficient-term",
        r"""
from sympy import symbols, expand
x = symbols("x")
print(expand((2*x - 1/x)**6).coeff(x, 0))
""",
        "-160\n",
    ),
    Program(
        "nested-radical",
        r"""
from sympy import sqrt, sqrtdenest
print(sqrtdenest(sqrt(5 + 2*sqrt(6))))
""",
        "sqrt(2) + sqrt(3)\n",
    ),
    Program(
        "rationalise",
        r"""
from sympy import sqrt, radsimp
print(radsimp(1 / (sqrt(5) - sqrt(2))))
""",
        "(sqrt(2) + sqrt(5))/3\n",
    ),
    Program(
        "nsolve-cosine",
        r"""
from sympy import symbols, cos, nsolve
x = symbols("x")
print(nsolve(cos(x) - x, x, 1))
""",
        "0.739085133215161\n",
    ),
    Program(
        "newton-by-hand",
        r"""
x = 1.0
for _ in range(8):
    x -= (x**3 - 2) / (3 * x**2)
print(f"{x:.10f}")
""",
        "1.2599210499\n",
    ),
    Program(
        "bisection",
        r"""
lo, hi = 0.0, 2.0
while hi - lo > 1e-10:
    mid = (lo + hi) / 2
    if mid**2 < 2:
        lo = mid
    else:
        hi = mid
print(f"{lo:.6f}")
""",
        "1.414214\n",
    ),
    Program(
        "operation-star",
        r"""
def star(a, b):
    return a * b + a + b
print(star(star(1, 2), 3), star(1, star(2, 3)))
""",
        "23 23\n",
    ),
    Program(
        "lambda-composition",
        r"""
f = lambda x: 2 * x + 1
g = lambda x: x**2 - 3
print(f(g(4)), g(f(4)), [f(g(n)) for n in range(-2, 3)])
""",
        "27 78 [3, -3, -5, -3, 3]\n",
    ),
    Program(
        "symmetric-sum",
        r"""
from sympy import symbols, factor
a, b, c = symbols("a b c")
print(factor(a**3 + b**3 + c**3 - 3*a*b*c))
""",
        "(a + b + c)*(a**2 - a*b - a*c + b**2 - b*c + c**2)\n",
    ),
    Program(
        "substitution",
        r"""
from sympy import symbols, Rational
x, y = symbols("x y")
e = (x + y)**2 / (x - y)
print(e.subs({x: Rational(3, 2), y: Rational(1, 2)}))
""",
        "4\n",
    ),
    Program(
        "interpolate",
        r"""
from sympy import symbols, interpolate
x = symbols("x")
print(interpolate([(1, 1), (2, 4), (3, 9), (4, 17)], x))
""",
        "x**3/6 + 11*x/6 - 1\n",
    ),
]
