"""Programs of other lengths are compiled while the first step runs, each once."""

import threading
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.data.padding import PaddedLengths
from distill_jax.training.ahead import Ahead
from distill_jax.training.compilations import Compilations
from tests import tiny

CHOSEN = [PaddedLengths(8, 4), PaddedLengths(12, 4), PaddedLengths(12, 8)]


def made() -> Any:
    """A jitted update that gives the state away, as that of training does."""

    def update(state: Any, frozen: Any, batch: Any, number: Any) -> Any:
        sums = batch["tokens_BT"].sum() + 10 * batch["targets_BR"].sum() + batch["place_BB"].sum()
        return state + sums * frozen + number, {"sum": sums}

    return jax.jit(update, donate_argnums=0, out_shardings=(whole(), None))


def placed(value: float) -> jax.Array:
    """As the state and the weights of a stage lie: placed, not where JAX would put them."""
    return jax.device_put(np.float32(value), whole())


def whole() -> Any:
    return jax.sharding.NamedSharding(tiny.mesh(), jax.sharding.PartitionSpec())


def batch(lengths: PaddedLengths) -> dict[str, Any]:
    T, R = lengths
    host = {"tokens_BT": np.ones((2, T), np.int32), "targets_BR": np.ones((2, R), np.int32)}
    return jax.device_put({**host, "place_BB": np.eye(2, dtype=np.float32)}, where())


def where() -> Any:
    return jax.sharding.NamedSharding(tiny.mesh(), jax.sharding.PartitionSpec("data"))


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one is not threading.main_thread()]


def test_all_other_programs_are_compiled_by_the_first_call() -> None:
    before, said = set(threads()), list[str]()
    update, plain = Ahead(made(), CHOSEN, said.append), made()
    state, frozen = placed(0.0), placed(2.0)
    batches = [batch(one) for one in (*CHOSEN, CHOSEN[0])]
    out = [update(state, frozen, batches[0], np.int32(3))]
    for thread in set(threads()) - before:
        thread.join()
    with Compilations() as compiled:
        for one in batches[1:]:
            out.append(update(out[-1][0], frozen, one, np.int32(3)))
        assert compiled.take() == (0, 0)
    want = plain(placed(0.0), frozen, batches[0], np.int32(3))
    for got, one in zip(out[1:], batches[1:], strict=True):
        want = plain(want[0], frozen, one, np.int32(3))
        assert got[1]["sum"] == want[1]["sum"]
    assert out[-1][0] == want[0]
    assert [line.partition(", ")[0] for line in said] == [
        f"compiled ahead: rows/responses of {T}/{R}" for T, R in CHOSEN[1:]
    ]


class Slow:
    """An update whose compilation of one of the lengths waits, or fails."""

    def __init__(self, lengths: PaddedLengths, *, fails: bool = False):
        self.real, self.slow, self.fails = made(), lengths, fails
        self.begun, self.go, self.lowered = threading.Event(), threading.Event(), list[Any]()

    def __call__(self, *arguments: Any) -> Any:
        return self.real(*arguments)

    def lower(self, state: Any, frozen: Any, given: Any, *rest: Any) -> Any:
        self.lowered.append((given["tokens_BT"].shape[1], given["targets_BR"].shape[1]))
        if self.lowered[-1] == self.slow:
            self.begun.set()
            assert self.go.wait(60)
            if self.fails:
                raise RuntimeError("no room")
        return self.real.lower(state, frozen, given, *rest)


def test_a_call_waits_for_its_own_program_and_takes_one_that_is_not_begun() -> None:
    before, slow = set(threads()), Slow(CHOSEN[1])
    update = Ahead(slow, CHOSEN, lambda _: None)
    state, _ = update(placed(0.0), placed(1.0), batch(CHOSEN[0]), 0)
    assert slow.begun.wait(60)
    # The thread is busy with the second: the third is compiled by the call.
    state, _ = update(state, placed(1.0), batch(CHOSEN[2]), 0)
    timer = threading.Timer(0.2, slow.go.set)
    timer.start()
    update(state, placed(1.0), batch(CHOSEN[1]), 0)
    assert slow.go.is_set()
    for thread in set(threads()) - before:
        thread.join()
    assert slow.lowered == [CHOSEN[1]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_program_that_the_thread_cannot_compile_is_left_to_its_call() -> None:
    before, slow = set(threads()), Slow(CHOSEN[1], fails=True)
    slow.go.set()
    update = Ahead(slow, CHOSEN, lambda _: None)
    state, _ = update(placed(0.0), placed(1.0), batch(CHOSEN[0]), 0)
    for thread in set(threads()) - before:
        thread.join()
    for one in CHOSEN[1:]:
        state, _ = update(state, placed(1.0), batch(one), 0)
    assert slow.lowered == [CHOSEN[1]]
