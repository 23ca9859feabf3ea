"""Decimals with their contexts, and fractions."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "quantize-money",
        r"""
from decimal import Decimal, ROUND_HALF_UP
price = Decimal("19.995")
print(price.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))
print(price * 3, Decimal("0.1") + Decimal("0.2"))
""",
        "20.00\n59.985 0.3\n",
    ),
    Program(
        "precision",
        r"""
from decimal import Decimal, getcontext
getcontext().prec = 50
print(Decimal(2).sqrt())
print(Decimal(1) / Decimal(7))
""",
        "1.4142135623730950488016887242096980785696718753769\n"
        "0.14285714285714285714285714285714285714285714285714\n",
    ),
    Program(
        "local-context",
        r"""
from decimal import Decimal, localcontext
with localcontext() as ctx:
    ctx.prec = 5
    print(Decimal(1) / 3, end=" ")
print(Decimal(1) / 3)
""",
        "0.33333 0.3333333333333333333333333333\n",
    ),
    Program(
        "rounding-modes",
        r"""
import decimal
for mode in ("ROUND_UP", "ROUND_DOWN", "ROUND_CEILING", "ROUND_FLOOR", "ROUND_HALF_EVEN"):
    how = getattr(decimal, mode)
    rounded = decimal.Decimal("-2.5").quantize(decimal.Decimal("1"), rounding=how)
    print(mode, rounded)
""",
        "ROUND_UP -3\nROUND_DOWN -2\nROUND_CEILING -2\nROUND_FLOOR -3\nROUND_HALF_EVEN -2\n",
    ),
    Program(
        "decimal-signals",
        r"""
from decimal import Decimal, DivisionByZero, InvalidOperation
for expression in (lambda: Decimal(1) / 0, lambda: Decimal("x")):
    try:
        print(expression())
    except (DivisionByZero, InvalidOperation) as error:
        print(type(error).__name__)
""",
        "DivisionByZero\nInvalidOperation\n",
    ),
    Program(
        "pi-digits",
        r"""
from decimal import Decimal, getcontext
def pi(digits):
    getcontext().prec = digits + 5
    def arctan_inverse(x):
        total = term = Decimal(1) / x
        n, sign = 3, -1
        while abs(term) > Decimal(10) ** -(digits + 4):
            term /= x * x
            total += sign * term / n
            n, sign = n + 2, -sign
        return total
    value = 4 * (4 * arctan_inverse(Decimal(5)) - arctan_inverse(Decimal(239)))
    getcontext().prec = digits
    return +value
print(pi(60))
""",
        "3.14159265358979323846264338327950288419716939937510582097494\n",
    ),
    Program(
        "e-digits",
        r"""
from decimal import *
getcontext().prec = 40
print(Decimal(1).exp())
print(Decimal(10).ln().quantize(Decimal("1.0000000000")), Decimal(1000).log10())
""",
        "2.718281828459045235360287471352662497757\n2.3025850930 3\n",
    ),
    Program(
        "loan",
        r"""
from decimal import Decimal
balance, rate, payment = Decimal("1000.00"), Decimal("0.01"), Decimal("100.00")
months = 0
while balance > 0:
    balance = (balance * (1 + rate)).quantize(Decimal("0.01")) - payment
    months += 1
print(months, balance + payment)
""",
        "11 58.98\n",
    ),
    Program(
        "fraction-arithmetic",
        r"""
from fractions import Fraction as F
a, b = F(3, 4), F(5, 6)
print(a + b, a - b, a * b, a / b, a ** 2, a // b, a % b, -a, abs(a - b), a < b, float(b))
""",
        "19/12 -1/12 5/8 9/10 9/16 0 3/4 -3/4 1/12 True 0.8333333333333334\n",
    ),
    Program(
        "repeating-decimal",
        r"""
from fractions import Fraction
def expand(n, d):
    whole, r = divmod(n, d)
    digits, seen = "", {}
    while r and r not in seen:
        seen[r] = len(digits)
        r *= 10
        digits += str(r // d)
        r %= d
    if r:
        k = seen[r]
        return f"{whole}.{digits[:k]}({digits[k:]})"
    return f"{whole}.{digits}" if digits else str(whole)
print(expand(1, 7), expand(5, 12), expand(22, 8), expand(6, 3))
""",
        "0.(142857) 0.41(6) 2.75 2\n",
    ),
    Program(
        "harmonic-fraction",
        r"""
from fractions import Fraction
h = sum(Fraction(1, k) for k in range(1, 21))
print(h, h.numerator + h.denominator, f"{float(h):.6f}")
""",
        "55835135/15519504 71354639 3.597740\n",
    ),
    Program(
        "limit-denominator",
        r"""
from fractions import Fraction
import math
print(Fraction(math.pi).limit_denominator(1000), Fraction("3.14").as_integer_ratio())
print(round(Fraction(22, 7), 3), math.floor(Fraction(-7, 2)))
""",
        "355/113 (157, 50)\n3143/1000 -4\n",
    ),
    Program(
        "farey",
        r"""
from fractions import Fraction
print(*sorted({Fraction(a, b) for b in range(1, 6) for a in range(b + 1)}))
""",
        "0 1/5 1/4 1/3 2/5 1/2 3/5 2/3 3/4 4/5 1\n",
    ),
]
