"""One hostile program: its text, what may come of it, and whether it works without a sandbox."""

import ast
import warnings
from typing import NamedTuple

STATUSES = frozenset({"ok", "error", "timeout", "memory", "output", "violation", "rejected"})
ALLOWED = {"math", "fractions", "decimal", "itertools", "sympy"}
LEADING_OUT = {
    f"__{name}__"
    for name in "class base bases subclasses globals builtins self code dict import loader".split()
}


class Attack(NamedTuple):
    """A program that has an effect outside itself when it succeeds.

    Args:
        name: unique; the family first, then what is tried.
        source: program text with the placeholders of `tests.sandbox.effects.Watch.fill`.
        expect: statuses that may come out when the syntax layer is off.
        works_bare: plain `python` runs it without harm, and shows its effect.
    """

    name: str
    source: str
    expect: frozenset[str] = STATUSES
    works_bare: bool = False


def names_the_forbidden(source: str) -> bool:
    """Whether it says openly what the syntax layer is there to refuse.

    An import outside the five modules, an attribute that leads out of an object, or one of the
    builtins that read files and run text. Roundabout ways are for the layers below.
    """
    if len(source) > 100_000:
        return False  # too long for the sandbox anyway, and parsing it here takes seconds
    try:
        with warnings.catch_warnings(action="ignore"):
            nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False  # the parser may see it otherwise there
    for node in nodes:
        match node:
            case ast.Import(names=names):
                if any(name.name.split(".")[0] not in ALLOWED for name in names):
                    return True
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] not in ALLOWED:
                return True
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in LEADING_OUT:
                return True
            case ast.Call(func=ast.Name(id="open" | "eval" | "exec" | "compile" | "globals")):
                return True
    return False


def one_of(*statuses: str) -> frozenset[str]:
    """A set of statuses; a misspelt one is an error here rather than a test that cannot pass."""
    assert set(statuses) <= STATUSES, statuses
    return frozenset(statuses)
