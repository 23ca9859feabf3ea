"""Programs that do not end, or burn processor time inside one call; recursion without end."""

from tests.sandbox.attacks.program import Attack, one_of

LATE = one_of("timeout")
LATE_OR_STOPPED = one_of("timeout", "error", "violation")
DEEP = one_of("ok", "error", "timeout", "memory", "violation", "output")

# No import outside the allow-list: the syntax layer may let these pass, the clock must not.
PLAIN = {
    "loop": ("while True:\n    pass", LATE),
    "loop-swallows-everything": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n"
        "        pass",
        LATE,
    ),
    "loop-generator": ("import itertools\nsum(1 for _ in itertools.count())", LATE),
    "loop-in-c-sum": ("import itertools\nsum(itertools.repeat(1))", LATE),
    "loop-in-c-any": ("import itertools\nany(itertools.repeat(0))", LATE),
    "loop-in-c-deque": ("import itertools\nall(itertools.cycle([1]))", LATE),
    "loop-in-c-in": ("import itertools\n2 in itertools.repeat(1)", LATE),
    "range-sum": ("print(sum(range(10**12)))", LATE),
    "combinations": ("import itertools\nmax(itertools.permutations(range(20)))", LATE),
    "power-tower": ("print((10**9)**(10**9) % 7)", one_of("timeout", "memory", "error")),
    "modular-power": ("pow(3, 10**200000, 10**200000 + 1)", LATE),
    "factorial-huge": (
        "import math\nmath.factorial(10**8)",
        one_of("timeout", "memory", "error"),
    ),
    "factorial-of-factorial": (
        "import math\nprint(math.factorial(math.factorial(math.factorial(9))))",
        one_of("error", "timeout", "memory"),
    ),
    "binomial": ("import math\nmath.comb(10**8, 5 * 10**7)", one_of("timeout", "memory", "error")),
    "int-to-text-limit": ("print(10**100000)", one_of("error", "output")),
    "text-to-int-limit": ("int('9' * 100000)", one_of("ok", "error")),
    "int-to-text-by-hex": ("print(len(hex(7**(10**7))))", one_of("ok", "timeout", "memory")),
    "decimal-digits": (
        "from decimal import *\ngetcontext().prec = MAX_PREC\nDecimal(2).sqrt()",
        one_of("error", "memory", "timeout"),
    ),
    "decimal-power": (
        "from decimal import *\nprint(Decimal(10)**Decimal(999999)**2)",
        one_of("error", "timeout", "ok"),
    ),
    "decimal-exact-exp": (
        "from decimal import *\ngetcontext().prec = 300000\nprint(Decimal(2).exp())",
        LATE,
    ),
    "fraction-growth": (
        "from fractions import Fraction\nx = Fraction(1, 3)\nwhile True:\n    x = x * x + 1",
        one_of("timeout", "memory"),
    ),
    "fibonacci": ("f = lambda n: n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(60))", LATE),
    "sort-with-slow-key": ("sorted(range(10**5), key=lambda x: sum(range(10**5)))", LATE),
    "recursion": ("def f(n):\n    return f(n + 1)\nf(0)", one_of("error")),
    "recursion-swallowed": (
        "def f():\n    try:\n        f()\n    finally:\n        f()\nf()",
        one_of("timeout", "error"),
    ),
    "recursion-repr": ("x = []\nfor _ in range(10**6):\n    x = [x]\nprint(len(repr(x)))", DEEP),
    "recursion-compare": (
        "a, b = [], []\nfor _ in range(10**5):\n    a, b = [a], [b]\nprint(a == b)",
        DEEP,
    ),
    "recursion-deallocate": (
        "class N:\n    pass\nx = None\nfor _ in range(10**6):\n    y = N()\n    y.x = x\n    x = y",
        DEEP,
    ),
    "recursion-hash": ("x = ()\nfor _ in range(10**6):\n    x = (x,)\nprint(hash(x))", DEEP),
    "recursion-map": ("x = [1]\nfor _ in range(10**6):\n    x = map(int, x)\nlist(x)", DEEP),
    "recursion-chain": (
        "import itertools\nx = iter([1])\nfor _ in range(10**6):\n"
        "    x = itertools.chain(x)\nlist(x)",
        DEEP,
    ),
    "recursion-property": (
        "class A:\n    x = property(lambda s: s.x)\nA().x",
        one_of("error"),
    ),
    "sympy-factor": (
        "import sympy\nprint(sympy.factorint((2**521 - 1) * (2**607 - 1) + 2))",
        LATE,
    ),
    "sympy-integrate": (
        "from sympy import *\nx = symbols('x')\n"
        "print(integrate(sqrt(sin(x)**3 + cos(x**5)) * exp(x**x), x))",
        one_of("timeout", "ok", "error"),
    ),
    "sympy-groebner": (
        "from sympy import *\nv = symbols('a:h')\n"
        "print(groebner([sum(v)**5 - 1] + [v[i]**7 * v[i - 1] - v[i - 2]**3 for i in range(8)]))",
        LATE,
    ),
    "sympy-expand": (
        "from sympy import *\nexpand(sum(symbols('a:z'))**40)",
        one_of("timeout", "memory"),
    ),
    "sympy-digits": (
        "import sympy\nprint(sympy.pi.evalf(10**8))",
        one_of("timeout", "memory", "error"),
    ),
    "sympy-tower": (
        "import sympy\nprint(sympy.Integer(9)**9**9**9)",
        one_of("timeout", "memory", "error"),
    ),
    "sympy-primes": ("import sympy\nprint(sympy.prime(10**12))", one_of("timeout", "memory")),
    "sympy-zeros": (
        "import sympy\nprint(sympy.zeros(10**5, 10**5).tolist())",
        one_of("timeout", "memory", "error"),
    ),
}

# These need a forbidden import, so a full sandbox refuses them.
SLY = {
    "sleep": ("import time\ntime.sleep(1000)", LATE_OR_STOPPED),
    "wait-for-signal": ("import signal\nsignal.pause()", LATE_OR_STOPPED),
    "stop-itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", LATE_OR_STOPPED),
    "trap-itself": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGTSTP)\n"
        "os.kill(os.getpid(), signal.SIGTTIN)",
        one_of("timeout", "error", "violation", "ok"),
    ),
    "ignore-signals": (
        "import signal\nfor s in range(1, 65):\n    try:\n"
        "        signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\nwhile True:\n    pass",
        LATE_OR_STOPPED,
    ),
    "ignore-cpu-signal": (
        "import signal\nsignal.signal(signal.SIGXCPU, lambda *a: None)\nwhile True:\n    pass",
        LATE_OR_STOPPED,
    ),
    "block-signals": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "while True:\n    pass",
        LATE_OR_STOPPED,
    ),
    "raise-cpu-limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\nwhile True:\n    pass",
        LATE_OR_STOPPED,
    ),
    "lock": (
        "import _thread\nl = _thread.allocate_lock()\nl.acquire()\nl.acquire()",
        LATE_OR_STOPPED,
    ),
    "read-own-pipe": ("import os\nr, w = os.pipe()\nos.read(r, 1)", LATE_OR_STOPPED),
    "regex": ("import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')", LATE),
    "regex-by-graph": ("import fractions\nfractions.re.match('(a|a)+$', 'a' * 40 + 'b')", LATE),
    "recursion-limit-raised": (
        "import sys\nsys.setrecursionlimit(2**31 - 1)\ndef f(n):\n    return f(n + 1)\nf(0)",
        one_of("error", "memory", "timeout", "violation"),
    ),
    "recursion-json": (
        "import sys\nsys.setrecursionlimit(10**9)\nimport json\njson.loads('[' * 10**6)",
        DEEP,
    ),
    "recursion-compile": ("eval('-' * 10**6 + '1')", DEEP),
    "recursion-eval": ("eval('+'.join(['1'] * 10**6))", DEEP),
    "finaliser-loop": (
        "class A:\n    def __del__(self):\n        while True:\n            pass\na = A()",
        one_of("timeout", "ok", "error", "violation"),
    ),
    "exit-handler-loop": (
        "import atexit\n@atexit.register\ndef f():\n    while True:\n        pass",
        one_of("timeout", "ok", "error", "violation"),
    ),
    "finaliser-writes-late": (
        "class A:\n    def __del__(self):\n        print.__self__.open('@CANARY@/a', 'w')\n"
        "a = A()\na.a = a",
        one_of("ok", "error", "violation"),
    ),
    "thread-ends-late": (
        "import threading, time\nthreading._register_atexit(lambda: time.sleep(100))",
        one_of("timeout", "ok", "error", "violation"),
    ),
    "crash": (
        "def f():\n    pass\n"
        "f.__code__ = f.__code__.replace(co_code=b'\\x64\\xff' * 50, co_stacksize=0)\n"
        "f()",
        one_of("error", "violation", "timeout"),
    ),
    "abort": ("import os\nos.abort()", one_of("error", "violation")),
    "exit-nine": (
        "import os\nos.kill(os.getpid(), 9)",
        one_of("error", "violation", "timeout", "memory"),
    ),
}

ATTACKS = [
    Attack(f"endless-{name}", text, expect=expect) for name, (text, expect) in PLAIN.items()
] + [Attack(f"endless-{name}", text, expect=expect) for name, (text, expect) in SLY.items()]
