"""Lines for the person at the terminal, from process 0 alone."""

import sys
from collections.abc import Callable

import jax
from rich.console import Console

# A log file has no width: tables are as wide there as the widest of them.
_LOG_WIDTH = 120

Say = Callable[[str], None]


def make_console() -> Console:
    """A console on standard error."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _LOG_WIDTH)


def say_on(console: Console) -> Say:
    """A function that prints a line on the console of process 0."""

    def say(text: str) -> None:
        if jax.process_index() == 0:
            console.print(text, highlight=False, markup=False)

    return say
