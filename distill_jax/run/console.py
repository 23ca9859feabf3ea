"""Lines for the person at the terminal, and JSON files, from process 0 alone."""

import sys
from collections.abc import Callable
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
