"""Plain programs in one process: each result is that of a run alone."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_jax.sandbox import Limits, Result, Sandbox, SandboxError
from distill_jax.tasks import program_bundles
from distill_jax.tasks.program_bundles import is_plain

LIMITS = Limits(wall_s=1.0, cpu_s=1.0, output_bytes=2000)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(2, LIMITS) as made:
        yield made


def bundled(sandbox: Sandbox, programs: list[str]) -> list[Result]:
    futures = program_bundles.start(sandbox, programs, LIMITS)
    return [future.result(60) for future in futures]


def same(one: Result, other: Result) -> bool:
    return (one.status, one.stdout, one.stderr, one.rc) == (
        other.status,
        other.stdout,
        other.stderr,
        other.rc,
    )


@pytest.mark.parametrize(
    "program",
    [
        "x = 3\ny = x * 4 - 1\nassert y > 0\nprint(y)",
        "# Sam\n\nif 2 > 1:\n    a, b = 1, 2\nelse:\n    pass\nprint(f'{a / b:.2f}', end='')",
        "total = sum([1, 2, 3])\nprint(round(total / 7, 2), max(1, total), total ** 2, sep=', ')",
        "x = 7  # 你好\nx += 3\nprint('cost: $' + str(x) + '\\n')",
        "print(1 if not 3 % 2 == 0 else 2)\n\n\n",
        "\n\nx = (1 +\n     2)\nprint(x)",
    ],
)
def test_straight_lines_are_plain(sandbox, program):
    assert is_plain(program)
    others = ["print(0)"] * 3
    assert same(bundled(sandbox, [*others, program])[-1], sandbox.run(program))


@pytest.mark.parametrize(
    "program",
    [
        "", "# nothing", "x = = 3", "import math\nprint(1)", "print((1).real)", "def f(): pass",
        "f = lambda: 1", "while True: pass", "for i in range(10**12): pass", "print(open)",
        "print([x for x in [1]])", "return", "yield 1", "global x", "_mark = 1", "print(__name__)",
        "x = 10 ** 10 ** 10", "x = 2 ** -1", "x = 1 << 99", "x: int = 1", "del x", "x = {1: 2}",
        "x = {'a', 'b'}", "print(*[1])", "try:\n    pass\nfinally:\n    pass", "class A: pass",
        "print(y := 1)", "x = '''a\nb'''\nprint(x)", "x = 'a\\\nb'\nprint(x)", "x = 1\rprint(x)",
        "x = ('a'\n     'b')\nprint(x)", "exit()", "x = globals", "x = [1][0]", "raise ValueError",
        "x **= 9 ** 9", "x = 10 ** 17", "x = 2 * 2\n" + "x = x * x\n" * 12, "x = 1" + "0" * 15,
        "if 1 > 2:\n  x = 1\n\\\n  x = 2\nprint(x)", "x = 1 + \\\n    2",
        "x = 1\n" * 500, "print('\ud800')", "with x: pass", "assert eval", "x = print\n\fy = 1",
    ],
)  # fmt: skip
def test_all_else_is_not(program):
    assert not is_plain(program)


@pytest.mark.parametrize(
    "program",
    [
        "print(1)\n1 / 0",  # it raised after it printed
        "assert 1 > 2",
        "print(x)\nx = 1",  # a name before its value
        "print(sum([1, 2]))\nsum = 3",  # fails in a function, not alone
        "break",  # no Python, which only the compiler says
        "print('a' * 3000)",  # too much output
        "x = 'a' * 10**12",  # too much memory
        "x = 'a' * 10\nprint(x * 10**8 == 3)",  # a gigabyte
        "# coding: latin-1\nprint('ä')",
        "print(1);"
        + "if 1:\n"
        + "".join(" " * n + "if 1:\n" for n in range(1, 99))
        + " " * 99
        + "1",
    ],
)
def test_a_failure_is_that_of_a_run_alone_and_its_neighbours_live(sandbox, program):
    alone = sandbox.run(program)
    before, found, after = bundled(sandbox, ["print('before')", program, "print('after')"])
    assert same(found, alone)
    assert (before.stdout, after.stdout) == ("before\n", "after\n")


def test_programs_do_not_see_each_other(sandbox):
    found = bundled(
        sandbox, ["x = 5\nprint = 3", "print(x)", "x = 1\nsum = 2\nprint(x)", "print(sum([1]))"] * 3
    )
    assert [one.status for one in found] == ["ok", "error", "ok", "ok"] * 3
    assert [one.stdout for one in found] == ["", "", "1\n", "1\n"] * 3
    assert "NameError: name 'x' is not defined" in found[1].stderr


def test_fewer_processes(sandbox, monkeypatch):
    ran = []

    def run(program, real=sandbox.run):
        ran.append(program)
        return real(program)

    monkeypatch.setattr(sandbox, "run", run)
    programs = [f"print({n})" for n in range(30)]
    assert [one.stdout for one in bundled(sandbox, programs)] == [f"{n}\n" for n in range(30)]
    assert len(ran) == 4  # of at most 8
    ran.clear()
    bundled(sandbox, programs[:6])
    assert len(ran) == 2  # one a worker
    ran.clear()
    bundled(sandbox, ["print(1)", "import math"])
    assert ran.count("print(1)") == 1  # a bundle of one is the program itself


def test_a_program_cannot_forge_its_neighbour_s_result(sandbox, monkeypatch):
    # Even one that knew the mark only has the bundle run again.
    monkeypatch.setattr(program_bundles.secrets, "token_hex", lambda count: "mark")
    found = bundled(sandbox, ["print('mark1', end='')", "print(2)", "print('mark0')", "print(4)"])
    assert [one.stdout for one in found] == ["mark1", "2\n", "mark0\n", "4\n"]


def test_a_program_that_waits_to_run_again_can_be_cancelled(monkeypatch):
    ran, hold = [], threading.Event()
    with Sandbox(1, LIMITS) as one:

        def run(program, real=one.run):
            ran.append(program)
            if program == "import math":
                hold.wait(30)
            return real(program)

        monkeypatch.setattr(one, "run", run)
        failing = program_bundles.start(one, ["1 / 0", "2 / 0", "import math"], LIMITS)
        while len(ran) < 2:  # the bundle, then what holds the only worker
            time.sleep(0.01)
        assert failing[0].cancel()
        hold.set()
        assert failing[1].result(30).status == "error"
        assert len(ran) == 3 and ran[-1] == "2 / 0"


def test_no_future_stays_open_where_no_thread_starts(monkeypatch):
    with Sandbox(1, LIMITS) as one:
        whole = Future()
        monkeypatch.setattr(one, "start", lambda programs: [whole][: len(programs)])
        members = program_bundles.start(one, ["print(1)", "1 / 0"], LIMITS)

        def refuse(programs):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(one, "start", refuse)
        whole.set_exception(SandboxError("lost"))
        for member in members:
            with pytest.raises(RuntimeError, match="new thread"):
                member.result(1)


def test_a_bundle_that_nobody_wants_does_not_run(monkeypatch):
    ran, hold = [], threading.Event()
    with Sandbox(1, LIMITS) as one:

        def run(program, real=one.run):
            hold.wait(30)
            ran.append(program)
            return real(program)

        monkeypatch.setattr(one, "run", run)
        first = one.start(["print(0)"])
        both = program_bundles.start(one, ["print(1)", "print(2)"], LIMITS)
        half = program_bundles.start(one, ["print(3)", "1 / 0"], LIMITS)
        assert all(future.cancel() for future in both) and half[1].cancel()
        hold.set()
        assert first[0].result(30).stdout == "0\n" and half[0].result(30).stdout == "3\n"
        assert len(ran) == 2  # the cancelled half is not run again


NAMES, NUMBERS = st.sampled_from(["a", "b", "sum", "print"]), st.integers(-9, 99).map(str)
WORDS = st.sampled_from(["a", "b", "2.5", "'x'", "max(a, b)", "[a, 1]", "''"])
ATOMS = st.one_of(NUMBERS, WORDS)
TERMS = st.builds(
    "{} {} {}".format, ATOMS, st.sampled_from("+ - * / // % == < ** and".split()), ATOMS
)
LINES = st.one_of(
    st.builds("{} = {}".format, NAMES, TERMS),
    st.builds("{} += {}".format, NAMES, ATOMS),
    st.builds("print({}, {})".format, ATOMS, TERMS),
    st.builds("print({}, end='')".format, ATOMS),
    st.builds("assert {}".format, TERMS),
    st.builds("if {}:\n    print(f'{{a}}:{{b}}')".format, TERMS),
)
PROGRAMS = st.lists(LINES, max_size=4).map(lambda lines: "\n".join(["a = 1", *lines]))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(programs=st.lists(PROGRAMS, min_size=2, max_size=10))
def test_any_batch_has_the_results_of_runs_alone(sandbox, programs):
    found = bundled(sandbox, programs)
    for program, one in zip(programs, found, strict=True):
        assert same(one, sandbox.run(program)), program
