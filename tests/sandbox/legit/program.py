"""One legitimate program and exactly what it prints."""

from typing import NamedTuple


class Program(NamedTuple):
    """A program such as a model writes for a problem of school mathematics.

    Args:
        name: unique.
        source: program text.
        expected: its whole standard output; the program ends with status ok.
    """

    name: str
    source: str
    expected: str
