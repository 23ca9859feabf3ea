"""Lines for the person at the terminal, and JSON files, from process 0 alone."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from distill_jax.core import files

# A log file has no width: tables are as wide there as the widest of them.
_LOG_WIDTH = 120

Say = Callable[[str], None]


def make_console() -> Console:
    """A console on standard error."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _LOG_WIDTH)


def write_json(path: Path, value: Any) -> None:
    """`files.write_json` on process 0."""
    if jax.process_index() == 0:
        files.write_json(path, value)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JSON object a line, the file whole or not at all, on process 0."""
    if jax.process_index() == 0:
        with files.whole(path) as partial, partial.open("w", encoding="ascii") as lines:
            for row in rows:
                lines.write(json.dumps(row, allow_nan=False) + "\n")
