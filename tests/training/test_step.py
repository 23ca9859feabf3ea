import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core import rng
from distill_jax.core.errors import ConfigError
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS
from distill_jax.training.step import make_update
from tests import shallow, tiny
from tests.tiny import VOCAB
from tests.training import rl_batch

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

NUMBER, ADVANCE = np.int32(0), np.int32(1)


@pytest.fixture(scope="module")
def built():
    return tiny.build()


def host(tree):
    return jax.tree.map(np.asarray, tree)


def changed(before, after):
    return jax.tree.leaves(jax.tree.map(lambda x, y: not np.array_equal(x, y), before, after))


def assert_equal_states(got, want, atol):
    for name in ("trainable", "opt_state"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=atol),
            host(getattr(got, name)),
            host(getattr(want, name)),
        )


def assert_equal_metrics(got, want):
    assert set(got) == set(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=2e-5, rtol=1e-4, err_msg=name)


# Every ratio, surrogate and average of the family; the rest combine them in other ways, and
# test_policy_losses.py adds up the microbatches of each.
@pytest.mark.parametrize("name", ["ppo", "cispo", "dr_grpo", "gspo"])
def test_accumulation_equals_the_whole_batch(name):
    model, params = shallow.build()
    settings = rl_batch.settings_of(name)
    trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS[name], settings)
    before = host(trainable)
    results = []
    for accumulate in (1, 4):
        state, update = rl_batch.updater(model, name, settings, trainable, accumulate=accumulate)
        results.append(update(state, frozen, batch, NUMBER, ADVANCE))
    (whole, metrics), (parts, metrics_of_parts) = results
    assert all(changed(before, host(whole.trainable)))
    assert_equal_states(parts, whole, 2e-6)
    # A row's share of clipped tokens is 0 in a microbatch without one: the minimum is theirs.
    assert_equal_metrics(metrics_of_parts, metrics)
    assert int(whole.step) == 1 and int(metrics["skipped"]) == 0
    assert np.isfinite(float(metrics["loss"])) and float(metrics["grad_norm"]) > 0


def sft_update(model, trainable, mesh=None, accumulate=1):
    mesh = mesh or tiny.mesh()
    tx = optimizer.make(optimizer.OptimizerSettings(learning_rate=1e-2, eps=1e-3), 10)
    state, shardings = states.create(trainable, tx, rng.run_key(0), mesh)
    loss, totals = losses.sft(model, VOCAB)
    return state, make_update(loss, totals, tx, mesh, shardings, accumulate=accumulate)


def test_accumulation_equals_the_whole_batch_in_sft():
    model, params = shallow.build()
    trainable, frozen, batch = rl_batch.make_sft(params)
    results = []
    for accumulate in (1, 8):
        state, update = sft_update(model, trainable, accumulate=accumulate)
        results.append(update(state, frozen, batch, NUMBER, ADVANCE))
    (whole, metrics), (parts, metrics_of_parts) = results
    assert_equal_states(parts, whole, 2e-6)
    assert_equal_metrics(metrics_of_parts, metrics)
    with pytest.raises(ConfigError, match="accumulate=3 microbatches of 8 rows"):
        state, update = sft_update(model, trainable, accumulate=3)
        update(state, frozen, batch, NUMBER, ADVANCE)


@pytest.mark.parametrize("name, shape", [("sft", (1, 2, 2)), ("ppo", (2, 2, 2))])
def test_an_update_on_a_mesh_equals_that_of_one_device(built, name, shape):
    model, params = shallow.build() if name == "sft" else built
    settings = rl_batch.settings_of("ppo")
    if name == "sft":
        trainable, frozen, batch = rl_batch.make_sft(params)
    else:
        trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS["ppo"], settings)
    results = []
    for mesh in (tiny.mesh(), tiny.mesh(*shape)):
        where = tiny.placed({**frozen, **trainable}, mesh)
        mine, rest = {k: where[k] for k in trainable}, {"base": where["base"]}
        if name == "sft":
            state, update = sft_update(model, mine, mesh, accumulate=2)
        else:
            split = model.replace(fuse=mesh.shape["tensor"] == 1)
            state, update = rl_batch.updater(split, "ppo", settings, mine, mesh=mesh, accumulate=2)
        placed = jax.device_put(batch, states.sharding.batch_sharding(mesh))
        shardings = jax.tree.map(lambda x: x.sharding, state)
        state, metrics = update(state, rest, placed, NUMBER, ADVANCE)
        assert jax.tree.map(lambda x: x.sharding, state) == shardings
        results.append((state, metrics))
    assert_equal_states(results[1][0], results[0][0], 5e-6)
    assert_equal_metrics(results[1][1], results[0][1])


def test_minibatches_draw_their_own_dropout_and_the_base_is_frozen_bit_for_bit(built):
    model, params = built
    model = model.replace(lora=dataclasses.replace(model.lora, dropout=0.1))
    trainable, frozen, batch = rl_batch.make_sft(params)
    base, lora = host(frozen["base"]), host(trainable)
    frozen = jax.device_put(frozen)
    state, update = sft_update(model, trainable)
    copied, losses_seen = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree)), []
    fresh = copied(state)

    def run(state, number, advance):
        state, metrics = update(state, frozen, batch, np.int32(number), np.int32(advance))
        losses_seen.append(float(metrics["loss"]))
        return state

    for number in (0, 0, 1):  # of one step, which counts with its last minibatch
        state = run(copied(fresh), number, 0)  # an update takes its state's buffers
        assert int(state.step) == 0
    assert losses_seen[0] == losses_seen[1] != losses_seen[2]
    for _ in range(8):
        state = run(state, 0, 1)
    jax.tree.map(np.testing.assert_array_equal, host(frozen["base"]), base)
    assert all(changed(lora, host(state.trainable)))
    assert losses_seen[-1] < losses_seen[0] - 0.1 and int(state.step) == 8


def test_an_update_that_is_not_finite_changes_nothing_and_is_counted():
    model, params = shallow.build()
    settings = rl_batch.settings_of("cispo")
    trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS["cispo"], settings)
    state, update = rl_batch.updater(model, "cispo", settings, trainable)
    state, _ = update(state, frozen, batch, NUMBER, ADVANCE)
    before = host((state.trainable, state.opt_state))
    for count, bad in ((1, np.nan), (2, np.inf)):
        advantage_BR = batch.advantages.advantage_BR.copy()
        advantage_BR[2, 0] = bad
        poisoned = batch.replace(advantages=batch.advantages.replace(advantage_BR=advantage_BR))
        state, metrics = update(state, frozen, poisoned, NUMBER, ADVANCE)
        assert int(metrics["skipped"]) == 1 and not np.isfinite(float(metrics["loss"]))
        assert (int(state.skipped), int(state.skipped_in_row)) == (count, count)
        after = host((state.trainable, state.opt_state))
        jax.tree.map(np.testing.assert_array_equal, after, before)
    state, metrics = update(state, frozen, batch, NUMBER, ADVANCE)
    assert (int(state.skipped), int(state.skipped_in_row), int(state.step)) == (2, 0, 4)
    assert any(changed(before[0], host(state.trainable)))


def test_a_finite_loss_with_an_infinite_gradient_is_skipped_too():
    # √x at 0: value 0, slope infinite.
    tx = optimizer.make(optimizer.OptimizerSettings(), 10)
    weights = {"lora": {}, "value_head": {"w": np.zeros(())}}
    state, shardings = states.create(weights, tx, rng.run_key(0), tiny.mesh())
    update = make_update(
        lambda t, f, b, n, k: (jnp.sqrt(t["value_head"]["w"]), {}),
        lambda batch: 1.0,
        tx,
        tiny.mesh(),
        shardings,
    )
    state, metrics = update(state, {}, {}, NUMBER, ADVANCE)
    assert float(metrics["loss"]) == 0.0 and int(metrics["skipped"]) == 1
    assert float(state.trainable["value_head"]["w"]) == 0.0


def test_equal_updates_and_teachers_are_one_program_and_others_are_not(built):
    model, params = built
    trainable, _ = states.split(params, "lora")

    def update(model=model, mesh=None, vocab=VOCAB, rate=1e-2, total=10, accumulate=1):
        mesh = mesh or tiny.mesh()
        tx = optimizer.make(optimizer.OptimizerSettings(learning_rate=rate), total)
        _, shardings = states.create(trainable, tx, rng.run_key(0), mesh)
        return make_update(*losses.sft(model, vocab), tx, mesh, shardings, accumulate=accumulate)

    def teacher(model=model, mesh=None, vocab=VOCAB, alpha=1.0):
        return TeacherScorer(model, {}, mesh or tiny.mesh(), alpha=alpha, vocab=vocab)._score

    others = [{"model": model.replace(unroll=False)}, {"mesh": tiny.mesh(data=2)}, {"vocab": 19}]
    updates = [{"rate": 2e-2}, {"total": 11}, {"accumulate": 2}]
    for make, different in ((update, others + updates), (teacher, [*others, {"alpha": 2.0}])):
        assert make() is make(model=dataclasses.replace(model))
        assert len({make(), *(make(**other) for other in different)}) == 1 + len(different)
