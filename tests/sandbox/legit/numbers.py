"""Number theory: divisors, primes, remainders."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "gcd-lcm",
        r"""
import math
print(math.gcd(84, 126), math.lcm(84, 126), math.gcd(0, 5))
""",
        "42 252 5\n",
    ),
    Program(
        "euclid",
        r"""
def gcd(a, b):
    while b:
        print(f"{a} = {a // b} * {b} + {a % b}")
        a, b = b, a % b
    return a
print(gcd(252, 105))
""",
        "252 = 2 * 105 + 42\n105 = 2 * 42 + 21\n42 = 2 * 21 + 0\n21\n",
    ),
    Program(
        "extended-euclid",
        r"""
def egcd(a, b):
    if b == 0:
        return a, 1, 0
    g, x, y = egcd(b, a % b)
    return g, y, x - (a // b) * y
g, x, y = egcd(240, 46)
print(g, x, y, 240 * x + 46 * y)
""",
        "2 -9 47 2\n",
    ),
    Program(
        "sieve",
        r"""
n = 60
sieve = [True] * (n + 1)
sieve[0] = sieve[1] = False
for p in range(2, int(n**0.5) + 1):
    if sieve[p]:
        for m in range(p * p, n + 1, p):
            sieve[m] = False
print([i for i, prime in enumerate(sieve) if prime])
""",
        "[2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]\n",
    ),
    Program(
        "big-sieve",
        r"""
n = 10**6
sieve = bytearray([1]) * (n + 1)
sieve[0] = sieve[1] = 0
for p in range(2, 1001):
    if sieve[p]:
        sieve[p * p :: p] = bytes(len(range(p * p, n + 1, p)))
print(sum(sieve))
""",
        "78498\n",
    ),
    Program(
        "factorint",
        r"""
from sympy import factorint
f = factorint(360360)
print(f)
print(" * ".join(f"{p}^{e}" if e > 1 else str(p) for p, e in f.items()))
""",
        "{2: 3, 3: 2, 5: 1, 7: 1, 11: 1, 13: 1}\n2^3 * 3^2 * 5 * 7 * 11 * 13\n",
    ),
    Program(
        "divisors",
        r"""
from sympy import divisors, divisor_count, divisor_sigma
print(divisors(36), divisor_count(360), divisor_sigma(28))
""",
        "[1, 2, 3, 4, 6, 9, 12, 18, 36] 24 56\n",
    ),
    Program(
        "totient",
        r"""
from sympy import totient
print(totient(100), [int(totient(n)) for n in range(1, 11)])
""",
        "40 [1, 1, 2, 2, 4, 2, 6, 4, 6, 4]\n",
    ),
    Program(
        "mobius",
        r"""
from sympy import mobius
print([int(mobius(n)) for n in range(1, 13)])
""",
        "[1, -1, -1, 0, -1, 1, -1, 0, 0, 1, -1, 0]\n",
    ),
    Program(
        "isprime-nextprime",
        r"""
from sympy import isprime, nextprime, prevprime, prime, primepi
print(isprime(2**31 - 1), nextprime(100), prevprime(100), prime(100), primepi(1000))
""",
        "True 101 97 541 168\n",
    ),
    Program(
        "primerange",
        r"""
import sympy
print(list(sympy.primerange(80, 120)))
""",
        "[83, 89, 97, 101, 103, 107, 109, 113]\n",
    ),
    Program(
        "modular-inverse",
        r"""
from sympy import mod_inverse
print(mod_inverse(3, 11), pow(3, -1, 11))
""",
        "4 4\n",
    ),
    Program(
        "crt",
        r"""
from sympy.ntheory.modular import crt
n, m = crt([3, 5, 7], [2, 3, 2])
print(n, m)
""",
        "23 105\n",
    ),
    Program(
        "crt-by-search",
        r"""
n = 1
while not (n % 3 == 2 and n % 5 == 3 and n % 7 == 2):
    n += 1
print(n)
""",
        "23\n",
    ),
    Program(
        "discrete-log",
        r"""
from sympy.ntheory import discrete_log
print(discrete_log(41, 15, 7))
""",
        "3\n",
    ),
    Program(
        "primitive-root",
        r"""
from sympy.ntheory import primitive_root, n_order
print(primitive_root(23), n_order(2, 23))
""",
        "5 11\n",
    ),
    Program(
        "legendre",
        r"""
from sympy.ntheory import legendre_symbol, jacobi_symbol, is_quad_residue
print(legendre_symbol(3, 11), jacobi_symbol(2, 15), is_quad_residue(5, 11))
""",
        "1 1 True\n",
    ),
    Program(
        "sqrt-mod",
        r"""
from sympy.ntheory import sqrt_mod
print(sqrt_mod(2, 7), sqrt_mod(2, 7, all_roots=True))
""",
        "3 [3, 4]\n",
    ),
    Program(
        "fast-power",
        r"""
print(pow(7, 2023, 1000), pow(2, 100, 101))
""",
        "343 1\n",
    ),
    Program(
        "last-digits",
        r"""
print(str(7**2023)[-3:], 3**1000 % 1000)
""",
        "343 1\n",
    ),
]
