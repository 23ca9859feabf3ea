"""The language itself: functions, generators, exceptions, patterns, loops."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "memo-recursion",
        r"""
memo = {}
def fib(n):
    if n < 2:
        return n
    if n not in memo:
        memo[n] = fib(n - 1) + fib(n - 2)
    return memo[n]
print(fib(90), fib(300) % 10**9)
""",
        "2880067194370816120 990979600\n",
    ),
    Program(
        "deep-recursion",
        r"""
def total(n):
    return 0 if n == 0 else n + total(n - 1)
print(total(900))
""",
        "405450\n",
    ),
    Program(
        "class-with-properties",
        r"""
class Account:
    rate = 0.05
    def __init__(self, owner, balance=0):
        self.owner, self._balance = owner, balance
    @property
    def balance(self):
        return self._balance
    @classmethod
    def empty(cls, owner):
        return cls(owner)
    @staticmethod
    def fee(amount):
        return amount * 0.01
    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self._balance += amount
        return self
    def __str__(self):
        return f"{self.owner}: {self.balance:.2f}"
a = Account("Ann", 100).deposit(50)
print(a, Account.empty("Bo"), Account.fee(200), Account.rate)
""",
        "Ann: 150.00 Bo: 0.00 2.0 0.05\n",
    ),
    Program(
        "inheritance",
        r"""
class Shape:
    def area(self):
        raise NotImplementedError
    def describe(self):
        return f"{type(self).__name__} of area {self.area():g}"
class Square(Shape):
    def __init__(self, s):
        self.s = s
    def area(self):
        return self.s**2
class Rect(Square):
    def __init__(self, a, b):
        super().__init__(a)
        self.b = b
    def area(self):
        return self.s * self.b
print(*(s.describe() for s in (Square(3), Rect(2, 5.5))), sep="\n")
""",
        "Square of area 9\nRect of area 11\n",
    ),
    Program(
        "generators",
        r"""
def primes():
    n = 2
    while True:
        if all(n % d for d in range(2, int(n**0.5) + 1)):
            yield n
        n += 1
p = primes()
print([next(p) for _ in range(10)])
""",
        "[2, 3, 5, 7, 11, 13, 17, 19, 23, 29]\n",
    ),
    Program(
        "generator-send",
        r"""
def running_mean():
    total, n, mean = 0, 0, None
    while True:
        total += yield mean
        n += 1
        mean = total / n
g = running_mean()
next(g)
print(g.send(10), g.send(20), g.send(60))
""",
        "10.0 15.0 30.0\n",
    ),
    Program(
        "yield-from",
        r"""
def flatten(x):
    for item in x:
        if isinstance(item, (list, tuple)):
            yield from flatten(item)
        else:
            yield item
print(list(flatten([1, [2, (3, [4])], 5])))
""",
        "[1, 2, 3, 4, 5]\n",
    ),
    Program(
        "try-except-else-finally",
        r"""
def safe(a, b):
    try:
        result = a / b
    except ZeroDivisionError as error:
        return f"error: {error}"
    except TypeError:
        return "type"
    else:
        return result
    finally:
        print("done", end="; ")
print(safe(6, 3), safe(1, 0), safe("a", 1))
""",
        "done; done; done; 2.0 error: division by zero type\n",
    ),
    Program(
        "own-exception",
        r"""
class NotASolution(Exception):
    def __init__(self, x):
        super().__init__(f"{x} does not solve it")
try:
    raise NotASolution(3)
except NotASolution as error:
    print(error, error.args)
""",
        "3 does not solve it ('3 does not solve it',)\n",
    ),
    Program(
        "assertion-caught",
        r"""
try:
    assert 2 + 2 == 5, "arithmetic holds"
except AssertionError as error:
    print("caught:", error)
assert 2 + 2 == 4
""",
        "caught: arithmetic holds\n",
    ),
    Program(
        "value-error",
        r"""
for text in ("12", "x", "3.5"):
    try:
        print(int(text))
    except ValueError as error:
        print(type(error).__name__, error)
""",
        "12\n"
        "ValueError invalid literal for int() with base 10: 'x'\n"
        "ValueError invalid literal for int() with base 10: '3.5'\n",
    ),
    Program(
        "comprehensions",
        r"""
print([x**2 for x in range(10) if x % 3 == 1], {x: x % 3 for x in range(5)})
print(sorted({x % 4 for x in range(20)}))
print([[i * j for j in range(1, 4)] for i in range(1, 4)], sum(x for x in range(101)))
""",
        "[1, 16, 49] {0: 0, 1: 1, 2: 2, 3: 0, 4: 1}\n"
        "[0, 1, 2, 3]\n"
        "[[1, 2, 3], [2, 4, 6], [3, 6, 9]] 5050\n",
    ),
    Program(
        "closures-nonlocal",
        r"""
def counter():
    n = 0
    def step():
        nonlocal n
        n += 1
        return n
    return step
c, d = counter(), counter()
print(c(), c(), d(), c())
""",
        "1 2 1 3\n",
    ),
    Program(
        "global-statement",
        r"""
hits = 0
def visit():
    global hits
    hits += 1
for _ in range(5):
    visit()
print(hits)
""",
        "5\n",
    ),
    Program(
        "decorator",
        r"""
def twice(f):
    def inner(*args, **kwargs):
        return f(f(*args, **kwargs))
    return inner
@twice
def triple(x):
    return 3 * x
print(triple(2))
""",
        "18\n",
    ),
    Program(
        "arguments",
        r"""
def f(a, b=2, *rest, c=3, **more):
    return a, b, rest, c, sorted(more.items())
print(f(1), f(1, 5, 6, 7, c=9, z=1), f(*[1, 2], **{"c": 4}))
""",
        "(1, 2, (), 3, []) (1, 5, (6, 7), 9, [('z', 1)]) (1, 2, (), 4, [])\n",
    ),
    Program(
        "unpacking",
        r"""
first, *middle, last = [1, 2, 3, 4, 5]
(a, b), c = (1, 2), 3
print(first, middle, last, a, b, c, [*range(3), *"ab"], {**{"x": 1}, "y": 2})
""",
        "1 [2, 3, 4] 5 1 2 3 [0, 1, 2, 'a', 'b'] {'x': 1, 'y': 2}\n",
    ),
    Program(
        "walrus-and-ternary",
        r"""
values = [5, 12, 8]
if (n := max(values)) > 10:
    print("big" if n > 11 else "small", n)
""",
        "big 12\n",
    ),
    Program(
        "match-statement",
        r"""
def kind(p):
    match p:
        case (0, 0):
            return "origin"
        case (0, y):
            return f"on the y-axis at {y}"
        case (x, y) if x == y:
            return "diagonal"
        case [x, y]:
            return f"point {x},{y}"
        case _:
            return "other"
print(kind((0, 0)), kind((0, 3)), kind((2, 2)), kind((1, 2)), kind("x"), sep="; ")
""",
        "origin; on the y-axis at 3; diagonal; point 1,2; other\n",
    ),
    Program(
        "while-else",
        r"""
n = 91
d = 2
while d * d <= n:
    if n % d == 0:
        print(d, n // d)
        break
    d += 1
else:
    print("prime")
""",
        "7 13\n",
    ),
    Program(
        "for-else",
        r"""
for n in range(2, 20):
    for d in range(2, n):
        if n % d == 0:
            break
    else:
        print(n, end=" ")
print()
""",
        "2 3 5 7 11 13 17 19 \n",
    ),
    Program(
        "enumerate-zip-map",
        r"""
names, scores = ["Ann", "Ben", "Cy"], [88, 92, 79]
for i, (name, score) in enumerate(zip(names, scores), start=1):
    print(i, name, score)
print(list(map(lambda s: s + 5, scores)), list(filter(lambda s: s > 80, scores)))
print(any(s > 90 for s in scores), all(scores))
""",
        "1 Ann 88\n2 Ben 92\n3 Cy 79\n[93, 97, 84] [88, 92]\nTrue True\n",
    ),
    Program(
        "sort-by-keys",
        r"""
rows = [("Ann", 3), ("Ben", 1), ("Cy", 3)]
print(sorted(rows, key=lambda r: (-r[1], r[0])), min(rows, key=lambda r: r[1]), max(rows)[0])
""",
        "[('Ann', 3), ('Cy', 3), ('Ben', 1)] ('Ben', 1) Cy\n",
    ),
    Program(
        "slices",
        r"""
x = list(range(10))
x[2:4] = ["a", "b", "c"]
del x[0]
print(x, x[::-2], x[-3:], "abcdef"[1:5:2], slice(1, 3))
""",
        "[1, 'a', 'b', 'c', 4, 5, 6, 7, 8, 9] [9, 7, 5, 'c', 'a'] [7, 8, 9] bd slice(1, 3, None)\n",
    ),
]
