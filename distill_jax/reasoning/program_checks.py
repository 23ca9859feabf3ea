"""What a program's tree says of its answer: assertions that check something, constants, inputs."""

import ast
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from distill_jax.reasoning.program_trees import all_nodes, parsed

_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_CONVERSIONS = ("str", "int", "float", "repr", "round", "abs", "Fraction", "Decimal", "Integer")
# What is added to the numbers of a question in turn, so that sums do not cancel.
_ADDED = (7, 11, 13, 17, 19, 23, 29, 31)


# --- assertions -----------------------------------------------------------------------------------


def assertions(program: str) -> int:
    """The number of assertions that can fail; 0 where the program does not parse.

    Such an assertion reads a name that the program computes: one that is bound to something else
    than a literal, or is a function, a parameter or a loop's variable. `assert True`,
    `assert 1 == 1`, `assert x == x`, `assert (x == 2, "text")` and assertions on literals alone do
    not count.
    """
    if "assert" not in program:
        return 0
    nodes = all_nodes(program)
    tests = [node.test for node in nodes if isinstance(node, ast.Assert)]
    try:
        names = _computed(nodes) if tests else set[str]()
        return sum(_can_fail(test, names) for test in tests)
    except RecursionError:
        return 0


def _computed(nodes: Sequence[ast.AST]) -> set[str]:
    """Names that are bound to something else than a literal."""
    found: set[str] = set()
    for node in nodes:
        match node:
            case ast.Assign():
                if not _literal(node.value):
                    found.update(name for target in node.targets for name in _stored(target))
            case ast.AnnAssign() | ast.NamedExpr():
                if node.value is not None and not _literal(node.value):
                    found.update(_stored(node.target))
            case ast.AugAssign() | ast.For() | ast.comprehension():
                found.update(_stored(node.target))
            case ast.FunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.arg():
                found.add(node.arg)
            case ast.withitem() if node.optional_vars is not None:
                found.update(_stored(node.optional_vars))
    return found


def _stored(target: ast.AST) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            yield node.id


def _literal(node: ast.AST | None) -> bool:
    match node:
        case None | ast.Constant():
            return True
        case ast.UnaryOp():
            return _literal(node.operand)
        case ast.Tuple() | ast.List() | ast.Set():
            return all(map(_literal, node.elts))
        case ast.Dict():
            return all(map(_literal, [*node.keys, *node.values]))
    return False


def _can_fail(test: ast.expr, names: set[str]) -> bool:
    match test:
        case ast.Tuple() | ast.List() | ast.Set() if test.elts:
            return False
        case ast.Dict() | ast.Lambda() | ast.JoinedStr():
            return False
        case ast.BoolOp():
            each = [_can_fail(value, names) for value in test.values]
            return all(each) if isinstance(test.op, ast.Or) else any(each)
        case ast.UnaryOp(op=ast.Not()):
            return _can_fail(test.operand, names)
        case ast.Compare():
            sides = [ast.dump(side) for side in (test.left, *test.comparators)]
            if len(set(sides)) == 1 and all(
                isinstance(op, ast.Eq | ast.LtE | ast.GtE | ast.Is) for op in test.ops
            ):
                return False
    return any(isinstance(node, ast.Name) and node.id in names for node in ast.walk(test))


# --- hard-coded answers ---------------------------------------------------------------------------


def is_constant(program: str) -> bool:
    """Whether the last `print` of a program writes a literal, so that nothing it computes matters.

    Literals are constants, names bound to nothing but constants, and str(), int(), round() … of
    them; arithmetic is computed, even on literals: `print(15 - 6)` works an answer out. Only a
    print outside of functions, loops and branches is judged; `perturbed` finds the rest.
    """
    nodes = all_nodes(program)
    prints = [node for node in nodes if _is_print(node)]
    if not prints or not isinstance(tree := nodes[0], ast.Module):
        return False
    last = max(prints, key=lambda node: (node.lineno, node.col_offset))
    alone = any(isinstance(one, ast.Expr) and one.value is last for one in tree.body)
    try:
        names = _constant_names(nodes) if alone else set[str]()
        return alone and all(_constant(argument, names) for argument in last.args)
    except RecursionError:
        return False


def _is_print(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"


def _constant_names(nodes: Sequence[ast.AST]) -> set[str]:
    """Names that are only ever assigned constants, or names that are."""
    values: dict[str, list[ast.expr]] = {}
    assigned: set[ast.Name] = set()
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    assigned.add(target)
                    values.setdefault(target.id, []).append(node.value)
    stored = (n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    names = set(values) - {node.id for node in stored if node not in assigned}
    while wrong := {n for n in names if not all(_constant(value, names) for value in values[n])}:
        names -= wrong
    return names


def _constant(node: ast.expr, names: set[str]) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp():
            return _constant(node.operand, names)
        case ast.JoinedStr():
            return all(_constant(value, names) for value in node.values)
        case ast.FormattedValue():
            return _constant(node.value, names)
        case ast.Name():
            return node.id in names
        case ast.Call(func=ast.Name(id=name)) if name in _CONVERSIONS and not node.keywords:
            return all(_constant(value, names) for value in node.args)
    return False


def numbers(question: str) -> list[float]:
    """The numbers that a question writes in digits, each once; a percentage as its share too."""
    found: list[float] = []
    for match in _NUMBER.finditer(question):
        value = float(match[0].replace(",", ""))
        share = question[match.end() : match.end() + 2].strip().startswith("%")
        found += [value, value / 100, 1 - value / 100, 1 + value / 100] if share else [value]
    return list(dict.fromkeys(found))


def perturbed(program: str, question: str) -> str | None:
    """The program with the question's numbers changed, without its assertions.

    It must be run: a program whose output stays the same does not use the question. Every constant
    that equals a number of the question changes, other ones by other amounts, in strings that are a
    number too. None where there is no such constant, or the program does not parse.
    """
    tree = parsed(program)
    if tree is None:
        return None
    added = itertools.cycle(_ADDED)
    new = {value: value + next(added) for value in numbers(question)}
    change = _Perturb(new)
    try:
        text = ast.unparse(ast.fix_missing_locations(change.visit(tree)))
    except RecursionError:
        return None
    return text if change.changed else None


def ignores(program: str, question: str) -> bool:
    """Whether a program uses no number of a question that has some, not even in its strings.

    False where it does not parse.
    """
    tree = parsed(program)
    wanted = set(numbers(question))
    if tree is None or not wanted:
        return False
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    used: set[float] = set()
    for value in constants:
        if isinstance(value, str):
            used.update(numbers(value))
        elif isinstance(value, int | float) and abs(value) < 2**53:
            used.add(float(value))
    return not wanted & used


class _Perturb(ast.NodeTransformer):
    """Replaces constants by other numbers of their type, and assertions by `pass`."""

    def __init__(self, new: dict[float, float]):
        self.new, self.changed = new, 0

    def visit_Assert(self, node: ast.Assert) -> ast.Pass:
        del node
        return ast.Pass()

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return node
        if isinstance(value, str) and not re.fullmatch(r"\d{1,15}(\.\d{1,15})?", value):
            return node
        if isinstance(value, int) and value.bit_length() > 53:
            return node
        other = self.new.get(float(value))
        if other is None:
            return node
        self.changed += 1
        kind = type(value)
        whole = kind is int or (kind is str and "." not in str(value))
        return ast.Constant(kind(int(other) if whole else other))
