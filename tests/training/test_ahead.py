"""Programs of other lengths are compiled while the first step runs, each once."""

import threading
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.training.ahead import Ahead
from distill_jax.training.batch import Advantages, PolicyBatch
from distill_jax.training.compilations import Compilations
from distill_jax.training.losses import PolicyScores
from tests import tiny

CHOSEN = [{"T": 8, "R": 4}, {"T": 12, "R": 4}, {"T": 12, "R": 8}]


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


def batch(sizes: dict[str, int]) -> dict[str, Any]:
    T, R = sizes.values()
    host = {"tokens_BT": np.ones((2, T), np.int32), "targets_BR": np.ones((2, R), np.int32)}
    return jax.device_put({**host, "place_BB": np.eye(2, dtype=np.float32)}, where())


def where() -> Any:
    return jax.sharding.NamedSharding(tiny.mesh(), jax.sharding.PartitionSpec("data"))


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one is not threading.main_thread()]


def join(before: set[threading.Thread]) -> None:
    """Waits for the threads that have begun since."""
    for thread in set(threads()) - before:
        thread.join()


def test_all_other_programs_are_compiled_by_the_first_call() -> None:
    before, said = set(threads()), list[str]()
    update, plain = Ahead(made(), CHOSEN, said.append), made()
    state, frozen = placed(0.0), placed(2.0)
    batches = [batch(one) for one in (*CHOSEN, CHOSEN[0])]
    out = [update(state, frozen, batches[0], np.int32(3))]
    join(before)
    with Compilations() as compiled:
        for one in batches[1:]:
            out.append(update(out[-1][0], frozen, one, np.int32(3)))
        assert compiled.take() == (0, 0)
    want = plain(placed(0.0), frozen, batches[0], np.int32(3))
    for got, one in zip(out[1:], batches[1:], strict=True):
        want = plain(want[0], frozen, one, np.int32(3))
        assert got[1]["sum"] == want[1]["sum"]
    assert out[-1][0] == want[0]
    assert [line.rpartition(", ")[0] for line in said] == [
        f"compiled ahead: update of T={T}, R={R}" for T, R in map(dict.values, CHOSEN[1:])
    ]


class Slow:
    """An update whose compilation of one of the lengths waits, or fails."""

    def __init__(self, lengths: dict[str, int], *, fails: bool = False):
        self.real, self.slow, self.fails = made(), lengths, fails
        self.begun, self.go, self.lowered = threading.Event(), threading.Event(), list[Any]()

    def __call__(self, *arguments: Any) -> Any:
        return self.real(*arguments)

    def lower(self, state: Any, frozen: Any, given: Any, *rest: Any) -> Any:
        self.lowered.append({"T": given["tokens_BT"].shape[1], "R": given["targets_BR"].shape[1]})
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
    join(before)
    assert slow.lowered == [CHOSEN[1]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_program_that_the_thread_cannot_compile_is_left_to_its_call() -> None:
    before, slow = set(threads()), Slow(CHOSEN[1], fails=True)
    slow.go.set()
    update = Ahead(slow, CHOSEN, lambda _: None)
    state, _ = update(placed(0.0), placed(1.0), batch(CHOSEN[0]), 0)
    join(before)
    for one in CHOSEN[1:]:
        state, _ = update(state, placed(1.0), batch(one), 0)
    assert slow.lowered == [CHOSEN[1]]


def policy(sizes: dict[str, int]) -> PolicyBatch:
    """As stage rl has it: fields, fields of a field, and a state behind the last token."""
    own = jax.device_put(np.ones((4, sizes["R"]), np.float32), where())
    prompts = jax.device_put(np.ones((2, sizes["PS"]), np.int32), where())
    return PolicyBatch(
        tokens_BT=None, prompts_PS=prompts, prompt_len_B=own[:, 0], targets_BR=own,
        loss_mask_BR=own, behaviour_logp_BR=own, old_logp_BR=None, ref_logp_BR=None,
        advantages=Advantages(own, policy_B=own[:, 0]),
    )  # fmt: skip


def test_arrays_of_dataclasses_tuples_and_keywords_have_names_too() -> None:
    chosen = [{"T": 12, "R": R, "PS": 12 - R} for R in (4, 8)]
    apart = jax.device_put(np.ones((4, 6), np.float32), where())

    @jax.jit
    def program(kept: Any, policy: Any, steps: Any, *, old: Any, mask_BR: Any) -> Any:
        parts = policy.prompts_PS, policy.advantages.advantage_BR, old.logp_BR, mask_BR
        parts += (steps["score_BS"],)
        return sum(part.sum() for part in parts) + kept["tokens_BR"].sum()

    def call(update: Any, sizes: dict[str, int]) -> float:
        given = policy(sizes)
        scores, mask_BR = PolicyScores(given.targets_BR), given.loss_mask_BR
        # Arrays of the first argument do not grow, whatever their names; steps are no prompts.
        kept, steps = {"tokens_BR": apart}, {"score_BS": apart}
        return float(update(kept, given, steps, old=scores, mask_BR=mask_BR))

    before, said = set(threads()), list[str]()
    update = Ahead(program, chosen, said.append, name="rewards", fixed=1)
    found = [call(update, chosen[0])]
    join(before)
    with Compilations() as compiled:
        policy(chosen[1])  # made by programs of its own
        compiled.take()
        found.append(call(update, chosen[1]))
        assert compiled.take() == (0, 0)
    assert [line.rpartition(", ")[0] for line in said] == [
        "compiled ahead: rewards of T=12, R=8, PS=4"
    ]
    assert found == [call(program, one) for one in chosen]


def test_arguments_of_no_chosen_length_are_refused() -> None:
    update = Ahead(made(), CHOSEN[:2], lambda _: None)
    with pytest.raises(DataError, match="update: arrays of R=8, T=12"):
        update(placed(0.0), placed(1.0), batch(CHOSEN[2]), 0)


def test_of_several_programs_one_is_compiled_by_threads_at_a_time() -> None:
    before, slow, said = set(threads()), Slow(CHOSEN[1]), list[str]()
    first = Ahead(slow, CHOSEN[:2], said.append, name="slow")
    state, _ = first(placed(0.0), placed(1.0), batch(CHOSEN[0]), 0)
    assert slow.begun.wait(60)
    known = set(threads())
    Ahead(made(), CHOSEN[1:], said.append)(state, placed(1.0), batch(CHOSEN[1]), 0)
    (second,) = set(threads()) - known
    second.join(1.0)
    assert second.is_alive() and not said
    slow.go.set()
    join(before)
    assert [line.split()[2] for line in said] == ["slow", "update"]


def test_a_call_that_fails_can_be_made_again() -> None:
    failing, before = [True], set(threads())

    def update(*_: Any) -> str:
        if failing.pop():
            raise RuntimeError("no room")
        return "done"

    ahead = Ahead(update, CHOSEN[:1], lambda _: None)
    with pytest.raises(RuntimeError, match="no room"):
        ahead(placed(0.0), placed(1.0), batch(CHOSEN[0]), 0)
    failing.append(False)
    assert ahead(placed(0.0), placed(1.0), batch(CHOSEN[0]), 0) == "done"
    join(before)


class Seen:
    """A program that keeps what it is lowered with."""

    def __call__(self, *_: Any) -> None:
        pass

    def lower(self, *given: Any) -> "Seen":
        self.given = given
        return self

    def compile(self) -> None:
        pass


def test_arrays_that_are_not_placed_are_lowered_without_a_place() -> None:
    """On several devices one's place would be refused next to the others'."""
    seen, before = Seen(), set(threads())
    Ahead(seen, CHOSEN[:2], lambda _: None)(placed(0.0), jax.numpy.ones(3), batch(CHOSEN[0]))
    join(before)
    state, loose, given = seen.given
    assert state.sharding == whole() and loose.sharding is None
    assert given["tokens_BT"].sharding == where() and given["tokens_BT"].shape == (2, 12)
