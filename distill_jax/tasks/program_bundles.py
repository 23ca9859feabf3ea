"""Plain programs run several to a process: starting one takes longer than running it.

A plain program is a straight line of assignments, arithmetic and prints over a few builtins.
Without attributes, loops, imports and functions it reaches nothing that the next one could notice,
so its result is that of a run alone. Only success is read from a bundle; a program that raised, or
any of a bundle that did not end well, is run again by itself.
"""

import ast
import dataclasses
import functools
import math
import secrets
from collections.abc import Sequence
from concurrent.futures import Future

from distill_jax.reasoning import programs as texts_of
from distill_jax.sandbox import Limits, Result, Sandbox

# Programs of a bundle, and characters of each, at most.
MOST, LONGEST = 8, 2000
_NODES = frozenset((
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.Assert, ast.Pass, ast.If, ast.IfExp,
    ast.Name, ast.Constant, ast.Tuple, ast.List, ast.Call, ast.keyword, ast.JoinedStr,
    ast.FormattedValue, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Add, ast.Sub,
    ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.UAdd, ast.USub, ast.Not, ast.And,
    ast.Or, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
))  # fmt: skip
_BUILTINS = frozenset("abs bool divmod float int len max min print round str sum".split())
# Powers, and products of a program, a power counted by its bits: the longest number then has some
# 60,000 digits, and no plain program holds its neighbours up.
_MOST_POWER, _MOST_PRODUCTS, _MOST_DIGITS = 16, 12, 15


def is_plain(program: str) -> bool:
    """Whether a program may share a process: see this module.

    Refused are also names that begin with an underscore, strings over several lines (a bundle
    indents them), carriage returns (they end lines for Python alone), lines continued by a
    backslash (the next line's indentation may then decide), and great numbers.
    """
    if len(program) > LONGEST or any(mark in program for mark in ("\r", "\f", "\\\n")):
        return False
    nodes = texts_of.all_nodes(program)
    if len(nodes) < 2 or not _NODES.issuperset(map(type, nodes)):
        return False
    stored, loaded = set[str](), set[str]()
    products = 0
    for node in nodes:
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else stored).add(node.id)
        elif isinstance(node, ast.Constant | ast.JoinedStr):
            if node.lineno != node.end_lineno or _is_great(node):
                return False
        elif isinstance(node, ast.BinOp | ast.AugAssign):
            factor = node.right if isinstance(node, ast.BinOp) else node.value
            products += _products(node.op, factor)
    names = stored | loaded
    if products > _MOST_PRODUCTS or any(name.startswith("_") for name in names):
        return False
    return loaded - stored <= _BUILTINS


def _is_great(node: ast.expr) -> bool:
    value = getattr(node, "value", None)
    return isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS


def _products(op: ast.operator, factor: ast.expr) -> int:
    """How many products an operation is; more than there may be for an unknown or great power."""
    if isinstance(op, ast.Mult):
        return 1
    if not isinstance(op, ast.Pow):
        return 0
    value = getattr(factor, "value", None)
    if isinstance(value, int) and 0 <= value <= _MOST_POWER:
        return value.bit_length()
    return _MOST_PRODUCTS + 1


def start(sandbox: Sandbox, programs: Sequence[str], limits: Limits) -> list[Future[Result]]:
    """`Sandbox.start`, with plain programs in bundles.

    Args:
        sandbox: where they run.
        programs: texts.
        limits: the sandbox's; a bundle has those of one program.

    Returns:
        A future of each, in order. A bundle whose futures are all cancelled before its turn does
        not run.
    """
    plain = [is_plain(program) for program in programs]
    rows = [row for row, one in enumerate(plain) if one]
    alone = [row for row, one in enumerate(plain) if not one]
    # Each worker gets a part.
    bundles = max(math.ceil(len(rows) / MOST), min(sandbox.workers, len(rows)))
    found: dict[int, Future[Result]] = {}
    for number in range(bundles):
        part = rows[number::bundles]
        futures = _start(sandbox, [programs[row] for row in part], limits)
        found.update(zip(part, futures, strict=True))
    found.update(zip(alone, sandbox.start([programs[row] for row in alone]), strict=True))
    return [found[row] for row in range(len(programs))]


def _start(sandbox: Sandbox, programs: Sequence[str], limits: Limits) -> list[Future[Result]]:
    mark = secrets.token_hex(16)
    text = _bundle(programs, mark)
    if len(programs) == 1 or len(text.encode()) > limits.program_bytes:
        return sandbox.start(programs)
    members = [Future[Result]() for _ in programs]
    whole = sandbox.start([text])[0]
    whole.add_done_callback(functools.partial(_deliver, sandbox, programs, mark, members))

    def cancel(_: Future[Result]) -> None:
        if all(member.cancelled() for member in members):
            whole.cancel()

    for member in members:
        member.add_done_callback(cancel)
    return members


def _bundle(programs: Sequence[str], mark: str) -> str:
    """One text: each program a function, then `mark` and 1 where it returned, 0 where it raised."""
    # Python looks for a declaration of the encoding in the first two lines.
    lines = ["", ""]
    for program in programs:
        lines += ["def program():", *(f"    {line}" for line in program.split("\n"))]
        lines += ["try:", "    program()", f"    print('{mark}1', end='')"]
        lines += ["except Exception:", f"    print('{mark}0', end='')"]
    return "\n".join([*lines, ""])


def _deliver(
    sandbox: Sandbox,
    programs: Sequence[str],
    mark: str,
    members: Sequence[Future[Result]],
    whole: Future[Result],
) -> None:
    """Gives each program its part of a bundle's result; the others run again.

    Also where the machine failed: a lost zygote costs one program, not its neighbours.
    """
    if whole.cancelled():
        return  # because all of them are
    printed: list[str | None] = [None] * len(programs)
    if whole.exception() is None:
        printed = _parts(whole.result(), mark, len(programs))
    again: list[tuple[str, Future[Result]]] = []
    for program, member, text in zip(programs, members, printed, strict=True):
        if text is None and not member.cancelled():
            again.append((program, member))
        if text is None or not member.set_running_or_notify_cancel():
            continue
        result, count = whole.result(), len(programs)
        part = result.wall_ms / count, result.cpu_s / count
        member.set_result(
            dataclasses.replace(result, stdout=text, stderr="", wall_ms=part[0], cpu_s=part[1])
        )
    try:
        reruns = sandbox.start([program for program, _ in again])
    except RuntimeError as error:  # no thread is to be had: a callback's error reaches nobody
        for _, member in again:
            if member.set_running_or_notify_cancel():
                member.set_exception(error)
        return
    for (_, member), rerun in zip(again, reruns, strict=True):
        member.add_done_callback(functools.partial(_cancel, rerun))
        rerun.add_done_callback(functools.partial(_copy, member))


def _parts(result: Result, mark: str, count: int) -> list[str | None]:
    """What each program printed; None of those that must run again."""
    pieces = result.stdout.split(mark)
    endings = [piece[:1] for piece in pieces[1:]]
    if result.status != "ok" or len(endings) != count or not set(endings) <= {"0", "1"}:
        return [None] * count
    texts = [pieces[0], *(piece[1:] for piece in pieces[1:-1])]
    return [text if end == "1" else None for text, end in zip(texts, endings, strict=True)]


def _cancel(rerun: Future[Result], member: Future[Result]) -> None:
    if member.cancelled():
        rerun.cancel()


def _copy(member: Future[Result], rerun: Future[Result]) -> None:
    if rerun.cancelled() or not member.set_running_or_notify_cancel():
        return
    if (error := rerun.exception()) is not None:
        member.set_exception(error)
    else:
        member.set_result(rerun.result())
