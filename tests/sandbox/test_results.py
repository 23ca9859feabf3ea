"""Every status, each limit, and what comes back with it."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.sandbox import Layers, Limits, Sandbox


@pytest.mark.parametrize(
    ("program", "stdout"),
    [
        ("print(1 + 1)", "2\n"),
        ("", ""),
        ("print('a', 'b', sep='-', end='!')", "a-b!"),
        ("print('é€😀', '\\ud800')", "é€😀 \\ud800\n"),
        ("print('no line', end='')", "no line"),
        ("print(1, flush=True)\nprint(2)", "1\n2\n"),
        ("print(0.1 + 0.2, 1e100, -0.0)", "0.30000000000000004 1e+100 -0.0\n"),
        ("print(f'{10**6:,} {1/3:.3f} {255:#x}')", "1,000,000 0.333 0xff\n"),
        ("import math\nprint(math.comb(10, 3))", "120\n"),
        ("from fractions import Fraction as F\nprint(F(1, 3) + F(1, 6))", "1/2\n"),
        ("from decimal import *\ngetcontext().prec = 5\nprint(Decimal(1) / 3)", "0.33333\n"),
        ("from itertools import permutations\nprint(len(list(permutations('abc'))))", "6\n"),
        ("print(len(str(2**20000)))", "6021\n"),
        ("print('\\N{GREEK SMALL LETTER PI}', 'ß'.encode('latin-1'))", "π b'\\xdf'\n"),
        # Longer than what a pipe holds, and several lines that the supervisor sees at the end only.
        ("#" * 90_000 + "\nprint('end')", "end\n"),
        ("for i in range(3):\n    print(i)", "0\n1\n2\n"),
        ("import itertools as i\nlist(i.repeat(0, 10**6))\nprint('late')", "late\n"),
        # As deep as plain Python goes.
        ("def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nprint(f(994))", "994\n"),
        ("from math import sqrt" + " " * 90_000 + "# c\nprint(1)", "1\n"),
        ("\ufeffprint('mark')", "mark\n"),
        (
            "from decimal import *\nDecimal(1) / 4\nprint(any(getcontext().flags.values()))",
            "False\n",
        ),
        ("exit()", ""),
        ("print(1)\nquit(0)", "1\n"),
        ("raise SystemExit", ""),
        ("def main():\n    print('main')\nif __name__ == '__main__':\n    main()", "main\n"),
        (
            "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print(error)",
            "division by zero\n",
        ),
    ],
)
def test_ok(sandbox: Sandbox, program: str, stdout: str) -> None:
    result = sandbox.run(program)
    assert (result.status, result.stdout, result.stderr, result.rc) == ("ok", stdout, "", 0)
    assert result.wall_ms > 0 and result.cpu_s > 0 and result.rss > 1 << 20


@pytest.mark.parametrize(
    ("program", "rc", "message"),
    [
        ("print(1)\n1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("exit(3)", 3, ""),
        ("exit(256)", 1, ""),
        ("exit('bad')", 1, "bad"),
        ("exit(101)", 1, ""),  # the runner's own codes are not for programs that ask nicely
        ("exit(102)", 1, ""),
        ("input()", 1, "EOFError"),
        ("def f():\n    return f()\nf()", 1, "RecursionError"),
        ("raise BaseException('base')", 1, "BaseException: base"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
        ("class E(Exception):\n    def __str__(self):\n        1 / 0\nraise E", 1, "E: "),
        ("import math.nothing", 1, "ModuleNotFoundError"),
        ("class S:\n    def write(self, x): 1 / 0\nprint('x', file=S())", 1, "ZeroDivisionError"),
    ],
)
def test_error(sandbox: Sandbox, program: str, rc: int, message: str) -> None:
    result = sandbox.run(program)
    assert (result.status, result.rc) == ("error", rc), result
    assert message in result.stderr


def test_a_traceback_shows_the_programs_lines_only(sandbox: Sandbox) -> None:
    program = "from fractions import Fraction\ndef half(x):\n    return Fraction(1, x)\nhalf(0)"
    result = sandbox.run(program)
    files = re.findall(r'File "(.*?)"', result.stderr)
    assert files == ["<program>", "<program>"]
    assert "return Fraction(1, x)" in result.stderr and "line 4" in result.stderr


def test_a_traceback_is_bounded(sandbox: Sandbox) -> None:
    result = sandbox.run("raise ValueError('x' * 10**6)")
    assert result.status == "error" and len(result.stderr) < 10_000


def test_wall_limit() -> None:
    # Only a module that the policy refuses can sleep.
    with Sandbox(limits=Limits(wall_s=0.5), layers=Layers(syntax=False)) as own:
        result = own.run("import time\nprint('before')\ntime.sleep(60)")
    assert (result.status, result.rc, result.stdout) == ("timeout", -9, "before\n")
    assert "wall" in result.stderr
    assert 500 <= result.wall_ms < 3000 and result.cpu_s < 0.4


@pytest.fixture(scope="module")
def patient() -> Iterator[Sandbox]:
    """Only CPU time is short, and far below the kernel's own limit of two seconds."""
    with Sandbox(limits=Limits(wall_s=60.0, cpu_s=0.3)) as shared:
        yield shared


@pytest.mark.parametrize(
    "program",
    [
        "print('before')\nwhile True: pass",
        "print('before')\n9**9**9",  # one call in C
        "print('before')\nwhile True:\n    try:\n        while True: pass\n"
        "    except BaseException: pass",
    ],
)
def test_cpu_limit(patient: Sandbox, program: str) -> None:
    result = patient.run(program)
    assert (result.status, result.rc, result.stdout) == ("timeout", -9, "before\n"), result
    assert "CPU" in result.stderr
    assert 0.3 <= result.cpu_s < 1.0


@pytest.mark.parametrize(
    "program",
    [
        "x = [0] * 10**10",
        "x = 'a'\nwhile True: x += x",
        "x = []\nwhile True: x.append(' ' * 10**6)",
    ],
)
def test_memory_limit(sandbox: Sandbox, program: str) -> None:
    result = sandbox.run(program)
    assert result.status == "memory"
    assert result.rss < 600 << 20


def test_memory_error_that_is_caught_is_no_failure(sandbox: Sandbox) -> None:
    result = sandbox.run("try:\n    x = [0] * 10**10\nexcept MemoryError:\n    print('caught')")
    assert (result.status, result.stdout) == ("ok", "caught\n")


@pytest.mark.parametrize(
    "end",
    [
        "while True: print('x' * 100)",
        "print('x' * 1001)",
        "print('x' * 1001, flush=True)\nwhile True: pass",  # ended for its output, not its time
    ],
)
def test_output_limit(hasty: Sandbox, end: str) -> None:
    result = hasty.run("print('first')\n" + end)
    assert result.status == "output"
    assert result.stdout.startswith("first\nxxx") and len(result.stdout) == 1000


def test_output_up_to_the_limit_is_no_failure(hasty: Sandbox) -> None:
    result = hasty.run("print('x' * 999)")
    assert (result.status, len(result.stdout)) == ("ok", 1000)


def test_streams_are_pipes_and_each_has_its_own_text(unchecked: Sandbox) -> None:
    """They are made before the fork: nothing of another program may be in them."""
    program = (
        "import sys\nprint(sys.stdout.seekable(), sys.stdout.encoding, end='')\n"
        "sys.stderr.write('told')\nprint('.', sys.stdin.read() == '')"
    )
    for _ in range(2):
        result = unchecked.run(program)
        assert (result.stdout, result.stderr) == ("False utf-8. True\n", "told")
    for end in ("sys.stdout.close()", "sys.stdout = None"):
        result = unchecked.run("import sys\nprint('kept')\n" + end)
        assert (result.status, result.stdout) == ("ok", "kept\n"), end


@pytest.mark.parametrize(("program", "status"), [("1/0", "error"), ("import os", "rejected")])
def test_the_runners_own_words_are_not_the_programs_output(program: str, status: str) -> None:
    with Sandbox(limits=Limits(output_bytes=20)) as own:
        result = own.run(program)
        assert result.status == status and len(result.stderr) > 20
        # Nor may a program write without end to its standard error.
        assert own.run("raise ValueError('é' * 10**6)").status == "error"
        assert own.run("raise ValueError('\\ud800' * 10**6)").status == "error"
        assert own.run("def f():\n  raise f\nprint('x' * 21)").status == "output"


def test_program_too_long(sandbox: Sandbox) -> None:
    result = sandbox.run("#" * 100_001)
    assert (result.status, result.rc) == ("rejected", None) and "100001 bytes" in result.stderr
    assert sandbox.run("#" * 99_990 + "\nprint(1)").stdout == "1\n"


@pytest.mark.parametrize("code", [101, 102, 103, 0])
def test_a_forged_exit_code_is_never_more_than_its_label(code: int) -> None:
    with Sandbox(layers=Layers(syntax=False)) as own:
        result = own.run(f"import os\nprint('said', flush=True)\nos._exit({code})\nprint('no')")
    expected = {101: "memory", 102: "rejected", 103: "error", 0: "ok"}
    assert (result.status, result.rc, result.stdout) == (expected[code], code, "said\n")


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.fork()",
        "import os, ctypes\nctypes.CDLL(None).socket(2, 1, 0)",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.kill(os.getpid(), 9)",
        "import os\nos.abort()",
    ],
)
def test_violation(unchecked: Sandbox, program: str) -> None:
    result = unchecked.run("print('before')\n" + program + "\nprint('after')")
    assert (result.status, result.rc, result.stdout) == ("violation", -31, "before\n")
    assert "system call" in result.stderr


def test_a_crash_is_an_error(unchecked: Sandbox) -> None:
    result = unchecked.run("import ctypes\nctypes.string_at(0)")
    assert (result.status, result.rc) == ("error", -11) and "signal 11" in result.stderr


@pytest.mark.parametrize(
    "field",
    [
        {"wall_s": 0.0},
        {"wall_s": float("nan")},
        {"cpu_s": -1.0},
        {"cpu_s": float("inf")},
        {"cpu_s": True},
        {"wall_s": "5"},
        {"memory_mb": 1},
        {"memory_mb": 512.0},
        {"output_bytes": 0},
        {"program_bytes": 1 << 40},
    ],
)
def test_impossible_limits(field: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"limit {next(iter(field))}=.*wanted: .*fix: "):
        Limits(**field)  # type: ignore[arg-type]


def test_warming_up_leaves_no_trace_in_the_zygote() -> None:
    script = """
import gc, linecache, sys
from distill_jax.sandbox import child
gc.disable()
def state():
    return (sys.modules["__main__"], sys.getrecursionlimit(), sys.stdout, sys.stderr,
            gc.isenabled(), child.PROGRAM in linecache.cache,
            [lines for _, _, lines, _ in linecache.cache.values() if lines])
before = state()
child.warm_up()
assert state() == before, (before, state())
print("the same")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr
