"""Programs of other lengths, compiled by a thread before the steps that need them."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from distill_jax.core.errors import DataError

# Of arrays with padded lengths: how their names end -> size of the last axis, e.g. {"T": 96,
# "R": 32} of tokens_BT [B, 96] and targets_BR [B, 32].
Sizes = Mapping[str, int]

# Of the threads of all programs one compiles at a time: the steps need the processor and the
# devices' memory, too.
_TURN = threading.Lock()


class _Job:
    """One length: taken by the thread or by a step, whichever comes first."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.taken, self.done = sizes, False, threading.Event()


class Ahead:
    """A program that is compiled for its other lengths while the first steps run.

    Its first call starts a thread that lowers and compiles the program for each of the other
    lengths, one after another, from the shapes of that call's arguments. JAX keeps what is compiled
    for the calls that follow. A call whose length is being compiled waits for it; one whose length
    is not begun compiles it itself. The results are those of the program. The process does not end
    before the compilation that is in progress.

    Args:
        program: jitted. Its arrays with padded lengths lie on the mesh, and have names: they are
            values of a dict, fields of a dataclass or named tuple, or keywords of the call.
        chosen: all lengths; a name that ends in none of their keys is of an array that all share.
        say: called with a line for each length and its seconds.
        name: of the program, for these lines.
        fixed: first arguments whose shapes do not depend on lengths, as of weights.
    """

    def __init__(
        self,
        program: Callable[..., Any],
        chosen: Sequence[Sizes],
        say: Callable[[str], Any],
        *,
        name: str = "update",
        fixed: int = 2,
    ):
        self.program, self.say, self.name, self.fixed = program, say, name, fixed
        self._jobs = [_Job(sizes) for sizes in chosen]
        self._lock, self._begun = threading.Lock(), False

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The program's results.

        Raises:
            DataError: the arguments are of none of the lengths.
        """
        job = self._job_of((args[self.fixed :], named))
        if not self._take(job):
            job.done.wait()
        if not self._begun:
            self._begun = True
            # Shapes alone: the arrays may be donated.
            given = jax.tree.map(_shape, (args, named))
            threading.Thread(target=self._compile_all, args=given).start()
        try:
            return self.program(*args, **named)
        finally:
            job.done.set()

    def _job_of(self, batch: Any) -> _Job:
        endings = self._jobs[0].sizes
        found = {
            (ending, leaf.shape[-1])
            for path, leaf in jax.tree.leaves_with_path(batch)
            if (ending := _ending(path, endings)) is not None
        }
        for job in self._jobs:
            if found <= job.sizes.items():
                return job
        raise DataError(
            f"{self.name}: arrays of {_said(sorted(found))}",
            wanted="; or ".join(_said(job.sizes.items()) for job in self._jobs),
        )

    def _take(self, job: _Job) -> bool:
        with self._lock:
            first, job.taken = not job.taken, True
        return first

    def _compile_all(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        for job in self._jobs:
            with _TURN:
                # At the end of the program, e.g. after an error, nothing further is begun.
                if not threading.main_thread().is_alive():
                    return
                if self._take(job):
                    try:
                        self._compile(job.sizes, args, named)
                    finally:
                        job.done.set()

    def _compile(self, sizes: Sizes, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        begin = time.perf_counter()

        def of_length(path: Any, leaf: Any) -> Any:
            ending = _ending(path, sizes)
            return leaf if ending is None else leaf.update(shape=(*leaf.shape[:-1], sizes[ending]))

        batch, named = jax.tree.map_with_path(of_length, (args[self.fixed :], named))
        program: Any = self.program
        program.lower(*args[: self.fixed], *batch, **named).compile()
        seconds = time.perf_counter() - begin
        self.say(f"compiled ahead: {self.name} of {_said(sizes.items())}, {seconds:.1f} s")


def _ending(path: Any, endings: Sizes) -> str | None:
    """Which of these the name of the array at this place ends in; None: in none, or it has none."""
    axes = jax.tree_util.keystr(path[-1:], simple=True).rpartition("_")[2]
    return next((one for one in endings if axes.endswith(one)), None)


def _shape(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    # With a sharding, arrays that are not placed would be another program's.
    where = leaf.sharding if leaf.committed else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def _said(sizes: Any) -> str:
    return ", ".join(f"{ending}={size}" for ending, size in sizes)
