"""Derivatives, integrals, limits, series, differential and difference equations."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "derivative",
        r"""
from sympy import symbols, diff, sin, exp
x = symbols("x")
print(diff(x**3 * sin(x), x), diff(exp(x**2), x, 2))
""",
        "x**3*cos(x) + 3*x**2*sin(x) 2*(2*x**2 + 1)*exp(x**2)\n",
    ),
    Program(
        "integral",
        r"""
from sympy import symbols, integrate, pi, sin, oo, exp
x = symbols("x")
print(integrate(sin(x)**2, (x, 0, pi)), integrate(exp(-x**2), (x, -oo, oo)))
print(integrate(1/(1 + x**2), x))
""",
        "pi/2 sqrt(pi)\natan(x)\n",
    ),
    Program(
        "integral-by-parts",
        r"""
from sympy import *
x = symbols('x')
print(integrate(x*exp(x), x), integrate(log(x), x), integrate(x**2*cos(x), (x, 0, pi)))
""",
        "(x - 1)*exp(x) x*log(x) - x -2*pi\n",
    ),
    Program(
        "limits",
        r"""
from sympy import symbols, limit, sin, oo, exp
x = symbols("x")
print(limit(sin(3*x)/x, x, 0), limit((1 + 2/x)**x, x, oo), limit(1/x, x, 0, "-"))
""",
        "3 exp(2) -oo\n",
    ),
    Program(
        "series",
        r"""
from sympy import symbols, series, cos, log
x = symbols("x")
print(series(cos(x), x, 0, 7), series(log(1 + x), x, 0, 4).removeO())
""",
        "1 - x**2/2 + x**4/24 - x**6/720 + O(x**7) x**3/3 - x**2/2 + x\n",
    ),
    Program(
        "summation",
        r"""
from sympy import symbols, summation, oo, factor, Sum
k, n = symbols("k n")
print(factor(summation(k**2, (k, 1, n))), summation(1/k**2, (k, 1, oo)))
print(Sum(1/2**k, (k, 1, oo)).doit())
""",
        "n*(n + 1)*(2*n + 1)/6 pi**2/6\n1\n",
    ),
    Program(
        "product",
        r"""
from sympy import symbols, product, Product
k, n = symbols("k n", positive=True, integer=True)
print(product(k, (k, 1, 6)), Product(1 - 1/k**2, (k, 2, 10)).doit())
""",
        "720 11/20\n",
    ),
    Program(
        "critical-points",
        r"""
from sympy import symbols, diff, solve
x = symbols("x")
f = x**3 - 3*x**2 - 9*x + 5
for c in solve(diff(f, x), x):
    kind = "max" if diff(f, x, 2).subs(x, c) < 0 else "min"
    print(c, f.subs(x, c), kind)
""",
        "-1 10 max\n3 -22 min\n",
    ),
    Program(
        "tangent-line",
        r"""
from sympy import symbols, diff, expand
x = symbols("x")
f = x**2 + 1
a = 3
print(expand(diff(f, x).subs(x, a) * (x - a) + f.subs(x, a)))
""",
        "6*x - 8\n",
    ),
    Program(
        "riemann-sum",
        r"""
n = 1000
h = 1 / n
print(round(sum(((i + 0.5) * h) ** 2 for i in range(n)) * h, 6))
""",
        "0.333333\n",
    ),
    Program(
        "simpson",
        r"""
from math import sin, pi
def simpson(f, a, b, n=100):
    h = (b - a) / n
    s = f(a) + f(b)
    s += sum((4 if i % 2 else 2) * f(a + i * h) for i in range(1, n))
    return s * h / 3
print(f"{simpson(sin, 0, pi):.6f}")
""",
        "2.000000\n",
    ),
    Program(
        "dsolve-first",
        r"""
from sympy import Function, dsolve, Eq, symbols
x = symbols("x")
f = Function("f")
print(dsolve(Eq(f(x).diff(x), -2*f(x)), f(x)))
""",
        "Eq(f(x), C1*exp(-2*x))\n",
    ),
    Program(
        "dsolve-initial",
        r"""
from sympy import Function, dsolve, symbols
t = symbols("t")
y = Function("y")
print(dsolve(y(t).diff(t, 2) + y(t), y(t), ics={y(0): 1, y(t).diff(t).subs(t, 0): 0}))
""",
        "Eq(y(t), cos(t))\n",
    ),
    Program(
        "rsolve",
        r"""
from sympy import Function, rsolve, symbols
n = symbols("n", integer=True)
a = Function("a")
print(rsolve(a(n) - 3*a(n - 1) + 2*a(n - 2), a(n), {a(0): 1, a(1): 3}))
""",
        "2*2**n - 1\n",
    ),
    Program(
        "rsolve-fibonacci",
        r"""
from sympy import Function, rsolve, symbols, simplify, fibonacci
n = symbols("n", integer=True)
y = Function("y")
f = rsolve(y(n + 2) - y(n + 1) - y(n), y(n), {y(0): 0, y(1): 1})
print([simplify(f.subs(n, k)) for k in range(3)], fibonacci(30))
""",
        "[0, 1, 1] 832040\n",
    ),
    Program(
        "gradient",
        r"""
from sympy import symbols, Matrix, hessian
x, y = symbols("x y")
f = x**2 * y + y**3
print(Matrix([f]).jacobian([x, y]), hessian(f, (x, y)))
""",
        "Matrix([[2*x*y, x**2 + 3*y**2]]) Matrix([[2*y, 2*x], [2*x, 6*y]])\n",
    ),
    Program(
        "lagrange",
        r"""
from sympy import symbols, solve, diff
x, y, m = symbols("x y m", real=True)
f, g = x * y, x + y - 10
print(solve([diff(f - m * g, v) for v in (x, y)] + [g], [x, y, m]))
""",
        "{m: 5, x: 5, y: 5}\n",
    ),
    Program(
        "arc-length",
        r"""
from sympy import symbols, integrate, sqrt, diff, Rational
x = symbols("x", positive=True)
f = Rational(2, 3) * x**Rational(3, 2)
print(integrate(sqrt(1 + diff(f, x)**2), (x, 0, 3)))
""",
        "14/3\n",
    ),
    Program(
        "area-between",
        r"""
from sympy import symbols, solve, integrate
x = symbols("x")
f, g = 4 - x**2, x + 2
a, b = sorted(solve(f - g, x))
print(a, b, integrate(f - g, (x, a, b)))
""",
        "-2 1 9/2\n",
    ),
    Program(
        "double-integral",
        r"""
from sympy import symbols, integrate
x, y = symbols("x y")
print(integrate(x * y, (y, 0, x), (x, 0, 2)))
""",
        "2\n",
    ),
    Program(
        "piecewise",
        r"""
from sympy import symbols, Piecewise, integrate
x = symbols("x")
f = Piecewise((x, x < 1), (2 - x, True))
print(f.subs(x, 0.5), f.subs(x, 1.5), integrate(f, (x, 0, 2)))
""",
        "0.500000000000000 0.500000000000000 1\n",
    ),
    Program(
        "gamma-zeta",
        r"""
from sympy import gamma, zeta, beta, harmonic, Rational
print(gamma(5), gamma(Rational(1, 2)), zeta(2), zeta(4), harmonic(10))
""",
        "24 sqrt(pi) pi**2/6 pi**4/90 7381/2520\n",
    ),
    Program(
        "laplace",
        r"""
from sympy import laplace_transform, symbols, exp, sin
t, s = symbols("t s", positive=True)
for f in (t * exp(-2*t), sin(3*t)):
    print(laplace_transform(f, t, s, noconds=True))
""",
        "(s + 2)**(-2)\n3/(s**2 + 9)\n",
    ),
    Program(
        "euler-method",
        r"""
y, h = 1.0, 0.001
for _ in range(1000):
    y += h * y
print(f"{y:.4f}")
""",
        "2.7169\n",
    ),
]
