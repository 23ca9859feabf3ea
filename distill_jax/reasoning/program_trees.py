"""Programs as trees, never run: parsed, stripped of comments, compared."""

import ast
import functools
import hashlib
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from typing import NamedTuple

# Longer programs are not parsed. Shorter ones cannot nest deep enough to harm Python's parser: it
# gives up with an error that is caught below.
MAX_PROGRAM = 20_000

_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def parsed(program: str) -> ast.Module | None:
    """The tree of a program; None where it does not parse, or is too long or too deep to try."""
    if len(program) > MAX_PROGRAM:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a string warns
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


# Rewards ask several times about each program of a step. `ast.walk` takes twice as long.
@functools.lru_cache(maxsize=256)
def all_nodes(program: str) -> tuple[ast.AST, ...]:
    """Every node of a program's tree but the contexts of names, the `Module` first.

    Nobody may change them: they are remembered. None where it does not parse.
    """
    tree = parsed(program)
    found: list[ast.AST] = [] if tree is None else [tree]
    for node in found:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                found.extend(one for one in value if isinstance(one, ast.AST))
            elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
                found.append(value)
    return tuple(found)


# --- comments -------------------------------------------------------------------------------------


class _Cut(NamedTuple):
    """A part of the source, rows from 0, and what replaces it."""

    row: int
    column: int
    last_row: int
    last_column: int
    instead: str


def strip_comments(program: str) -> str | None:
    """The program without comments and docstrings, all else as written.

    Lines that held nothing else are dropped; a body that is a docstring alone becomes `pass`. Run
    the result again before it counts as verified: a program may read its docstrings.

    Returns:
        None where it does not parse, or is not the same program after the cuts.
    """
    tree = parsed(program)
    if tree is None:
        return None
    lines = io.StringIO(program, newline="").readlines()
    try:
        cuts = [*_comments(lines), *_docstrings(tree, lines)]
        for cut in sorted(cuts, reverse=True):
            lines[cut.row : cut.last_row + 1] = _without(lines, cut)
        stripped = "".join(lines)
        again = parsed(stripped)
        same = again is not None and ast.dump(again) == ast.dump(_undocumented(tree))
    except (tokenize.TokenError, SyntaxError, RecursionError):
        return None
    return stripped if same else None


def _comments(lines: list[str]) -> Iterator[_Cut]:
    for token in tokenize.generate_tokens(iter([*lines, ""]).__next__):
        if token.type == tokenize.COMMENT:
            yield _Cut(token.start[0] - 1, token.start[1], token.end[0] - 1, token.end[1], "")


def _docstrings(tree: ast.Module, lines: list[str]) -> Iterator[_Cut]:
    for node in ast.walk(tree):
        if (own := _docstring(node)) is not None:
            assert own.end_lineno is not None and own.end_col_offset is not None
            row, last = own.lineno - 1, own.end_lineno - 1
            column = len(lines[row].encode()[: own.col_offset].decode())
            stop = len(lines[last].encode()[: own.end_col_offset].decode())
            alone = len(getattr(node, "body", [])) == 1 and not isinstance(node, ast.Module)
            yield _Cut(row, column, last, stop, "pass" if alone else "")


def _without(lines: list[str], cut: _Cut) -> list[str]:
    """The line that replaces those of a cut; none where only blanks are left."""
    before, after = lines[cut.row][: cut.column], lines[cut.last_row][cut.last_column :]
    if not cut.instead:
        after = re.sub(r"^[ \t]*;[ \t]*", "", after)
        before = before if after.strip() else before.rstrip()
    line = before + cut.instead + after
    return [line] if line.strip() else []


def _docstring(node: ast.AST) -> ast.Expr | None:
    """The statement that is the node's docstring, or None."""
    body = node.body if isinstance(node, _DOCUMENTED) else []
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return first if isinstance(first.value.value, str) else None
    return None


def _undocumented(tree: ast.Module) -> ast.Module:
    """The tree, changed: without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and _docstring(node) is not None:
            node.body = node.body[1:]
            if not node.body and not isinstance(node, ast.Module):
                node.body = [ast.Pass()]
    return tree


# --- the same program -----------------------------------------------------------------------------


def normalised(program: str) -> str:
    """A key, 32 hex digits: equal for programs that differ in layout, comments and names alone.

    Names that the program binds are numbered in their order, except those that it also uses as
    attributes, keywords, imports, patterns or in global statements. The key of a program that does
    not parse is that of its text.
    """
    tree = parsed(program)
    try:
        text = program if tree is None else ast.dump(_renamed(_undocumented(tree)))
    except RecursionError:
        text = program
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _renamed(tree: ast.Module) -> ast.Module:
    kept: set[str | None] = set()
    bound: list[str] = []
    for node in _in_order(tree):
        match node:
            case ast.Attribute():
                kept.add(node.attr)
            case ast.Global() | ast.Nonlocal():
                kept.update(node.names)
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
                kept.add(node.name)
            case ast.MatchMapping():
                kept.add(node.rest)
            case ast.alias():
                kept.update((node.name, node.asname))
            case ast.keyword():
                kept.add(node.arg)
            case ast.Name() if not isinstance(node.ctx, ast.Load):
                bound.append(node.id)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound.append(node.name)
            case ast.arg():
                bound.append(node.arg)
    free = [name for name in dict.fromkeys(bound) if name not in kept]
    new = {name: f"v{number}" for number, name in enumerate(free)}
    for node in ast.walk(tree):
        for field in ("id", "name", "arg"):
            if isinstance(old := getattr(node, field, None), str):
                setattr(node, field, new.get(old, old))
    return tree


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """A tree's nodes in the order of the source."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        todo += reversed(list(ast.iter_child_nodes(node)))
