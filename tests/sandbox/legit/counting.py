"""Combinatorics: arrangements, paths, partitions, groups of permutations."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "comb-perm",
        r"""
import math
print(math.comb(10, 3), math.perm(10, 3), math.factorial(10))
""",
        "120 720 3628800\n",
    ),
    Program(
        "arrangements-of-word",
        r"""
from itertools import permutations
print(len(set(permutations("BANANA"))))
""",
        "60\n",
    ),
    Program(
        "arrangements-by-formula",
        r"""
from math import factorial
from itertools import groupby
word = sorted("MISSISSIPPI")
n = factorial(len(word))
for _, group in groupby(word):
    n //= factorial(len(list(group)))
print(n)
""",
        "34650\n",
    ),
    Program(
        "committees",
        r"""
from itertools import combinations
people = ["A", "B", "C", "D", "E", "F"]
good = [c for c in combinations(people, 3) if not {"A", "B"} <= set(c)]
print(len(good), good[0], good[-1])
""",
        "16 ('A', 'C', 'D') ('D', 'E', 'F')\n",
    ),
    Program(
        "dice-sums",
        r"""
from itertools import product
counts = {}
for roll in product(range(1, 7), repeat=3):
    counts[sum(roll)] = counts.get(sum(roll), 0) + 1
print(counts[10], max(counts.values()), sum(counts.values()))
""",
        "27 27 216\n",
    ),
    Program(
        "subsets",
        r"""
def subsets(items):
    if not items:
        return [[]]
    rest = subsets(items[1:])
    return rest + [[items[0]] + r for r in rest]
print(len(subsets(list(range(10)))), subsets([1, 2, 3]))
""",
        "1024 [[], [3], [2], [2, 3], [1], [1, 3], [1, 2], [1, 2, 3]]\n",
    ),
    Program(
        "grid-paths",
        r"""
def paths(m, n, memo={}):
    if m == 0 or n == 0:
        return 1
    if (m, n) not in memo:
        memo[m, n] = paths(m - 1, n) + paths(m, n - 1)
    return memo[m, n]
print(paths(6, 6), paths(20, 20))
""",
        "924 137846528820\n",
    ),
    Program(
        "blocked-grid",
        r"""
blocked = {(2, 2), (3, 1)}
ways = [[0] * 6 for _ in range(6)]
ways[0][0] = 1
for i in range(6):
    for j in range(6):
        if (i, j) in blocked:
            ways[i][j] = 0
            continue
        if i:
            ways[i][j] += ways[i - 1][j]
        if j:
            ways[i][j] += ways[i][j - 1]
print(ways[5][5])
""",
        "72\n",
    ),
    Program(
        "derangements",
        r"""
from itertools import permutations
for n in range(1, 8):
    print(n, sum(all(i != v for i, v in enumerate(p)) for p in permutations(range(n))))
""",
        "1 0\n2 1\n3 2\n4 9\n5 44\n6 265\n7 1854\n",
    ),
    Program(
        "subfactorial",
        r"""
from sympy import subfactorial
print([int(subfactorial(n)) for n in range(9)])
""",
        "[1, 0, 1, 2, 9, 44, 265, 1854, 14833]\n",
    ),
    Program(
        "catalan",
        r"""
from sympy import catalan
print([int(catalan(n)) for n in range(10)])
""",
        "[1, 1, 2, 5, 14, 42, 132, 429, 1430, 4862]\n",
    ),
    Program(
        "bell-stirling",
        r"""
from sympy import bell
from sympy.functions.combinatorial.numbers import stirling
print([int(bell(n)) for n in range(8)], stirling(6, 3), stirling(6, 3, kind=1))
""",
        "[1, 1, 2, 5, 15, 52, 203, 877] 90 225\n",
    ),
    Program(
        "partitions",
        r"""
from sympy.functions.combinatorial.numbers import partition
print([int(partition(n)) for n in range(1, 13)])
""",
        "[1, 2, 3, 5, 7, 11, 15, 22, 30, 42, 56, 77]\n",
    ),
    Program(
        "partitions-listed",
        r"""
from sympy.utilities.iterables import partitions
for p in partitions(5):
    print(sorted(p.items(), reverse=True))
""",
        "[(5, 1)]\n"
        "[(4, 1), (1, 1)]\n"
        "[(3, 1), (2, 1)]\n"
        "[(3, 1), (1, 2)]\n"
        "[(2, 2), (1, 1)]\n"
        "[(2, 1), (1, 3)]\n"
        "[(1, 5)]\n",
    ),
    Program(
        "coin-change",
        r"""
ways = [1] + [0] * 200
for coin in (1, 2, 5, 10, 20, 50, 100, 200):
    for amount in range(coin, 201):
        ways[amount] += ways[amount - coin]
print(ways[200])
""",
        "73682\n",
    ),
    Program(
        "stars-and-bars",
        r"""
from math import comb
brute = sum(1 for a in range(11) for b in range(11 - a) for c in range(11 - a - b))
print(brute, comb(13, 3))
""",
        "286 286\n",
    ),
    Program(
        "inclusion-exclusion",
        r"""
n = 1000
print(sum(1 for k in range(1, n + 1) if k % 2 and k % 3 and k % 5))
print(n - n//2 - n//3 - n//5 + n//6 + n//10 + n//15 - n//30)
""",
        "266\n266\n",
    ),
    Program(
        "queens",
        r"""
def solve(n, row=0, cols=0, left=0, right=0):
    if row == n:
        return 1
    total = 0
    for c in range(n):
        bit, l, r = 1 << c, 1 << (row + c), 1 << (row - c + n)
        if not (cols & bit or left & l or right & r):
            total += solve(n, row + 1, cols | bit, left | l, right | r)
    return total
print([solve(n) for n in range(1, 9)])
""",
        "[1, 0, 0, 2, 10, 4, 40, 92]\n",
    ),
    Program(
        "hanoi",
        r"""
def hanoi(n, a="A", b="B", c="C"):
    if n == 0:
        return []
    return hanoi(n - 1, a, c, b) + [a + c] + hanoi(n - 1, b, a, c)
moves = hanoi(3)
print(len(hanoi(10)), " ".join(moves))
""",
        "1023 AC AB CB AC BA BC AC\n",
    ),
    Program(
        "permutation-group",
        r"""
from sympy.combinatorics import Permutation, PermutationGroup
G = PermutationGroup([Permutation([1, 2, 3, 0]), Permutation([1, 0, 2, 3])])
print(G.order(), G.is_abelian)
""",
        "24 False\n",
    ),
    Program(
        "permutation-cycles",
        r"""
from sympy.combinatorics import Permutation
p = Permutation([2, 0, 3, 1, 5, 4])
print(p.cyclic_form, p.order(), p.is_even)
""",
        "[[0, 2, 3, 1], [4, 5]] 4 True\n",
    ),
    Program(
        "symmetric-dihedral",
        r"""
from sympy.combinatorics.named_groups import DihedralGroup, SymmetricGroup, AlternatingGroup
print(DihedralGroup(6).order(), SymmetricGroup(5).order(), AlternatingGroup(5).order())
""",
        "12 120 60\n",
    ),
    Program(
        "burnside-necklaces",
        r"""
from math import gcd
def necklaces(n, k):
    return sum(k ** gcd(n, i) for i in range(n)) // n
print([necklaces(6, k) for k in range(1, 5)])
""",
        "[1, 14, 130, 700]\n",
    ),
    Program(
        "gray-code",
        r"""
def gray(n):
    if n == 0:
        return [""]
    return ["0" + g for g in gray(n - 1)] + ["1" + g for g in reversed(gray(n - 1))]
print(*gray(3))
""",
        "000 001 011 010 110 111 101 100\n",
    ),
    Program(
        "tilings-recurrence",
        r"""
a, b = 1, 1
for n in range(2, 11):
    a, b = b, a + b
print(b)
""",
        "89\n",
    ),
    Program(
        "no-two-adjacent",
        r"""
count = sum("11" not in f"{n:010b}" for n in range(2**10))
print(count)
""",
        "144\n",
    ),
    Program(
        "handshake-tournament",
        r"""
teams = 8
print(teams * (teams - 1) // 2, 2 ** (teams * (teams - 1) // 2))
""",
        "28 268435456\n",
    ),
    Program(
        "pigeonhole",
        r"""
from itertools import combinations
def has_pair(s):
    return any((a + b) == 11 for a, b in combinations(s, 2))
for size in (6, 5):
    print(all(has_pair(s) for s in combinations(range(1, 11), size)))
""",
        "True\nFalse\n",
    ),
    Program(
        "circular-seats",
        r"""
from itertools import permutations
count = 0
for p in permutations("BCDE"):
    seats = ("A", *p)
    if abs(seats.index("A") - seats.index("C")) not in (1, 4):
        count += 1
print(count)
""",
        "12\n",
    ),
    Program(
        "ordered-dict-counting",
        r"""
text = "the quick brown fox jumps over the lazy dog the end"
counts = {}
for word in text.split():
    counts[word] = counts.get(word, 0) + 1
for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]:
    print(word, n)
""",
        "the 3\nbrown 1\ndog 1\n",
    ),
]
