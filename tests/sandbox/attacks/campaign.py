"""Runs hostile programs in one process of its own and writes down every effect.

`python -m tests.sandbox.attacks.campaign REPORT.json --without syntax` attacks the sandbox from
a process that may be hit; `--bare` runs the programs with plain python to see that they are real.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

from distill_jax.sandbox import Layers, Limits, Result, Sandbox, SandboxError
from tests.sandbox.attacks import ATTACKS, privileges
from tests.sandbox.attacks.program import Attack, names_the_forbidden
from tests.sandbox.effects import Watch

# By day one worker, whose two zygotes are each other's neighbours; each more loads sympy again.
WORKERS, GROUP = (2 if os.environ.get("TESTS_PROFILE") == "nightly" else 1), 32
# Two dozen programs use all of their CPU time; those that end well use at most half of it.
LIMITS = Limits(wall_s=1.0, cpu_s=0.25)
SLACK_S = 60.0  # for a machine that is busy; a program that is never ended is later than that

LIGHT = """
import math, fractions, decimal, itertools
third = fractions.Fraction(1, 3)
print(math.pi, math.gcd(12, 18), len([1, 2]), sum([1, 2, 3]), 3 + 4, third + third / 2, str(third))
print(decimal.Decimal(1) / 3, decimal.Decimal("2.5").quantize(1), decimal.getcontext().rounding)
print(decimal.Context().prec, list(itertools.permutations("ab")), hash(7), sorted("cab"))
def depth(n):
    try:
        return depth(n + 1)
    except RecursionError:
        return n
print(depth(0))
try:
    print(10**5000)
except ValueError as error:
    print(error)
"""
SYMPY = """
import sympy
x = sympy.Symbol("x")
print(x, sympy.solve(x**2 - 2, x), sympy.simplify(x / x), sympy.Rational(1, 2) + sympy.Integer(1))
print(sympy.S.Half, sympy.S.Zero, sympy.sqrt(x**2), sympy.factor(x**2 - 1), sympy.pi.evalf(20))
print(sympy.integrate(x, x), sympy.Abs(x), sympy.ask(sympy.Q.positive(x)), sympy.factorint(360))
"""
INSIDE = """
import sys, builtins, gc, math
print(sys.getrecursionlimit(), sys.get_int_max_str_digits(), gc.isenabled(), len(sys.meta_path))
print(sys.path, "planted" in sys.modules, sorted(sys.modules), sys.getswitchinterval())
print(hasattr(int, "planted"), sorted(vars(builtins)), sorted(vars(math)), sys.gettrace())
print(sys.stdout.encoding, sys.excepthook is sys.__excepthook__, sys.dont_write_bytecode)
print(sys.modules["os"].environ)
"""


class Campaign:
    """One sandbox, one watch, and what was found so far."""

    def __init__(self, sandbox: Sandbox, layers: Layers):
        self.sandbox, self.layers = sandbox, layers
        self.findings: list[str] = []
        self.watch = Watch()
        # More of each kind than workers, all at once, so that every zygote has been started.
        self.checks = [LIGHT, SYMPY] + ([] if layers.syntax else [INSIDE, INSIDE + "import sympy"])
        self.answers = self._check()
        self.watch.settle()

    def _check(self) -> list[str]:
        results = self.sandbox.run_batch(self.checks * WORKERS * 2)
        return [f"{r.status} {r.stdout} {r.stderr}" for r in results]

    def run(self, attacks: list[Attack]) -> None:
        """Group by group; a group with an effect once more one by one, to name the culprit."""
        for at in range(0, len(attacks), GROUP):
            group = attacks[at : at + GROUP]
            found = self.attack(group)
            if found and len(group) > 1:
                singly = [line for attack in group for line in self.attack([attack])]
                found = singly or [f"only together: {line}" for line in found]
            self.findings += found

    def attack(self, group: list[Attack]) -> list[str]:
        """Runs them at once; returns what happened that should not, with their names."""
        names = "+".join(attack.name for attack in group)
        start = time.monotonic()
        try:
            results = self.sandbox.run_batch([self.watch.fill(a.source) for a in group])
            after = self._check()
        except SandboxError as error:
            return [f"{names}: {error}"] + self.watch.effects([])
        took = time.monotonic() - start
        found = [f"{names}: {e}" for e in self.watch.effects(r.stdout + r.stderr for r in results)]
        if took > len(group) * LIMITS.wall_s + SLACK_S:
            found.append(f"{names}: took {took:.1f} s")
        for got, wanted in zip(after, self.answers, strict=True):
            if got != wanted:
                found.append(f"{names}: the next program printed {got!r} instead of {wanted!r}")
        for attack, result in zip(group, results, strict=True):
            wanted = attack.expect
            if self.layers.syntax:
                refused = frozenset({"rejected"})
                wanted = refused if names_the_forbidden(attack.source) else wanted | refused
            if result.status not in wanted:
                found.append(f"{attack.name}: {_told(result)}, wanted {sorted(wanted)}")
        return found


def _told(result: Result) -> str:
    return f"{result.status} {result.rc} {result.stdout[:200]!r} {result.stderr[-200:]!r}"


def attack_sandbox(attacks: list[Attack], layers: Layers) -> list[str]:
    """Every finding, one line each, the program's name first."""
    with Sandbox(WORKERS, LIMITS, layers=layers) as sandbox:
        campaign = Campaign(sandbox, layers)
        try:
            campaign.run(attacks)
            return campaign.findings
        finally:
            campaign.watch.close()


def _run_alone(program: Path, output: Path) -> None:
    # To a file, as a process left behind would hold the end of a pipe open.
    with output.open("w") as written:
        command = [sys.executable, "-I", str(program)]
        none, both = subprocess.DEVNULL, subprocess.STDOUT
        process = subprocess.Popen(command, stdin=none, stdout=written, stderr=both)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run_after_sympy(program: Path, output: Path) -> None:
    """In a fork of this process, which loads sympy once for all of them."""
    import sympy  # noqa: F401 - not needed before the first of these programs

    def execute() -> None:
        with output.open("w") as written:
            for stream in (1, 2):
                os.dup2(written.fileno(), stream)
        exec(compile(program.read_text(), str(program), "exec"), {"__name__": "__main__"})

    process = multiprocessing.get_context("fork").Process(target=execute)
    process.start()
    process.join(20)
    process.kill()
    process.join()


def run_bare(attacks: list[Attack]) -> list[str]:
    """The names of the programs that had no effect when nothing held them."""
    watch, harmless = Watch(), []
    program, output = watch.root / "program.py", watch.root / "output"
    for attack in attacks:
        program.write_text(watch.fill(attack.source))
        (_run_after_sympy if "sympy" in attack.source else _run_alone)(program, output)
        outputs = [output.read_text(errors="replace")]
        if not watch.effects(outputs):
            harmless.append(f"{attack.name}: {outputs[0][-300:]}")
    watch.close()
    return harmless


def main() -> None:
    """Reads the command line, runs, writes the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    names = [field.name for field in fields(Layers)]
    parser.add_argument("--without", nargs="*", default=[], choices=names, help="layers left out")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names")
    parser.add_argument("--unprivileged", action="store_true")
    parser.add_argument("--bare", action="store_true", help="no sandbox; harmless programs only")
    given = parser.parse_args()
    begins = tuple(given.only) or ("",)
    attacks = [a for a in ATTACKS if a.name.startswith(begins)]
    start = time.monotonic()
    with given.report.open("w") as report:  # before the rights are given up
        identity = privileges.drop() if given.unprivileged else f"uid {os.getuid()}"
        if given.bare:
            attacks = [a for a in attacks if a.works_bare]
            findings = run_bare(attacks)
        else:
            layers = Layers(**{name: name not in given.without for name in names})
            findings = attack_sandbox(attacks, layers)
        seconds = round(time.monotonic() - start, 1)
        told = {"identity": identity, "count": len(attacks), "seconds": seconds}
        json.dump(told | {"findings": findings}, report, indent=1)


if __name__ == "__main__":
    main()
