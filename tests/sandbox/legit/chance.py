"""Probability and statistics, exact and in floats; sympy.stats."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "two-dice",
        r"""
from fractions import Fraction
hits = sum(1 for a in range(1, 7) for b in range(1, 7) if a + b == 7)
print(Fraction(hits, 36))
""",
        "1/6\n",
    ),
    Program(
        "balls-without-return",
        r"""
from fractions import Fraction
p = Fraction(5, 12) * Fraction(4, 11) + Fraction(7, 12) * Fraction(6, 11)
print(p, f"{float(p):.4f}")
""",
        "31/66 0.4697\n",
    ),
    Program(
        "binomial",
        r"""
from math import comb
n, p = 10, 0.3
probs = [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
print([round(q, 4) for q in probs], round(sum(probs), 10))
""",
        "[0.0282, 0.1211, 0.2335, 0.2668, 0.2001, 0.1029, 0.0368, 0.009, 0.0014, "
        "0.0001, 0.0] 1.0\n",
    ),
    Program(
        "birthday",
        r"""
p, n = 1.0, 0
while p > 0.5:
    p *= (365 - n) / 365
    n += 1
print(n, round(1 - p, 4))
""",
        "23 0.5073\n",
    ),
    Program(
        "bayes",
        r"""
from fractions import Fraction as F
prior, sens, false = F(1, 100), F(95, 100), F(5, 100)
print(prior * sens / (prior * sens + (1 - prior) * false))
""",
        "19/118\n",
    ),
    Program(
        "monty-hall",
        r"""
from fractions import Fraction
from itertools import product
win = {"stay": 0, "switch": 0}
for car, pick in product(range(3), repeat=2):
    win["stay"] += car == pick
    win["switch"] += car != pick
print({k: str(Fraction(v, 9)) for k, v in win.items()})
""",
        "{'stay': '1/3', 'switch': '2/3'}\n",
    ),
    Program(
        "expected-rolls",
        r"""
from fractions import Fraction
print(sum(Fraction(6, 6 - k) for k in range(6)))
""",
        "147/10\n",
    ),
    Program(
        "mean-median-mode",
        r"""
data = [4, 8, 15, 16, 23, 42, 8]
data.sort()
mean = sum(data) / len(data)
median = data[len(data) // 2]
mode = max(set(data), key=data.count)
print(round(mean, 3), median, mode, max(data) - min(data))
""",
        "16.571 15 8 38\n",
    ),
    Program(
        "variance",
        r"""
data = [2, 4, 4, 4, 5, 5, 7, 9]
m = sum(data) / len(data)
var = sum((x - m) ** 2 for x in data) / len(data)
print(m, var, var**0.5)
""",
        "5.0 4.0 2.0\n",
    ),
    Program(
        "regression-line",
        r"""
xs, ys = [1, 2, 3, 4, 5], [2.1, 3.9, 6.2, 7.8, 10.1]
n = len(xs)
mx, my = sum(xs) / n, sum(ys) / n
slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / sum((x - mx) ** 2 for x in xs)
print(f"y = {slope:.3f}x + {my - slope * mx:.3f}")
""",
        "y = 1.990x + 0.050\n",
    ),
    Program(
        "sympy-die",
        r"""
from sympy.stats import Die, P, E, variance
X, Y = Die("X", 6), Die("Y", 6)
print(P(X > 4), E(X), variance(X), P(X + Y > 9), E(X + Y))
""",
        "1/3 7/2 35/12 1/6 7\n",
    ),
    Program(
        "sympy-coin-binomial",
        r"""
from sympy.stats import Binomial, P, E, density
from sympy import Rational
X = Binomial("X", 5, Rational(1, 2))
print(P(X >= 3), E(X), density(X)[2])
""",
        "1/2 5/2 5/16\n",
    ),
    Program(
        "sympy-normal",
        r"""
from sympy.stats import Normal, E, std, density
from sympy import N
X = Normal("X", 100, 15)
print(E(X), std(X), N(density(X)(115), 5))
""",
        "100 15 0.016131\n",
    ),
    Program(
        "sympy-uniform-exponential",
        r"""
from sympy.stats import Uniform, Exponential, E, P
X = Uniform("X", 0, 10)
T = Exponential("T", 2)
print(E(X), P(X < 3), E(T))
""",
        "5 3/10 1/2\n",
    ),
    Program(
        "conditional-die",
        r"""
from sympy.stats import Die, P, given, E
from sympy import Eq
X = Die("X", 6)
print(P(Eq(X, 6), X > 3), E(X, X > 3))
""",
        "1/3 5\n",
    ),
    Program(
        "random-walk-exact",
        r"""
from fractions import Fraction
p = {0: Fraction(1)}
for _ in range(6):
    q = {}
    for x, w in p.items():
        for y in (x - 1, x + 1):
            q[y] = q.get(y, 0) + w / 2
    p = q
print({x: str(p[x]) for x in sorted(p)})
""",
        "{-6: '1/64', -4: '3/32', -2: '15/64', 0: '5/16', 2: '15/64', 4: '3/32', 6: '1/64'}\n",
    ),
    Program(
        "markov-steady",
        r"""
from sympy import Matrix, Rational, symbols, solve
P = Matrix([[Rational(9, 10), Rational(1, 10)], [Rational(1, 2), Rational(1, 2)]])
a, b = symbols("a b")
v = Matrix([[a, b]])
print(solve([*(v * P - v), a + b - 1], [a, b]))
""",
        "{a: 5/6, b: 1/6}\n",
    ),
    Program(
        "poker-flush",
        r"""
from math import comb
from fractions import Fraction
print(Fraction(4 * comb(13, 5), comb(52, 5)), comb(52, 5))
""",
        "33/16660 2598960\n",
    ),
    Program(
        "geometric-probability",
        r"""
from sympy import integrate, symbols, Rational
x = symbols("x")
print(1 - 2 * integrate(Rational(3, 4) - x, (x, 0, Rational(3, 4))))
""",
        "7/16\n",
    ),
    Program(
        "gamblers-ruin",
        r"""
from fractions import Fraction
p, q, n = Fraction(2, 5), Fraction(3, 5), 5
r = q / p
print([str((1 - r**i) / (1 - r**n)) for i in range(n + 1)])
""",
        "['0', '16/211', '40/211', '76/211', '130/211', '1']\n",
    ),
]
