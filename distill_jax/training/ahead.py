"""Programs of an update, compiled by a thread before the steps that need them."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from distill_jax.data import padding
from distill_jax.data.padding import PaddedLengths


class _Job:
    """One program: taken by the thread or by a step, whichever comes first."""

    def __init__(self, lengths: PaddedLengths):
        self.lengths, self.taken, self.done = lengths, False, threading.Event()


class _Given(NamedTuple):
    """Arguments of a call as placed shapes, which no donation takes away."""

    state: Any
    frozen: Any
    batch: Mapping[str, Any]
    rest: tuple[Any, ...]


class Ahead:
    """An update whose programs of other lengths are compiled while the first steps run.

    Its first call starts a thread that lowers and compiles the update for each of the other
    lengths, one after another, from the shapes of that call's arguments. JAX keeps what is compiled
    for the calls that follow. A call whose program is being compiled waits for it; one whose
    program is not begun compiles it itself. The results are those of the update. The process does
    not end before the compilation that is in progress.

    Args:
        update: jitted, (state, frozen, batch, …); arrays of the batch whose names end in T or R
            have the padded lengths of rows or responses as their last axis.
        chosen: all lengths of the batches.
        say: called with a line for each program and its seconds.
    """

    def __init__(
        self, update: Callable[..., Any], chosen: Sequence[PaddedLengths], say: Callable[[str], Any]
    ):
        self.update, self.say = update, say
        self._jobs = {lengths: _Job(lengths) for lengths in chosen}
        self._lock, self._begun = threading.Lock(), False

    def __call__(self, state: Any, frozen: Any, batch: Mapping[str, Any], *rest: Any) -> Any:
        """The update."""
        job = self._jobs[lengths_of(batch)]
        if not self._take(job):
            job.done.wait()
        if not self._begun:
            self._begun = True
            given = _Given(*jax.tree.map(_shape, (state, frozen, batch, rest)))
            threading.Thread(target=self._compile_all, args=(given,)).start()
        out = self.update(state, frozen, batch, *rest)
        job.done.set()
        return out

    def _take(self, job: _Job) -> bool:
        with self._lock:
            first, job.taken = not job.taken, True
        return first

    def _compile_all(self, given: _Given) -> None:
        for job in self._jobs.values():
            # At the end of the program, e.g. after an error, nothing further is begun.
            if not threading.main_thread().is_alive():
                return
            if self._take(job):
                try:
                    self._compile(job.lengths, given)
                finally:
                    job.done.set()

    def _compile(self, lengths: PaddedLengths, given: _Given) -> None:
        begin = time.perf_counter()
        batch = {name: _with(leaf, name, lengths) for name, leaf in given.batch.items()}
        lowered: Any = self.update
        lowered.lower(given.state, given.frozen, batch, *given.rest).compile()
        seconds = time.perf_counter() - begin
        self.say(f"compiled ahead: rows/responses of {padding.said([lengths])}, {seconds:.1f} s")


def lengths_of(batch: Mapping[str, Any]) -> PaddedLengths:
    """The lengths of a batch: of its arrays tokens_…T and targets_…R."""
    widths = {
        name[-1]: leaf.shape[-1]
        for name, leaf in batch.items()
        if name.startswith(("tokens_", "targets_"))
    }
    return PaddedLengths(widths["T"], widths["R"])


def _shape(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _with(leaf: jax.ShapeDtypeStruct, name: str, lengths: PaddedLengths) -> jax.ShapeDtypeStruct:
    """The shape with the last axis that these lengths give an array of this name."""
    last = {"T": lengths.T, "R": lengths.R}.get(name[-1])
    return leaf if last is None else leaf.update(shape=(*leaf.shape[:-1], last))
