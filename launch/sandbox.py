"""Runs one program in the sandbox, or shows which layers this machine has, or measures.

python -m launch.sandbox FILE.py [--wall_s=5 --cpu_s=2 --memory_mb=512]   # - reads standard input
python -m launch.sandbox --probe
python -m launch.sandbox --bench
"""

import argparse
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from distill_jax.core.errors import ConfigError, DataError, DistillError
from distill_jax.sandbox import Limits, Result, Sandbox, probe
from launch.arguments import fail, tool_parser

_UNITS = {
    "wall_s": "seconds on the clock",
    "cpu_s": "seconds of CPU time",
    "memory_mb": "MiB of address space, the interpreter's own included; at least 128",
    "output_bytes": "bytes of stdout, and of stderr",
    "program_bytes": "bytes of the program",
}


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage and ending the program."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(message, fix="see python -m launch.sandbox --help")


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 where the program ended well, 1 where it did not."""
    try:
        given = _parser().parse_args(argv)
        if given.probe:
            print(probe().table())
            return 0
        limits = Limits(**{f.name: getattr(given, f.name) for f in dataclasses.fields(Limits)})
        if given.bench:
            from launch.bench import sandbox as sandbox_bench

            print(sandbox_bench.table(sandbox_bench.measure(given.programs)))
            return 0
        if given.file is None:
            raise ConfigError("no program", wanted="FILE.py, - for standard input")
        program = _read(given.file)
        with Sandbox(limits=limits, allow_partial=given.allow_partial) as sandbox:
            return _show(sandbox.run(program))
    except DistillError as error:
        fail(error)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    codes = "Exit codes: 0 it ended well, 1 it did not, 2 wrong input, 130 after Ctrl-C."
    parser = tool_parser("sandbox", __doc__, codes, _Parser)
    parser.add_argument("file", nargs="?", help="the program; - reads standard input")
    parser.add_argument("--probe", action="store_true", help="show which layers this machine has")
    parser.add_argument("--bench", action="store_true", help="measure, and print one table")
    left = "programs of --bench (%(default)s)"
    partial = "also run where the sandbox is partial (limits and policy alone)"
    parser.add_argument("--programs", type=int, default=10_000, help=left)
    parser.add_argument("--allow_partial", action="store_true", help=partial)
    for field in dataclasses.fields(Limits):
        kind = type(field.default)
        what = f"{_UNITS[field.name]} (default: %(default)s)"
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help=what)
    return parser


def _read(name: str) -> str:
    try:
        if name == "-" and sys.stdin is None:
            raise DataError("no standard input", wanted="a program on it")
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8")
    except OSError as error:
        raise DataError(f"no program {name}: {error.strerror}", wanted="a Python file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8: {error.reason}", wanted="a Python file") from error


def _show(result: Result) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of few signs must not end this
            stream.reconfigure(errors="backslashreplace")
    sys.stdout.write(result.stdout)
    sys.stdout.flush()
    sys.stderr.write(result.stderr)
    if result.stderr and not result.stderr.endswith("\n"):
        sys.stderr.write("\n")
    print(
        f"status={result.status} rc={result.rc} wall_ms={result.wall_ms:.1f} "
        f"cpu_s={result.cpu_s:.4f} rss_mb={result.rss / 2**20:.1f}",
        file=sys.stderr,
    )
    return 0 if result.status == "ok" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
