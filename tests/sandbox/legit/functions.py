"""sympy: functions, numbers, spellings of its imports, solving."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "trig-solve",
        r"""
from sympy import symbols, solve, sin, solveset, Interval, pi
x = symbols("x")
print(solveset(2*sin(x) - 1, x, Interval(0, 2*pi)))
""",
        "{pi/6, 5*pi/6}\n",
    ),
    Program(
        "trigsimp",
        r"""
from sympy import symbols, trigsimp, expand_trig, sin, cos, tan
x, y = symbols("x y")
print(trigsimp(2*sin(x)*cos(x)), expand_trig(sin(x + y)), trigsimp(tan(x)*cos(x)))
""",
        "sin(2*x) sin(x)*cos(y) + sin(y)*cos(x) sin(x)\n",
    ),
    Program(
        "lambdify-math",
        r"""
from sympy import symbols, lambdify, sqrt
x, y = symbols("x y")
f = lambdify((x, y), sqrt(x**2 + y**2), "math")
print(f(3, 4), f(5, 12))
""",
        "5.0 13.0\n",
    ),
    Program(
        "floor-ceiling-mod",
        r"""
from sympy import floor, ceiling, Mod, frac, Rational, sign, Max, Min
print(floor(Rational(-7, 2)), ceiling(2.3), Mod(17, 5), frac(Rational(9, 4)))
print(sign(-3), Max(1, 5, 3), Min(2, 7))
""",
        "-4 3 2 1/4\n-1 5 2\n",
    ),
    Program(
        "sequences",
        r"""
from sympy import fibonacci, lucas, bernoulli, euler, tribonacci
from sympy import binomial, factorial, factorial2, ff, rf
print([int(fibonacci(n)) for n in range(10)], lucas(10))
print(bernoulli(4), euler(4), tribonacci(8))
print(binomial(10, 4), factorial(12), factorial2(7), ff(7, 3), rf(3, 4))
""",
        "[0, 1, 1, 2, 3, 5, 8, 13, 21, 34] 123\n-1/30 5 44\n210 479001600 105 210 360\n",
    ),
    Program(
        "import-spellings-a",
        r"""
import sympy.ntheory as nt
import sympy.functions.combinatorial.factorials as facs
print(nt.factorint(84), facs.binomial(5, 2), nt.isprime(97))
""",
        "{2: 2, 3: 1, 7: 1} 10 True\n",
    ),
    Program(
        "import-spellings-b",
        r"""
import sympy.geometry
import sympy.stats
import sympy.abc
print(sympy.geometry.Circle(sympy.Point(0, 0), 2).area)
print(sympy.stats.E(sympy.stats.Die("D", 4)), sympy.abc.x + 1)
""",
        "4*pi\n5/2 x + 1\n",
    ),
    Program(
        "import-spellings-c",
        r"""
from sympy.abc import x, y
from sympy.core.numbers import Rational
from sympy.solvers import solve
from sympy.solvers.solveset import linsolve, nonlinsolve
from sympy.polys.polytools import factor_list
print(solve(x**2 - 9, x), nonlinsolve([x*y - 1, x - 2], [x, y]), factor_list(12*x**2 - 12))
""",
        "[-3, 3] {(2, 1/2)} (12, [(x - 1, 1), (x + 1, 1)])\n",
    ),
    Program(
        "import-spellings-d",
        r"""
from sympy import *
from sympy.matrices import Matrix
from sympy.plotting import plot
from sympy.parsing.sympy_parser import parse_expr
x = Symbol("x")
print(parse_expr("2*x + 3*x"), Matrix([1, 2]).norm(), simplify("x + x"))
""",
        "5*x sqrt(5) 2*x\n",
    ),
    Program(
        "import-inside-function",
        r"""
def answer():
    from sympy import symbols, solve
    t = symbols("t")
    return solve(3 * t - 12, t)[0]
print(answer())
""",
        "4\n",
    ),
    Program(
        "symbols-with-index",
        r"""
from sympy import symbols, IndexedBase, Sum, Function, Wild
a = symbols("a1:5")
print(a, sum(a), symbols("x y z", cls=Function)[0](3), (symbols("x") + 1).subs("x", 4))
""",
        "(a1, a2, a3, a4) a1 + a2 + a3 + a4 x(3) 5\n",
    ),
    Program(
        "parse-strings",
        r"""
from sympy import sympify, S, sqrt
print(sympify("2/3 + sqrt(8)"), S("x**2 + 2*x").factor(), sympify("factorial(3)"))
""",
        "2/3 + 2*sqrt(2) x*(x + 2) 6\n",
    ),
    Program(
        "equality",
        r"""
from sympy import symbols, Eq, simplify, expand
x = symbols("x")
a, b = (x + 1)**2, x**2 + 2*x + 1
print(a == b, simplify(a - b) == 0, expand(a) == b, Eq(a, b), a.equals(b))
""",
        "False True True Eq((x + 1)**2, x**2 + 2*x + 1) True\n",
    ),
    Program(
        "replace-and-walk",
        r"""
from sympy import symbols, sin, cos, preorder_traversal, count_ops
x = symbols("x")
e = sin(x) + sin(2*x)
print(e.replace(sin, cos), e.has(x), e.free_symbols, e.args, count_ops(e))
print([type(n).__name__ for n in preorder_traversal(sin(x)**2)])
""",
        "cos(x) + cos(2*x) True {x} (sin(x), sin(2*x)) 4\n['Pow', 'sin', 'Symbol', 'Integer']\n",
    ),
    Program(
        "quadratic-by-hand-and-check",
        r"""
from sympy import symbols, sqrt, simplify
x = symbols("x")
f = 3*x**2 - 4*x - 2
for sign in (-1, 1):
    r = (4 + sign * sqrt(16 + 24)) / 6
    print(simplify(r), simplify(f.subs(x, r)))
""",
        "2/3 - sqrt(10)/3 0\n2/3 + sqrt(10)/3 0\n",
    ),
    Program(
        "vectors-numeric-solve",
        r"""
from sympy import symbols, nsolve, exp
x, y = symbols("x y")
s = nsolve((x**2 + y**2 - 4, exp(x) + y - 1), (x, y), (-1.8, 0.8))
print([round(float(v), 6) for v in s])
""",
        "[-1.816264, 0.837368]\n",
    ),
    Program(
        "finite-field-inverse-table",
        r"""
from sympy import GF
F = GF(7)
print([int(F(1) / F(k)) % 7 for k in range(1, 7)], int(F(3) ** 5) % 7)
""",
        "[1, 4, 5, 2, 3, 6] 5\n",
    ),
    Program(
        "egcd-sympy",
        r"""
from sympy.core.intfunc import igcdex
print([int(v) for v in igcdex(240, 46)])
""",
        "[-9, 47, 2]\n",
    ),
    Program(
        "ordinal-combinatorics",
        r"""
from sympy.utilities.iterables import multiset_permutations, subsets, sift
print(["".join(p) for p in multiset_permutations("aab")], len(list(subsets(range(5), 3))))
print(sift(range(6), lambda n: n % 2)[1])
""",
        "['aab', 'aba', 'baa'] 10\n[1, 3, 5]\n",
    ),
    Program(
        "crypto-and-primes",
        r"""
from sympy import randprime, primorial, prime, totient, reduced_totient, n_order
print(primorial(5), sum(prime(i) for i in range(1, 11)))
print(reduced_totient(561), n_order(10, 7))
""",
        "2310 129\n80 6\n",
    ),
    Program(
        "egyptian",
        r"""
from sympy.ntheory.egyptian_fraction import egyptian_fraction
from sympy import Rational
for r in (Rational(5, 6), Rational(3, 7)):
    print([int(v) for v in egyptian_fraction(r)])
""",
        "[2, 3]\n[3, 11, 231]\n",
    ),
    Program(
        "quotient-and-digits",
        r"""
from sympy.ntheory import digits
from sympy.ntheory.factor_ import core, abundance, is_perfect, udivisors, primefactors
print(digits(2023, 7), int(core(72)), int(abundance(12)), is_perfect(496))
print(primefactors(2310), udivisors(12))
""",
        "[7, 5, 6, 2, 0] 2 4 True\n[2, 3, 5, 7, 11] [1, 3, 4, 12]\n",
    ),
    Program(
        "physics-units",
        r"""
from sympy.physics.units import kilometer, hour, meter, second, convert_to
print(convert_to(72 * kilometer / hour, [meter, second]))
""",
        "20*meter/second\n",
    ),
    Program(
        "mpmath-through-sympy",
        r"""
from sympy import Float, sqrt, cbrt, root, real_root
print(Float("0.1", 25) + 1, cbrt(27), root(32, 5), real_root(-8, 3), sqrt(50), sqrt(-4))
""",
        "1.100000000000000000000000 3 2 -2 5*sqrt(2) 2*I\n",
    ),
    Program(
        "complex-solutions",
        r"""
from sympy import symbols, solve, I, re, im, conjugate, arg, Abs, roots
x = symbols("x")
print(solve(x**2 + 2*x + 5, x), re(3 + 4*I), im(3 + 4*I))
print(conjugate(2 - I), arg(1 + I), Abs(3 - 4*I))
""",
        "[-1 - 2*I, -1 + 2*I] 3 4\n2 + I pi/4 5\n",
    ),
    Program(
        "inequality-system",
        r"""
from sympy import symbols, reduce_inequalities, And
x = symbols("x", real=True)
print(reduce_inequalities([x**2 < 9, x > 1], x))
""",
        "(1 < x) & (x < 3)\n",
    ),
    Program(
        "generating-function",
        r"""
from sympy import symbols, Poly, prod
x = symbols("x")
g = prod(sum(x**(k * c) for k in range(100 // c + 1)) for c in (10, 25, 50))
print(Poly(g, x).coeff_monomial(x**100))
""",
        "6\n",
    ),
]
