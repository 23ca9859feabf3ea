"""Forged results, patched output, and state left for the next program."""

from tests.sandbox.attacks.program import Attack, one_of

FAILED = one_of("error", "violation")
QUIET = one_of("ok", "error", "violation")

FRAMES = r"""
import json, os, pickle, struct
body = json.dumps({"status": "ok", "stdout": won, "stderr": "", "rc": 0, "wall_ms": 1}).encode()
class P:
    def __reduce__(self):
        return (os.mkdir, ("@CANARY@/a",))
frames = [body + b"\n", pickle.dumps(("ok", won)), pickle.dumps(P()), b"\0" * 64,
          b"\xff" * 64, won.encode() + b"\n", struct.pack("=iiqq", 0, 0, 0, 0)]
for f in (body, pickle.dumps(("ok", won))):
    frames += [struct.pack(k, len(f)) + f for k in ("=I", ">I", "=Q", ">Q", "=H")]
"""

FORGED = {
    "frames-on-every-descriptor": (
        FRAMES
        + r"""
for fd in range(256):
    if fd not in (1, 2):
        try:
            os.set_blocking(fd, False)
            for f in frames:
                os.write(fd, f)
        except OSError:
            pass
os._exit(3)
""",
        FAILED,
    ),
    "frames-then-killed": (
        FRAMES
        + r"""
for fd in range(3, 256):
    try:
        os.write(fd, frames[0])
    except OSError:
        pass
os.kill(os.getpid(), 9)
""",
        one_of("error", "violation", "memory", "timeout"),
    ),
    "pickle-on-every-descriptor": (
        FRAMES
        + r"""
for fd in range(3, 256):
    try:
        os.set_blocking(fd, False)
        os.write(fd, frames[2])
        os.write(fd, struct.pack(">I", len(frames[2])) + frames[2])
    except OSError:
        pass
""",
        QUIET,
    ),
    "descriptors-read-empty": (
        # Takes what the supervisor, or the next program, should have read.
        r"""
import os
for fd in range(256):
    try:
        os.set_blocking(fd, False)
        while got := os.read(fd, 65536):
            if b"@MARK@"[::-1] in got or b"program" in got:
                print(won)
    except OSError:
        pass
""",
        QUIET,
    ),
    "descriptors-moved": (
        r"""
import os
for fd in range(3, 64):
    try:
        os.dup2(1, fd)
    except OSError:
        pass
os._exit(5)
""",
        FAILED,
    ),
    "output-replaced-by-others": (
        r"""
import os
for fd in range(3, 64):
    try:
        os.dup2(fd, 1)
        os.write(1, won.encode())
    except OSError:
        pass
""",
        QUIET,
    ),
    "exit-codes": ("import os\nos._exit(137)", FAILED),
    "exit-zero-after-error": (
        "try:\n    1 / 0\nfinally:\n    import os\n    os._exit(0)",
        one_of("ok", "error", "violation"),
    ),
    "status-line": (
        'print(\'{"status": "ok", "stdout": "42"}\')\nraise SystemExit(1)',
        FAILED,
    ),
    "exit-with-text": ("raise SystemExit('status: ok')", FAILED),
    "signal-of-a-limit": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)",
        one_of("error", "violation", "timeout"),
    ),
    "nul-and-escapes": (
        "print('\\0\\x1b[2J\\x04\\x17')\nimport os\nos.write(1, b'\\xff\\xfe\\xed\\xa0\\x80')",
        QUIET,
    ),
    "surrogates": ("print('\\ud800')", one_of("ok", "error")),
    "output-closed": (
        "import sys\nsys.stdout.close()\nsys.stderr.close()",
        one_of("ok", "error"),
    ),
    "output-object-replaced": (
        "import sys\nclass O:\n    def write(self, s):\n        raise SystemExit(0)\n"
        "    flush = close = fileno = write\nsys.stdout = sys.stderr = sys.__stdout__ = O()\n1 / 0",
        one_of("ok", "error"),
    ),
    "flush-raises": (
        "import sys\nclass O:\n    def write(self, s):\n        return len(s)\n"
        "    def flush(self):\n        raise KeyboardInterrupt\nsys.stdout = O()\nprint(1)",
        one_of("ok", "error"),
    ),
    "hook-replaced": (
        "import sys\nsys.excepthook = lambda *a: print.__self__.open('@CANARY@/a', 'w')\n1 / 0",
        one_of("error"),
    ),
    "exit-patched": (
        "import os, sys\ndef f(*a):\n    while True:\n        pass\n"
        "os._exit = sys.exit = exit = quit = f",
        one_of("ok", "timeout", "error"),
    ),
    "posix-patched": (
        "import os, sys, posix\n"
        "for m in (os, posix):\n"
        "    for n in ('write', 'close', '_exit', 'waitpid', 'kill', 'wait4'):\n"
        "        setattr(m, n, lambda *a: 0)\n",
        QUIET,
    ),
    "exception-without-text": (
        "class E(Exception):\n    def __str__(self):\n        raise SystemExit(0)\n"
        "    __repr__ = __str__\nraise E()",
        one_of("error", "ok"),
    ),
    "exception-of-base": ("class E(BaseException):\n    pass\nraise E", FAILED),
    "exception-is-generator-exit": ("raise GeneratorExit", FAILED),
    "exit-by-nested-system-exit": ("raise SystemExit(SystemExit(0))", one_of("ok", "error")),
    "main-module-rewritten": (
        "import sys\nm = sys.modules['__main__']\nfor n in list(vars(m)):\n"
        "    if not n.startswith('__'):\n        vars(m)[n] = lambda *a, **k: None",
        one_of("ok", "error", "timeout", "violation"),
    ),
    "outer-frames-return": (
        # Reaches the runner's own frames and changes what it holds.
        "import sys\nf = sys._getframe()\nwhile f.f_back:\n    f = f.f_back\n"
        "    f.f_globals.clear()",
        one_of("ok", "error", "violation", "timeout"),
    ),
    "trace-function": (
        "import sys\ndef t(*a):\n    return t\nsys.settrace(t)\nsys.setprofile(t)",
        one_of("ok", "error"),
    ),
    "continues-as-the-server": (
        # Unwinds to the loop of the process it was forked from, if that catches anything.
        "import sys\nf = sys._getframe()\nn = 0\nwhile f:\n    n += 1\n    f = f.f_back\n"
        "raise BrokenPipeError(n)",
        FAILED,
    ),
    "end-of-input-error": ("raise EOFError", FAILED),
    "keyboard-interrupt": ("raise KeyboardInterrupt", FAILED),
    "child-process-error": ("raise ChildProcessError", FAILED),
}

LIBC = "import ctypes\nlibc = ctypes.CDLL(None)\n"
STATE = {
    "builtins-patched": (
        "import builtins\nbuiltins.len = lambda x: 41\nbuiltins.sum = lambda x: 41\n"
        "builtins.print = lambda *a, **k: None"
    ),
    "math-patched": "import math\nmath.pi = 3\nmath.gcd = lambda *a: 41",
    "fractions-patched": (
        "import fractions\nfractions.Fraction.__add__ = lambda a, b: 41\n"
        "fractions.Fraction.__str__ = lambda a: '41'"
    ),
    "sympy-patched": (
        "import sympy\nsympy.simplify = sympy.solve = lambda *a: 41\n"
        "sympy.Symbol.__str__ = lambda s: '41'\nsympy.Integer.__add__ = lambda a, b: 41"
    ),
    "sympy-cache-poisoned": (
        "import sympy\nfrom sympy.core.singleton import S\n"
        "from sympy.core.numbers import Integer\nS.Half.p = 41\nS.One.p = 7\nS.Zero.p = 1\n"
        "sympy.Symbol('x').name = 'y'"
    ),
    "sympy-assumptions": (
        "import sympy\nfrom sympy.assumptions.assume import global_assumptions\n"
        "global_assumptions.add(sympy.Q.positive(sympy.Symbol('x')))\n"
        "sympy.init_printing(use_latex=False, order='grlex', pretty_print=True)"
    ),
    "decimal-context": (
        "import decimal\ndecimal.getcontext().prec = 3\ndecimal.DefaultContext.prec = 4\n"
        "decimal.setcontext(decimal.Context(prec=2, rounding=decimal.ROUND_UP))"
    ),
    "settings": (
        "import sys, os, gc, random, locale\nsys.setrecursionlimit(77)\n"
        "sys.set_int_max_str_digits(0)\nos.umask(0o77)\ngc.disable()\nrandom.seed(0)\n"
        "sys.setswitchinterval(9)\nos.environ['A'] = 'b'\nsys.path.insert(0, '@CANARY@')\n"
        "sys.dont_write_bytecode = False"
    ),
    "hooks": (
        "import sys, builtins\nsys.displayhook = print\nsys.meta_path.insert(0, object())\n"
        "sys.addaudithook(lambda *a: None)\nbuiltins.__import__ = lambda *a, **k: 41"
    ),
    "modules": (
        "import sys\nsys.modules['math'] = sys.modules['fractions']\nsys.modules.pop('decimal')\n"
        "sys.modules['planted'] = sys"
    ),
    "integers-overwritten": (
        # The small integers live once for the whole process.
        "import ctypes\nctypes.memmove(id(7) + 24, id(8) + 24, 4)"
    ),
    "type-flags": (
        "import ctypes, gc\nd = gc.get_referents(int.__dict__)[0]\n"
        "d['__add__'] = lambda a, b: 41\nd['planted'] = 1"
    ),
    "directory": "import os\nos.chdir('/tmp')\nos.nice(5)",
    "output-encoding": (
        "import sys\nsys.stdout.reconfigure(encoding='utf-16')\nprint('x')\nsys.stdin.close()"
    ),
    "fd-flags": (
        # O_NONBLOCK belongs to the open file, not to the process: it reaches the parent's end.
        "import os\nfor fd in range(64):\n    try:\n"
        "        os.set_blocking(fd, not os.get_blocking(fd))\n    except OSError:\n        pass"
    ),
    "fd-position": (
        "import os\nfor fd in range(64):\n    try:\n        os.lseek(fd, 7, 0)\n"
        "    except OSError:\n        pass"
    ),
    "fd-locked": LIBC + "for fd in range(64):\n    libc.flock(fd, 2 | 4)",
    # A socket between program and server is shut for both.
    "fd-shut-down": LIBC + "for fd in range(64):\n    libc.shutdown(fd, 2)",
    "fd-pipe-size": LIBC + "for fd in range(64):\n    libc.fcntl(fd, 1031, 4096)",
    "fd-pipe-drained": (
        # What tee and splice take away is missing at the other end.
        LIBC + "for a in range(16):\n    for b in range(16):\n"
        "        libc.splice(a, None, b, None, 65536, 2)"
    ),
    "earlier-program-first": (
        "x = ['SEEN-' + '0123456789abcdef' * 2 for _ in range(1000)]\nprint(x[0])"
    ),
    "earlier-program-found": (
        # Pages that hold objects are mapped; one of them may hold what ran before.
        "import ctypes, gc\npages = {id(o) & -4096 for o in gc.get_objects()}\n"
        "for p in pages:\n    for part in ctypes.string_at(p, 4096).split(b'SEEN-')[1:]:\n"
        "        if part.startswith(b'0123' + bytes([52])):\n            print('@NOW@'[::-1])"
    ),
    "allocator-and-hash": (
        "import sys\nx = [hash('a')] * 10**5\nsys.intern('planted')\n"
        "sys.flags\nprint(len({str(i): i for i in range(10**5)}))"
    ),
}

ATTACKS = [
    Attack(f"forge-{name}", "won = '@NOW@'[::-1]\n" + text, expect=expect)
    for name, (text, expect) in FORGED.items()
] + [Attack(f"state-{name}", text) for name, text in STATE.items()]
