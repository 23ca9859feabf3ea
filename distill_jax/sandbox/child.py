"""Runs one program in a freshly forked process: confine first, then read, check, execute.

The program arrives by a pipe after the confinement holds. The exit code tells how it ended;
nothing that the program writes is believed.
"""

import builtins
import gc
import io
import linecache
import os
import sys
import traceback
from types import ModuleType, TracebackType
from typing import NoReturn

from distill_jax.sandbox import frames, policy
from distill_jax.sandbox.confine import Confinement

PROGRAM = "<program>"  # the file name in tracebacks
TRACEBACK_CHARS = 8000
OWN_BYTES = 4 * TRACEBACK_CHARS + 1  # what the runner may add to a program's standard error
DEPTH = 1000  # of recursion, as Python has it
# What a first run would fill in each child; the second ends with a traceback.
_SAMPLES = {
    """import math
total = 0
for number in range(3):
    total += number * 2

def double(x):
    return 2 * x

assert double(total) == 12
print(f"{double(total)} {math.sqrt(total):.2f}")
""": 0,
    "x = 3 * 7\nassert x == 20, x\nprint(x)\n": 1,
}
_ROUNDS = 20  # an interpreter specialises code that has run some eight times
_OWN_CODES = (frames.EXIT_MEMORY, frames.EXIT_POLICY, frames.EXIT_SETUP)
_MOST_FDS = os.sysconf("SC_OPEN_MAX")


def prepare() -> None:
    """Makes the children's standard streams, once in the zygote: each child would pay 0.3 ms.

    They use descriptors 1 and 2, which each child replaces by its own pipes. Here they are pipes
    that nobody reads, because a stream remembers whether it could seek when it was made.
    """
    out, err = (_text(fd) for fd in (1, 2))
    nothing = io.StringIO("")
    vars(sys).update(stdin=nothing, __stdin__=nothing, argv=[PROGRAM])
    vars(sys).update(stdout=out, __stdout__=out, stderr=err, __stderr__=err)


def warm_up() -> None:
    """Runs programs of this module in the zygote, so that no child is the first to do it.

    Caches of types, specialised bytecode and formatted errors are then there; a child that fills
    them pays for the work, and for a copy of each page that it writes to.

    Raises:
        RuntimeError: a sample ended otherwise than it should.
    """
    kept, main, depth = vars(sys).copy(), sys.modules["__main__"], sys.getrecursionlimit()
    nowhere = _stream(io.FileIO(os.devnull, "w"))
    vars(sys).update(stdout=nowhere, stderr=nowhere)
    try:
        for program, wanted in list(_SAMPLES.items()) * _ROUNDS:
            if (code := _execute(program.encode(), syntax=True)) != wanted:
                raise RuntimeError(f"a sample program ended with {code}, wanted {wanted}")
    finally:
        vars(sys).update(stdout=kept["stdout"], stderr=kept["stderr"])
        sys.modules["__main__"] = main
        sys.setrecursionlimit(depth)
        # No program sees lines of ours; entries without lines spare it the look for the files.
        linecache.cache.pop(PROGRAM, None)
        for name in linecache.cache:
            linecache.cache[name] = (0, None, [], name)
        gc.disable()
        nowhere.close()


def _text(fd: int) -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.dup2(writer, fd)
    os.close(reader)
    os.close(writer)
    return _stream(io.FileIO(fd, "w", closefd=False))


def _stream(file: io.FileIO) -> io.TextIOWrapper:
    # Line by line, so that what was printed before a kill is there.
    return io.TextIOWrapper(
        io.BufferedWriter(file), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def run(confinement: Confinement, parent: int, fds: tuple[int, int, int], syntax: bool) -> NoReturn:
    """Never returns: the process ends here, without the zygote's exit handlers or buffers.

    Args:
        parent: the zygote's process id.
        fds: to read the program from, to write stdout and stderr to.
        syntax: whether the policy is checked.
    """
    code = frames.EXIT_SETUP
    try:
        os.setsid()
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.closerange(3, _MOST_FDS)
        confinement.apply(parent)
        code = 1
        with io.FileIO(0, "r") as payload:
            raw = payload.readall()
        code = _execute(raw, syntax)
    finally:
        os._exit(code)


def _execute(raw: bytes, syntax: bool) -> int:
    out, err = sys.stdout, sys.stderr  # the program may put others there
    if "random" in sys.modules:  # its fork handler has just seeded it from the system
        sys.modules["random"].seed(0)
    gc.enable()
    ending = _Ending(checking=True)
    with ending:
        source = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")  # as Python reads files
        code = compile(source, PROGRAM, "exec", dont_inherit=True)
        problems = policy.problems(source, code) if syntax else []
    if ending.code == 0 and problems:
        ending.code, ending.text = frames.EXIT_POLICY, "\n".join(problems)
    if ending.code == 0:
        ending = _Ending()
        sys.setrecursionlimit(DEPTH + _frames())
        main = ModuleType("__main__")
        main.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = main
        lines = source.splitlines(keepends=True)
        linecache.cache[PROGRAM] = (len(source), None, lines, PROGRAM)
        with ending:
            exec(code, main.__dict__)
    if ending.text and not err.closed:
        words = ending.text[-TRACEBACK_CHARS:].encode("utf-8", "backslashreplace")
        err.write(words[1 - OWN_BYTES :].decode("utf-8", "ignore") + "\n")
    for stream in (err, out):
        if not stream.closed:  # the program may close its own
            stream.flush()
    return ending.code


def _frames() -> int:
    """The depth of the runner itself, which must not count for the program."""
    frame, count = sys._getframe(), 0
    while (above := frame.f_back) is not None:
        frame, count = above, count + 1
    return count


class _Ending:
    """Turns the way in which a block ended, whatever was raised, into an exit code and a text.

    checking: the block reads the program and does not run it.
    """

    def __init__(self, *, checking: bool = False):
        self.code, self.text, self._checking = 0, "", checking

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            return True
        if self._checking:
            self.code, self.text = frames.EXIT_POLICY, _cannot_parse(error)
        elif isinstance(error, SystemExit):
            self.code, self.text = _of_exit(error)
        elif isinstance(error, MemoryError):
            traceback.clear_frames(trace)
            self.code, self.text = frames.EXIT_MEMORY, "MemoryError"
        else:
            self.code, self.text = 1, _traceback(error)
        return True


def _cannot_parse(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        lines = traceback.format_exception_only(type(error), error)
        return "".join(lines).rstrip()
    if isinstance(error, MemoryError | RecursionError):
        return "the program is too deeply nested, or too large, to be parsed; fix: write less"
    return f"the program cannot be parsed: {error}"


def _of_exit(error: SystemExit) -> tuple[int, str]:
    if error.code is None:
        return 0, ""
    if isinstance(error.code, int):
        low = error.code & 0xFF
        if error.code and (low == 0 or low in _OWN_CODES):
            low = 1
        return low, ""
    return 1, str(error.code)


def _traceback(error: BaseException) -> str:
    """The traceback without frames of the sandbox or of libraries."""
    whole = traceback.TracebackException(type(error), error, error.__traceback__)
    rest: list[traceback.TracebackException | None] = [whole]
    while rest:
        part = rest.pop()
        if part is not None:
            own = [frame for frame in part.stack if frame.filename == PROGRAM]
            part.stack = traceback.StackSummary.from_list(own)
            rest += [part.__cause__, part.__context__]
    return "".join(whole.format()).rstrip()
