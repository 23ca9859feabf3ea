"""Digits, bases, representations of numbers, searches over small ranges."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "trailing-zeros",
        r"""
n, zeros, p = 2024, 0, 5
while p <= n:
    zeros += n // p
    p *= 5
print(zeros)
""",
        "503\n",
    ),
    Program(
        "digit-sum-power",
        r"""
print(sum(int(d) for d in str(2**1000)))
""",
        "1366\n",
    ),
    Program(
        "base-conversion",
        r"""
def to_base(n, b):
    digits = ""
    while n:
        digits = "0123456789ABCDEF"[n % b] + digits
        n //= b
    return digits or "0"
print(to_base(2023, 7), to_base(255, 16), int("1101", 2), int("zz", 36))
""",
        "5620 FF 13 1295\n",
    ),
    Program(
        "bin-oct-hex",
        r"""
n = 2023
print(bin(n), oct(n), hex(n), f"{n:b} {n:o} {n:x} {n:#X}")
""",
        "0b11111100111 0o3747 0x7e7 11111100111 3747 7e7 0X7E7\n",
    ),
    Program(
        "diophantine",
        r"""
from sympy import symbols, diophantine
x, y = symbols("x y", integer=True)
print(diophantine(3*x + 5*y - 7))
""",
        "{(5*t_0 + 14, -3*t_0 - 7)}\n",
    ),
    Program(
        "pell",
        r"""
from sympy.solvers.diophantine.diophantine import diop_DN
print(diop_DN(61, 1))
""",
        "[(1766319049, 226153980)]\n",
    ),
    Program(
        "pythagorean-triples",
        r"""
for c in range(1, 30):
    for b in range(1, c):
        for a in range(1, b):
            if a * a + b * b == c * c:
                print(a, b, c)
""",
        "3 4 5\n"
        "6 8 10\n"
        "5 12 13\n"
        "9 12 15\n"
        "8 15 17\n"
        "12 16 20\n"
        "15 20 25\n"
        "7 24 25\n"
        "10 24 26\n"
        "20 21 29\n",
    ),
    Program(
        "perfect-numbers",
        r"""
print([n for n in range(2, 1000) if sum(d for d in range(1, n // 2 + 1) if n % d == 0) == n])
""",
        "[6, 28, 496]\n",
    ),
    Program(
        "collatz",
        r"""
def steps(n):
    count = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        count += 1
    return count
best = max(range(1, 1000), key=steps)
print(best, steps(best))
""",
        "871 178\n",
    ),
    Program(
        "palindromes",
        r"""
products = (a * b for a in range(900, 1000) for b in range(a, 1000))
print(max(n for n in products if str(n) == str(n)[::-1]))
""",
        "906609\n",
    ),
    Program(
        "digit-permutation",
        r"""
n = 1
while not (sorted(str(n)) == sorted(str(2 * n)) == sorted(str(3 * n))):
    n += 1
print(n)
""",
        "142857\n",
    ),
    Program(
        "fermat-little",
        r"""
def composite(n):
    return any(n % p == 0 for p in range(2, int(n**0.5) + 1))
print(all(pow(a, 12, 13) == 1 for a in range(1, 13)))
print([n for n in range(3, 1000) if pow(2, n - 1, n) == 1 and composite(n)])
""",
        "True\n[341, 561, 645]\n",
    ),
    Program(
        "continued-fraction",
        r"""
from sympy import continued_fraction, sqrt, Rational
from sympy.ntheory.continued_fraction import continued_fraction_periodic
print(continued_fraction(sqrt(7)), continued_fraction_periodic(0, 1, 13))
print(continued_fraction(Rational(45, 16)))
""",
        "[2, [1, 1, 1, 4]] [3, [1, 1, 1, 1, 6]]\n[2, 1, 4, 3]\n",
    ),
    Program(
        "convergents",
        r"""
from fractions import Fraction
terms = [3, 7, 15, 1]
for k in range(1, 5):
    x = Fraction(terms[k - 1])
    for t in reversed(terms[: k - 1]):
        x = t + 1 / x
    print(x)
""",
        "3\n22/7\n333/106\n355/113\n",
    ),
    Program(
        "egyptian-fraction",
        r"""
from fractions import Fraction
import math
x, parts = Fraction(7, 15), []
while x:
    d = math.ceil(1 / x)
    parts.append(f"1/{d}")
    x -= Fraction(1, d)
print(" + ".join(parts))
""",
        "1/3 + 1/8 + 1/120\n",
    ),
    Program(
        "frobenius",
        r"""
a, b = 7, 11
reach = {a * i + b * j for i in range(30) for j in range(30)}
print(max(n for n in range(200) if n not in reach), a * b - a - b)
""",
        "59 59\n",
    ),
    Program(
        "isqrt-and-squares",
        r"""
import math
print(math.isqrt(10**20 + 1), [n for n in range(50) if math.isqrt(n) ** 2 == n])
""",
        "10000000000 [0, 1, 4, 9, 16, 25, 36, 49]\n",
    ),
    Program(
        "integer-nthroot",
        r"""
from sympy import integer_nthroot, perfect_power, multiplicity
print(integer_nthroot(1000001, 3), perfect_power(1024), multiplicity(2, 96))
""",
        "(100, False) (2, 10) 5\n",
    ),
    Program(
        "gf-arithmetic",
        r"""
from sympy import GF, Poly, symbols
x = symbols("x")
print(Poly(x**4 + 1, x, domain=GF(5)).factor_list())
""",
        "(1, [(Poly(x**2 + 2, x, modulus=5), 1), (Poly(x**2 - 2, x, modulus=5), 1)])\n",
    ),
    Program(
        "egyptian-multiplication",
        r"""
def times(a, b):
    total = 0
    while a:
        if a & 1:
            total += b
        a >>= 1
        b <<= 1
    return total
print(times(123456789, 987654321) == 123456789 * 987654321, times(37, 59))
""",
        "True 2183\n",
    ),
    Program(
        "kaprekar",
        r"""
n, seen = 3524, []
while n != 6174:
    d = "".join(sorted(f"{n:04d}"))
    n = int(d[::-1]) - int(d)
    seen.append(n)
print(seen)
""",
        "[3087, 8352, 6174]\n",
    ),
]
