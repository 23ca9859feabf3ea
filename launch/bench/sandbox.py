"""Measures the sandbox: programs a second, latency, lateness of kills, and what is left behind."""

import os
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from distill_jax.core.errors import ConfigError
from distill_jax.sandbox import Limits, Result, Sandbox

TRIVIAL = {"light": "print(1 + 1)", "sympy": "import sympy\nprint(sympy.Integer(1) + 1)"}
SOLVING = {
    "light": "import math\nprint(sum(math.gcd(n, 12) for n in range(1000)))",
    "sympy": "from sympy import *\nx = symbols('x')\nprint(solve(x**2 - 5*x + 6, x))",
}
KINDS = (
    "print(1)",
    "1 / 0",
    "import os",
    "def f(:",
    "exit(3)",
    "x = [0] * 10**10",
    "print('x' * 10**5)",
    "import sympy\nprint(sympy.pi)",
)
BOMB = "x = [0]\nwhile True: x += x"
LATENCY_RUNS = 500
KILLS = 5


class Row(NamedTuple):
    """One line of the table; with the number of programs behind the figure."""

    name: str
    value: str
    programs: int


def measure(programs: int) -> list[Row]:
    """All figures; some two minutes. What is left behind is counted after so many programs.

    Raises:
        ConfigError: fewer programs than kinds of them.
    """
    if programs < len(KINDS):
        raise ConfigError(f"--programs={programs}", wanted=f"at least {len(KINDS)}")
    rows = []
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # host, zygotes and programs share one core
    try:
        with Sandbox() as sandbox:
            for kind in TRIVIAL:
                rows += _speed(sandbox, f"{kind}, trivial", TRIVIAL[kind])
                rows += _speed(sandbox, f"{kind}, small task", SOLVING[kind])
    finally:
        os.sched_setaffinity(0, cores)
    return rows + _lateness() + _leftovers(programs)


def table(rows: list[Row]) -> str:
    """The figures for people."""
    width = max(len(row.name) for row in rows)
    values = max(len(row.value) for row in rows)
    lines = [("figure", "value", "programs"), *rows]
    return "\n".join(f"{a:<{width}}  {b:>{values}}  {c}" for a, b, c in lines)


def _speed(sandbox: Sandbox, name: str, program: str) -> list[Row]:
    for _ in range(20):  # starts the zygote, warms the caches
        _expect(sandbox.run(program), "ok")
    times = []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        _expect(sandbox.run(program), "ok")
        times.append(time.perf_counter() - start)
    cuts = statistics.quantiles(times, n=100)
    return [
        Row(f"{name}: programs/s on one core", f"{LATENCY_RUNS / sum(times):.0f}", LATENCY_RUNS),
        Row(f"{name}: p50, ms", f"{cuts[49] * 1e3:.2f}", LATENCY_RUNS),
        Row(f"{name}: p99, ms", f"{cuts[98] * 1e3:.2f}", LATENCY_RUNS),
    ]


def _lateness() -> list[Row]:
    """How long after its limit a program was gone, at worst."""
    wall, cpu = Limits(wall_s=0.5, cpu_s=10.0), Limits(wall_s=10.0, cpu_s=0.5)
    endless, flood = "while True: pass", "while True: print('x' * 1000)"
    rows = []
    # The last two are killed as soon as they reach the limit; the time is that of the whole run.
    for name, limits, program, status, late in (
        ("wall limit: late by", wall, endless, "timeout", lambda r: r.wall_ms - 500),
        ("CPU limit: late by", cpu, endless, "timeout", lambda r: r.cpu_s * 1e3 - 500),
        ("output flood: whole run", Limits(), flood, "output", lambda r: r.wall_ms),
        ("memory bomb: whole run", Limits(), BOMB, "memory", lambda r: r.wall_ms),
    ):
        with Sandbox(limits=limits) as sandbox:
            results = [sandbox.run(program) for _ in range(KILLS)]
        for result in results:
            _expect(result, status)
        worst = max(late(result) for result in results)
        rows.append(Row(f"{name} at most, ms", f"{worst:.1f}", KILLS))
    return rows


def _leftovers(programs: int) -> list[Row]:
    todo = [KINDS[i % len(KINDS)] for i in range(programs)]
    before = _traces()
    with Sandbox(workers=os.cpu_count() or 1) as sandbox:
        sandbox.run_batch(todo[: 10 * len(KINDS)])
        start = time.perf_counter()
        results = sandbox.run_batch(todo)
        seconds = time.perf_counter() - start
    left = {name: len(found - before[name]) for name, found in _traces().items()}
    missing = programs - len(results)
    rate = f"{programs / seconds:.0f}"
    return [
        Row(f"mixed programs/s, {os.cpu_count()} workers", rate, programs),
        Row("results missing", str(missing), programs),
        *(Row(f"{name} left", str(count), programs) for name, count in left.items()),
    ]


def _traces() -> dict[str, set[str]]:
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return {
        "descriptors": set(os.listdir("/proc/self/fd")),
        "processes": {pid for task in tasks for pid in (task / "children").read_text().split()},
        "shared memory files": set(os.listdir("/dev/shm")),
    }


def _expect(result: Result, status: str) -> None:
    if result.status != status:
        got = f"a program of the benchmark ended with {result.status}: {result.stderr[-300:]}"
        raise ConfigError(got, wanted=status, fix="see python -m launch.sandbox --probe")
