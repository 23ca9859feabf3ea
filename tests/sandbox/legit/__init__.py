"""Legitimate programs by subject; `PROGRAMS` is all of them."""

from tests.sandbox.legit import (
    algebra,
    calculus,
    chance,
    classes,
    counting,
    decimals,
    digits,
    functions,
    geometry,
    language,
    matrices,
    numbers,
    printing,
    symbolic,
    words,
)
from tests.sandbox.legit.program import Program

SUBJECTS = (
    words,
    algebra,
    numbers,
    digits,
    counting,
    geometry,
    chance,
    calculus,
    matrices,
    decimals,
    symbolic,
    functions,
    language,
    classes,
    printing,
)


def one_after_another(name: str, programs: list[Program]) -> Program:
    """A long program out of short ones that do not disturb each other."""
    source = "\n".join(program.source for program in programs)
    return Program(name, source, "".join(program.expected for program in programs))


LONG = [
    one_after_another("long-words-and-counting", words.PROGRAMS + counting.PROGRAMS),
    one_after_another("long-printing", printing.PROGRAMS),
    one_after_another("long-geometry", geometry.PROGRAMS),
    one_after_another("long-algebra", algebra.PROGRAMS),
]
PROGRAMS = [program for subject in SUBJECTS for program in subject.PROGRAMS] + LONG
