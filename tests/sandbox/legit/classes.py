"""Classes, the operators they define, and small well-known algorithms."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "iterator-protocol",
        r"""
class Countdown:
    def __init__(self, n):
        self.n = n
    def __iter__(self):
        return self
    def __next__(self):
        if self.n <= 0:
            raise StopIteration
        self.n -= 1
        return self.n + 1
print(list(Countdown(4)), sum(Countdown(10)))
""",
        "[4, 3, 2, 1] 55\n",
    ),
    Program(
        "context-manager",
        r"""
class Block:
    def __enter__(self):
        print("in")
        return self
    def __exit__(self, *error):
        print("out", error[0].__name__ if error[0] else None)
        return True
with Block():
    raise KeyError("x")
""",
        "in\nout KeyError\n",
    ),
    Program(
        "operators-of-a-class",
        r"""
class Mod7:
    def __init__(self, v):
        self.v = v % 7
    def __add__(self, o):
        return Mod7(self.v + o.v)
    def __mul__(self, o):
        return Mod7(self.v * o.v)
    def __pow__(self, n):
        return Mod7(pow(self.v, n, 7))
    def __eq__(self, o):
        return self.v == o.v
    def __hash__(self):
        return hash(self.v)
    def __repr__(self):
        return f"{self.v} (mod 7)"
print(Mod7(5) + Mod7(4), Mod7(3) * Mod7(5), Mod7(3) ** 6, len({Mod7(1), Mod7(8), Mod7(2)}))
""",
        "2 (mod 7) 1 (mod 7) 1 (mod 7) 2\n",
    ),
    Program(
        "million-steps",
        r"""
total = 0
for i in range(10**6):
    if i % 3 == 0 or i % 5 == 0:
        total += i
print(total)
""",
        "233333166668\n",
    ),
    Program(
        "two-million-comprehension",
        r"""
print(sum([i & 1 for i in range(2 * 10**6)]))
""",
        "1000000\n",
    ),
    Program(
        "itertools-recipes",
        r"""
from itertools import *
print(list(accumulate([1, 2, 3, 4])), list(accumulate([3, 1, 4, 1, 5], max)))
print(list(islice(count(10, 5), 4)), list(islice(cycle("ab"), 5)), list(chain([1], [2, 3])))
print([(k, len(list(g))) for k, g in groupby("aaabbc")], list(pairwise([1, 4, 9, 16])))
print(list(zip_longest("ab", "c", fillvalue="-")), list(compress("abcd", [1, 0, 1, 0])))
print(list(combinations_with_replacement("abc", 2))[:4], list(repeat(7, 2)))
print(list(dropwhile(lambda x: x < 4, [1, 3, 5, 2])), list(starmap(pow, [(2, 3), (3, 2)])))
print(list(takewhile(lambda x: x < 4, [1, 3, 5, 2])), len(list(product("ab", repeat=3))))
""",
        "[1, 3, 6, 10] [3, 3, 4, 4, 5]\n"
        "[10, 15, 20, 25] ['a', 'b', 'a', 'b', 'a'] [1, 2, 3]\n"
        "[('a', 3), ('b', 2), ('c', 1)] [(1, 4), (4, 9), (9, 16)]\n"
        "[('a', 'c'), ('b', '-')] ['a', 'c']\n"
        "[('a', 'a'), ('a', 'b'), ('a', 'c'), ('b', 'b')] [7, 7]\n"
        "[5, 2] [8, 9]\n"
        "[1, 3] 8\n",
    ),
    Program(
        "main-guard",
        r"""
def main():
    print("result:", sum(range(11)))
if __name__ == "__main__":
    main()
""",
        "result: 55\n",
    ),
    Program(
        "exit-early",
        r"""
x = 10
if x > 5:
    print("early")
    raise SystemExit
print("never")
""",
        "early\n",
    ),
    Program(
        "type-annotations",
        r'''
from __future__ import annotations
def area(w: float, h: float = 2.0) -> float:
    """Width times height."""
    result: float = w * h
    return result
print(area(3), area.__doc__)
''',
        "6.0 Width times height.\n",
    ),
    Program(
        "isinstance-and-types",
        r"""
for v in (1, 1.0, "1", [1], (1,), {1}, {1: 1}, None, True, 1j):
    print(type(v).__name__, isinstance(v, int), end="; ")
print()
""",
        "int True; float False; str False; list False; tuple False; set False; dict "
        "False; NoneType False; bool True; complex False; \n",
    ),
    Program(
        "binary-search",
        r"""
def search(a, x):
    lo, hi = 0, len(a) - 1
    while lo <= hi:
        mid = (lo + hi) // 2
        if a[mid] == x:
            return mid
        if a[mid] < x:
            lo = mid + 1
        else:
            hi = mid - 1
    return -1
print(search([1, 3, 5, 7, 9, 11], 7), search([1, 3, 5], 4))
""",
        "3 -1\n",
    ),
    Program(
        "breadth-first",
        r"""
def shortest(start, goal):
    queue, seen = [(start, 0)], {start}
    while queue:
        n, steps = queue.pop(0)
        if n == goal:
            return steps
        for m in (n + 1, n * 2, n - 3):
            if 0 < m < 500 and m not in seen:
                seen.add(m)
                queue.append((m, steps + 1))
print(shortest(1, 100), shortest(7, 1))
""",
        "8 2\n",
    ),
    Program(
        "dynamic-programming",
        r"""
def knapsack(items, room):
    best = [0] * (room + 1)
    for weight, value in items:
        for r in range(room, weight - 1, -1):
            best[r] = max(best[r], best[r - weight] + value)
    return best[room]
print(knapsack([(12, 4), (2, 2), (1, 1), (4, 10), (1, 2)], 15))
""",
        "15\n",
    ),
    Program(
        "edit-distance",
        r"""
def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]
print(distance("kitten", "sitting"), distance("", "abc"))
""",
        "3 3\n",
    ),
    Program(
        "getattr-and-dir",
        r"""
class P:
    x = 3
    def y(self):
        return 4
p = P()
p.z = 5
print(getattr(p, "x"), hasattr(p, "w"), p.y())
print([n for n in dir(p) if not n.startswith("_")])
""",
        "3 False 4\n['x', 'y', 'z']\n",
    ),
    Program(
        "names-like-builtins",
        r"""
def open_boxes(open):
    return sum(open)
input = [1, 2, 3]
max_, id = max(input), 7
print(open_boxes(input), max_, id)
""",
        "6 3 7\n",
    ),
    Program(
        "standard-error-not-used",
        r"""
import math
print(math.floor(-2.5), math.ceil(-2.5), math.trunc(-2.5), math.fmod(-7, 3))
print(math.copysign(3, -1), math.prod([2, 3, 4]))
""",
        "-3 -2 -2 -1.0\n-3.0 24\n",
    ),
    Program(
        "math-functions",
        r"""
import math as m
print(m.e, m.tau == 2 * m.pi, m.log(8, 2), m.log10(1000), m.exp(0), m.isclose(0.1 + 0.2, 0.3))
print(m.inf > 10**300)
print(m.fsum([0.1] * 10), m.gcd(12, 18, 27), m.modf(2.25), m.hypot(1, 2, 2), m.sqrt(2))
""",
        "2.718281828459045 True 3.0 3.0 1.0 True\nTrue\n1.0 3 (0.25, 2.0) 3.0 1.4142135623730951\n",
    ),
]
