"""Steps that train the value head alone: when they end, and that nothing else moves in them."""

import jax
import numpy as np
import pytest

from distill_jax.training import optimizer, value_warmup
from distill_jax.training.algorithms import ALGORITHMS, PPOSettings
from distill_jax.training.batch import Advantages
from tests import shallow
from tests.training import rl_batch

pytestmark = pytest.mark.slow

NUMBER, ADVANCE = np.int32(0), np.int32(1)
SETTINGS = PPOSettings(critic_lam=1.0, value_warmup_steps=3, value_warmup_explained=0.4)


def steps(explained, settings=SETTINGS):
    """Whether the policy is trained in each of these steps, and the last state."""
    hold = jax.jit(lambda state, e: value_warmup.hold(made, state, e, settings))
    made, trained = Advantages(np.zeros((2, 3), np.float32)), []
    state = {"other": np.float32(7), **value_warmup.fresh(settings)}
    for value in explained:
        out, state, metrics = hold(state, np.float32(value))
        assert out.policy_B.shape == (2,) and len(set(out.policy_B.tolist())) == 1
        assert float(metrics["critic/warmup"]) == 1.0 - float(out.policy_B[0])
        trained.append(float(out.policy_B[0]))
    assert float(state["other"]) == 7.0
    return trained, state[value_warmup.KEY]


def test_it_ends_with_the_first_rollout_that_is_explained_and_does_not_come_back():
    trained, state = steps([-5.0, 0.39, 0.4, -1.0])
    assert trained == [0, 0, 1, 1] and bool(state["over"]) and int(state["steps"]) == 2


def test_it_ends_after_its_steps_even_where_nothing_is_explained():
    assert steps([-5.0, np.nan, 0.0, 0.0, 0.0])[0] == [0, 0, 0, 1, 1]


def test_without_it_the_state_holds_nothing():
    assert value_warmup.fresh(PPOSettings()) == {}


@pytest.fixture(scope="module")
def given():
    model, params = shallow.build()
    settings = rl_batch.settings_of("ppo", kl_coef=0.0)
    trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS["ppo"], settings)
    # As after some steps: of a head of zeros the trunk would get no gradient in any case.
    head = trainable["value_head"]
    head = {**head, "kernel_D": 0.1 + np.zeros_like(head["kernel_D"])}
    return model, settings, {**trainable, "value_head": head}, frozen, batch


def update(given, policy_B, accumulate=1):
    model, settings, trainable, frozen, batch = given
    batch = batch.replace(advantages=batch.advantages.replace(policy_B=policy_B))
    state, run = rl_batch.updater(model, "ppo", settings, trainable, accumulate=accumulate)
    state, metrics = run(state, frozen, batch, NUMBER, ADVANCE)
    return jax.tree.map(np.asarray, (state.trainable, state.opt_state)), metrics


def test_the_policy_keeps_its_bits_and_the_head_moves(given):
    (after, _), metrics = update(given, np.zeros(8, np.float32))
    jax.tree.map(np.testing.assert_array_equal, after["lora"], given[2]["lora"])
    assert np.any(after["value_head"]["kernel_D"] != given[2]["value_head"]["kernel_D"])
    assert float(metrics["loss/policy_avg"]) == 0.0 and float(metrics["loss/value_avg"]) > 0.0


def test_rows_that_train_the_policy_are_as_without_it(given):
    plain, _ = update(given, None)
    ones, _ = update(given, np.ones(8, np.float32))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), ones, plain)


def test_microbatches_add_up_to_the_whole_batch(given):
    policy_B = np.array([1, 0, 0, 1, 1, 0, 1, 0], np.float32)
    whole, metrics = update(given, policy_B)
    parts, metrics_of_parts = update(given, policy_B, accumulate=4)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), parts, whole)
    for name in ("loss", "loss/policy_avg", "loss/value_avg", "grad_norm"):
        np.testing.assert_allclose(metrics_of_parts[name], metrics[name], rtol=1e-4, atol=1e-6)
    assert 0.0 != float(metrics["loss/policy_avg"])


def test_the_head_has_a_learning_rate_of_its_own():
    how = optimizer.OptimizerSettings(learning_rate=0.1, schedule="constant")
    weights = {"lora": np.ones(2, np.float32), "value_head": np.ones(2, np.float32)}
    changes = []
    for tx in (optimizer.make(how, 9), optimizer.make_with_head(how, 9, "value_head", 5.0)):
        change, _ = tx.update(weights, tx.init(weights), weights)
        changes.append(jax.tree.map(np.asarray, change))
    np.testing.assert_array_equal(changes[1]["lora"], changes[0]["lora"])
    np.testing.assert_allclose(changes[1]["value_head"], 5 * changes[0]["value_head"], rtol=1e-6)
