"""The imports and names that a program may use: a message to its author, not a boundary.

The boundary is the filter. A list of allowed syntax alone let 32 of 73 attacks pass, because
attribute access reaches modules; but a refusal with a line and a reason teaches more than EACCES.
"""

import ast
import re
from collections.abc import Iterator
from types import CodeType

ALLOWED_IMPORTS = ("math", "fractions", "decimal", "itertools", "sympy")

# Compiler directives, not a module that a program uses.
_ALWAYS_ALLOWED = ("__future__",)

REFUSED_NAMES = {
    "open": "there are no files; print results",
    "eval": "write the expression itself",
    "breakpoint": "print what you want to see",
    "__builtins__": "use the functions by their names",
    **dict.fromkeys(("exec", "compile"), "write the code itself"),
    **dict.fromkeys(("globals", "locals", "vars"), "use a dictionary of your own"),
    **dict.fromkeys(("__import__", "__loader__", "__spec__"), "use an import statement"),
}

_OPERATORS = (
    "add sub mul matmul truediv floordiv mod divmod pow neg pos abs invert and or xor lshift "
    "rshift eq ne lt le gt ge hash len iter next getitem setitem delitem contains call bool int "
    "float complex index round trunc floor ceil str repr format enter exit copy deepcopy"
).split()
HARMLESS_DUNDERS = frozenset(
    [f"__{name}__" for name in _OPERATORS]
    + [f"__{form}{name}__" for name in _OPERATORS[:15] for form in "ri"]
    + ["__name__", "__qualname__", "__doc__", "__init__", "__new__", "__post_init__", "__version__"]
)

MOST_PROBLEMS = 10

_LOOKED_AT = (ast.Name, ast.Attribute, ast.Import, ast.ImportFrom)


def problems(source: str, code: CodeType) -> list[str]:
    """What the policy refuses in a program, one line each; empty if nothing.

    Args:
        source: the whole program.
        code: the same, compiled.
    """
    # A tree of Python objects costs three times the compilation; most programs need none.
    return [] if clearly_allowed(source, code) else problems_of(ast.parse(source))


def clearly_allowed(source: str, code: CodeType) -> bool:
    """Whether a look at names and import lines is enough to allow the program.

    Only a shortcut: what it lets pass has no problems in its tree either.
    """
    if source.count("import") != len(_PLAIN_IMPORT.findall(source)):
        return False
    return not any(_is_suspicious(name) for name in _names(code))


def problems_of(tree: ast.Module) -> list[str]:
    """The same, from the tree of the whole program."""
    nodes = list(ast.walk(tree))
    bound: set[str] | None = None
    found = []
    for node in nodes:
        if type(node) not in _LOOKED_AT:
            continue
        for name, reason in _reasons(node):
            if name and bound is None:
                bound = _bound_names(nodes)
            if not (bound and name in bound):
                found.append((getattr(node, "lineno", 0), reason))
    found.sort()
    return [f"line {line}: {reason}" for line, reason in found[:MOST_PROBLEMS]]


_PLAIN_IMPORT = re.compile(
    r"^(?:import (?:{0})(?:\.\w+)*(?: as \w+)? *|from (?:{0})(?:\.\w+)* import [\w, ]+|"
    r"from (?:{0})(?:\.\w+)* import \* *)$".format("|".join(ALLOWED_IMPORTS)),
    re.MULTILINE,
)


def _names(code: CodeType) -> Iterator[str]:
    """Every global, attribute and module that the compiled program names."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_suspicious(name: str) -> bool:
    return name in REFUSED_NAMES or (_is_dunder(name) and name not in HARMLESS_DUNDERS)


def _reasons(node: ast.AST) -> list[tuple[str, str]]:
    """(name, reason) each; a name stands there if the program may give it another meaning."""
    if isinstance(node, ast.Name):
        if node.id in REFUSED_NAMES and isinstance(node.ctx, ast.Load):
            return [(node.id, f"{node.id} is not allowed; fix: {REFUSED_NAMES[node.id]}")]
    elif isinstance(node, ast.Attribute):
        if _is_dunder(node.attr) and node.attr not in HARMLESS_DUNDERS:
            return [("", f"attribute {node.attr} is not allowed; fix: do without it")]
    elif isinstance(node, ast.Import):
        return [("", _no_import(a.name)) for a in node.names if not _may_import(a.name)]
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            return [("", "relative import; fix: import one of " + ", ".join(ALLOWED_IMPORTS))]
        module = node.module or ""
        return [] if _may_import(module) else [("", _no_import(module))]
    return []


def _may_import(module: str) -> bool:
    return module.partition(".")[0] in (*ALLOWED_IMPORTS, *_ALWAYS_ALLOWED)


def _no_import(module: str) -> str:
    return f"import of {module} is not allowed; fix: import one of {', '.join(ALLOWED_IMPORTS)}"


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _bound_names(nodes: list[ast.AST]) -> set[str]:
    """Names that the program gives a meaning of its own, anywhere."""
    bound = set()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name)
    return {name for name in bound if not _is_dunder(name)}
