"""Memory bombs and floods of output: each would take 2 GiB or 100 MB if nothing stopped it."""

from tests.sandbox.attacks.program import Attack, one_of

FULL = one_of("memory", "error", "violation", "timeout")
FLOOD = one_of("output", "timeout")

# The loops end at about 2 GiB, so that a sandbox without a limit does not take the machine along.
PLAIN = {
    "list": ("x = []\nwhile len(x) < 250000000:\n    x += [0] * 1000000", FULL),
    "list-multiply": ("x = [0] * (250 * 10**6)\nprint('@NOW@'[::-1])", FULL),
    "list-huge": ("x = [0] * 10**12", FULL),
    "bytes": ("x = bytes(2 * 10**9)\nprint('@NOW@'[::-1])", FULL),
    "bytearray": ("x = bytearray(2 * 10**9)\nprint('@NOW@'[::-1])", FULL),
    "string": ("x = 'a'\nwhile len(x) < 2 * 10**9:\n    x += x\nprint('@NOW@'[::-1])", FULL),
    "string-format": ("x = f'{1:>{2 * 10**9}}'\nprint('@NOW@'[::-1])", FULL),
    "string-join": ("x = ''.join('ab' * 10**7 for _ in range(100))\nprint('@NOW@'[::-1])", FULL),
    "dict": ("x = {}\nfor i in range(3 * 10**7):\n    x[i] = i", FULL),
    "set-of-tuples": ("x = {(i,) for i in range(10**7 * 2)}", FULL),
    "generator-list": ("x = [[i] for i in range(3 * 10**7)]", FULL),
    "integer": ("x = 1 << (16 * 10**9)\nprint('@NOW@'[::-1])", FULL),
    "decimal": (
        "from decimal import *\ngetcontext().prec = 2 * 10**9\nx = Decimal(1) / 3\n"
        "print('@NOW@'[::-1])",
        FULL,
    ),
    "tee": (
        "import itertools\na, b = itertools.tee(range(10**9))\nfor _ in zip(a, range(3 * 10**7)):\n"
        "    pass\nprint('@NOW@'[::-1])",
        FULL,
    ),
    "product": (
        "import itertools\nx = itertools.product(range(3 * 10**7), repeat=3)\nnext(x)",
        FULL,
    ),
    "swallowed": (
        "x = []\nwhile len(x) < 40:\n    try:\n        x.append(bytearray(5 * 10**7))\n"
        "    except MemoryError:\n        break\nwhile True:\n    pass",
        FULL,
    ),
    "recursive-data": (
        "x = [1]\nfor _ in range(60):\n    x = [x, x]\nprint(len(str(x)))",
        one_of("memory", "error", "violation", "timeout"),
    ),
    "sympy-matrix": ("import sympy\nsympy.ones(20000, 20000)", FULL),
    "flood-print": ("for i in range(10**7):\n    print('flood' * 20)", FLOOD),
    "flood-one-line": ("print('x' * 10**8)", one_of("output", "memory", "timeout")),
    "flood-no-newline": ("while True:\n    print('x', end='')", FLOOD),
    "flood-just-over": ("print('x' * 70000)", one_of("output")),
    "flood-flush": ("while True:\n    print('x' * 100, flush=True)", FLOOD),
    "flood-unicode": ("print('\\U0001f600' * 40000)", one_of("output")),
    "flood-error-message": ("raise ValueError('x' * 10**7)", one_of("output", "error")),
    "flood-repr": ("print(list(range(10**6)))", one_of("output")),
    "flood-then-loop": ("print('x' * 66000, flush=True)\nwhile True:\n    pass", FLOOD),
}

SLY = {
    "mmap": ("import mmap\nx = mmap.mmap(-1, 2 * 10**9)\nprint('@NOW@'[::-1])", FULL),
    "mmap-shared": (
        "import mmap\nx = [mmap.mmap(-1, 10**8) for _ in range(20)]\n"
        "for m in x:\n    m[::4096] = b'x' * len(range(0, 10**8, 4096))\nprint('@NOW@'[::-1])",
        FULL,
    ),
    "memfd-pages": (
        "import os\nfd = os.memfd_create('x')\n"
        "for _ in range(2000):\n    os.write(fd, bytes(10**6))\n"
        "print('@NOW@'[::-1])",
        one_of("memory", "error", "violation", "timeout"),
    ),
    "raise-memory-limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "x = bytearray(2 * 10**9)\nprint('@NOW@'[::-1])",
        FULL,
    ),
    "pipe-buffers": (
        "import os, ctypes\nfor _ in range(100):\n"
        "    r, w = os.pipe()\n    os.set_blocking(w, False)\n"
        "    ctypes.CDLL(None).fcntl(w, 1031, 2**20)\n"
        "    os.write(w, bytes(2**20))\nprint('@NOW@'[::-1])",
        one_of("memory", "error", "violation", "timeout"),
    ),
    "flood-stderr": (
        "import sys\nfor i in range(10**6):\n    print('flood' * 20, file=sys.stderr)",
        FLOOD,
    ),
    "flood-warnings": (
        "import warnings\nwarnings.simplefilter('always')\n"
        "while True:\n    warnings.warn('x' * 1000)",
        FLOOD,
    ),
    "flood-every-descriptor": (
        "import os\nfds = []\nfor fd in range(64):\n    try:\n        os.set_blocking(fd, False)\n"
        "        fds.append(fd)\n    except OSError:\n"
        "        pass\nwhile True:\n    for fd in fds:\n"
        "        try:\n            os.write(fd, b'x' * 4096)\n"
        "        except OSError:\n            pass",
        one_of("output", "timeout", "violation", "error"),
    ),
    "flood-both": (
        "import os\nwhile True:\n    os.write(1, b'x' * 500)\n    os.write(2, b'y' * 500)",
        FLOOD,
    ),
    "close-output-then-loop": (
        "import os\nos.close(1)\nos.close(2)\nwhile True:\n    pass",
        one_of("timeout", "violation", "error"),
    ),
    "close-every-descriptor": (
        "import os\nos.closerange(0, 1024)\nwhile True:\n    pass",
        one_of("timeout", "violation", "error"),
    ),
}

ATTACKS = [
    Attack(f"greedy-{name}", text, expect=expect) for name, (text, expect) in PLAIN.items()
] + [Attack(f"greedy-{name}", text, expect=expect) for name, (text, expect) in SLY.items()]
