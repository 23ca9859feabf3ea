"""The command runs a program, says what the machine can hold, and measures."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import sandbox

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_a_program_that_ends_well(tmp_path: Path) -> None:
    """As a command, once; the other tests call main."""
    file = tmp_path / "program.py"
    file.write_text("import math\nprint(math.factorial(5), 'é')", "utf-8")
    command = [sys.executable, "-m", "launch.sandbox", str(file), "--wall_s=20", "--memory_mb=600"]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "120 é\n"), done.stderr
    assert done.stderr.startswith("status=ok rc=0 wall_ms=") and done.stderr.count("\n") == 1


def call(*argv: str) -> int | str | None:
    try:
        return sandbox.main(argv)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    ("program", "limits", "status"),
    [
        ("print('out')\n1 / 0", [], "status=error rc=1"),
        ("import os", [], "status=rejected rc=102"),
        ("print('out')\nwhile True: pass", ["--cpu_s=0.2"], "status=timeout rc=-9"),
        ("print('out', end='')\nexit(3)", [], "status=error rc=3"),
    ],
)
def test_a_program_that_does_not(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    program: str,
    limits: list[str],
    status: str,
) -> None:
    file = tmp_path / "program.py"
    file.write_text(program)
    assert call(str(file), *limits) == 1
    out, err = capfd.readouterr()
    assert out.strip() == ("out" if "out" in program else "")
    assert err.splitlines()[-1].startswith(status)


def test_standard_input(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"print(6 * 7, '\xc3\xa9')")))
    assert call("-") == 0
    assert capfd.readouterr().out == "42 é\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no_such_file.py"], "no program no_such_file.py"),
        (["."], "no program .: Is a directory"),
        ([], "no program"),
        (["--wall_s=often", "x.py"], "argument --wall_s"),
        (["--wall_s=-1", "x.py"], "limit wall_s=-1.0"),
        (["--memory_mb=0", "x.py"], "limit memory_mb=0"),
        (["--gpu=1", "x.py"], "unrecognized arguments: --gpu=1"),
        (["--bench", "--programs=1"], "--programs=1"),
    ],
)
def test_wrong_input_is_one_line(
    capfd: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert call(*argv) == 2
    out, err = capfd.readouterr()
    assert out == "" and message in err and err.count("\n") == 1


def test_a_file_that_is_no_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "program.py"
    file.write_bytes(b"\xff\xfe")
    assert call(str(file)) == 2
    assert "is not UTF-8" in capfd.readouterr().err


def test_probe(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--probe") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "level: full"
    assert [line.split()[0] for line in lines[1:]] == [
        "syntax", "identity", "limits", "landlock", "filter",
    ]  # fmt: skip


def test_bench(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.bench import sandbox as sandbox_bench

    monkeypatch.setattr(sandbox_bench, "LATENCY_RUNS", 4)
    monkeypatch.setattr(sandbox_bench, "KILLS", 1)
    # Of the sandboxes only that of the speeds loads sympy; tests/sandbox/test_pool.py looks at
    # what one with it leaves behind.
    *light, with_sympy = sandbox_bench.KINDS
    assert "sympy" in with_sympy
    monkeypatch.setattr(sandbox_bench, "KINDS", light)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert call("--bench", "--programs=16") == 0
    title, *lines = capfd.readouterr().out.splitlines()
    assert title.split() == ["figure", "value", "programs"]
    figures = {name: float(value) for name, value, _ in (line.rsplit(None, 2) for line in lines)}
    assert all(figures[name] == 0 for name in figures if name.endswith(("left", "missing")))
    assert figures["light, trivial: programs/s on one core"] > 1
    assert figures["sympy, trivial: p99, ms"] >= figures["sympy, trivial: p50, ms"] > 0
    assert len([name for name in figures if "at most" in name]) == 4
