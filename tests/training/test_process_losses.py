"""The loss of labelled steps: worked by hand, over the whole batch, from the steps' ends alone."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from distill_jax.kernels import process_reward
from distill_jax.models import process_head
from distill_jax.training import process_losses
from distill_jax.training import state as states
from distill_jax.training.process_losses import HEAD
from tests import tiny

pytestmark = pytest.mark.slow

H = tiny.CONFIG.hidden_size


class Fixed:
    """A trunk whose hidden states are the tokens' rows of a table, so that logits are known."""

    lora = None

    def __init__(self, rows):
        self.rows = np.float32(rows)

    def hidden(self, params, tokens_BT, *, dropout_key=None):
        return jax.numpy.asarray(self.rows)[tokens_BT]


def value_of(model, batch, head):
    loss, totals = process_losses.step_labels(model)
    trainable = {"lora": {}, HEAD: head}
    found, metrics = loss(trainable, {"base": {}}, batch, totals(batch), jax.random.key(0))
    return float(found), {name: float(x) for name, x in metrics.items()}


# The head hands on the state: token 0 has logits (0, 2), 1 (1, 0), 2 (.5, -.5), 3 a decoy.
TRUNK = Fixed([[0, 2], [1, 0], [0.5, -0.5], [9, -9]])
IDENTITY = {"weight": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
BATCH = {
    "tokens_BT": np.int32([[3, 0, 3, 1], [3, 3, 2, 3]]),
    "end_BS": np.int32([[1, 3], [2, 0]]),
    "label_BS": np.float32([[1, 1], [0, 0]]),
    "weight_BS": np.float32([[1, 1], [1, 0]]),
}


def test_a_batch_of_two_rows_by_hand():
    # −log σ(2) = .126928, −log σ(−1) = 1.313262, −log(1 − σ(−1)) = .313262; their mean is .584484.
    # The mean of the rows' means would be (.720095 + .313262)/2 = .516678.
    value, metrics = value_of(TRUNK, BATCH, IDENTITY)
    assert value == pytest.approx(0.584484, abs=1e-6)
    assert metrics["loss_minus_floor"] == pytest.approx(value)
    # Right: one of two; wrong: one of one.
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["balanced_accuracy"] == pytest.approx(0.75)


def test_a_soft_label_and_weights():
    # y = .375 at z₁ − z₀ = 2: 1.376928, of which H(.375) = .661563 is the label's own.
    batch = {
        **BATCH,
        "label_BS": np.float32([[0.375, 1], [0, 0]]),
        "weight_BS": np.float32([[1, 0], [0, 0]]),
    }
    value, metrics = value_of(TRUNK, batch, IDENTITY)
    assert value == pytest.approx(1.376928, abs=1e-5)
    assert metrics["loss_minus_floor"] == pytest.approx(1.376928 - 0.661563, abs=1e-5)
    # weights 3 and 1: (3·.126928 + 1.313262)/4
    batch = {**BATCH, "weight_BS": np.float32([[3, 1], [0, 0]])}
    assert value_of(TRUNK, batch, IDENTITY)[0] == pytest.approx(0.423512, abs=1e-5)


def test_parts_of_a_batch_add_up():
    loss, totals = process_losses.step_labels(TRUNK)
    sums = totals(BATCH)
    trainable = {"lora": {}, HEAD: IDENTITY}
    whole, metrics = value_of(TRUNK, BATCH, IDENTITY)
    parts = [
        loss(trainable, {"base": {}}, {n: x[i : i + 1] for n, x in BATCH.items()}, sums, None)
        for i in (0, 1)
    ]
    assert sum(float(value) for value, _ in parts) == pytest.approx(whole)
    for name, value in metrics.items():
        assert sum(float(part[name]) for _, part in parts) == pytest.approx(value)


def test_an_implicit_model_by_hand(monkeypatch):
    # β = .05, log-ratios .4, −.2, 1: rewards .02, −.01, .05, of sum .06;
    # −log σ(.06) = .663597 where the solution is right, −log σ(−.06) = .723597 where it is wrong.
    logp_BR = np.float32([[-1.6, -2.2, -0.5, 7.0]] * 2)
    reference_BR = np.float32([[-2.0, -2.0, -1.5]] * 2)
    rewards = process_reward.implicit_reward(logp_BR[0, :3], reference_BR[0], beta=0.05)
    np.testing.assert_allclose(rewards, [0.02, -0.01, 0.05], atol=1e-6)

    def scores(model, params, tokens, prompt_len, targets, *, vocab):
        return SimpleNamespace(logp_BR=logp_BR[: len(tokens)])

    monkeypatch.setattr(process_losses, "response_scores", scores)
    loss, totals = process_losses.outcomes.__wrapped__(None, 0.05, 9)

    def value(label, weight=(1, 1)):
        batch = {
            "tokens_BT": np.zeros((2, 6), np.int32),
            "prompt_len_B": np.int32([2, 2]),
            "targets_BR": np.zeros((2, 4), np.int32),
            "loss_mask_BR": np.float32([[1, 1, 1, 0]] * 2),  # the fourth is padding
            "reference_B": reference_BR.sum(axis=1),
            "label_B": np.float32(label),
            "weight_B": np.float32(weight),
        }
        key = jax.random.key(0)
        return loss({"lora": {}}, {"base": {}}, batch, totals(batch), key)

    assert float(value([1, 1])[0]) == pytest.approx(0.663597, abs=1e-6)
    assert float(value([0, 0])[0]) == pytest.approx(0.723597, abs=1e-6)
    both, metrics = value([1, 0], (3, 1))
    assert float(both) == pytest.approx((3 * 0.663597 + 0.723597) / 4, abs=1e-6)
    # Both are said to be right.
    assert float(metrics["accuracy"]) == float(metrics["balanced_accuracy"]) == 0.5


def test_gradients_reach_trunk_and_head_and_nothing_after_the_last_label():
    model, params = tiny.build()
    trainable, frozen = states.split(params, "lora")
    rng = np.random.default_rng(0)
    shape = process_head.shapes("mlp", H)
    trainable[HEAD] = {n: rng.standard_normal(s).astype(np.float32) for n, s in shape.items()}
    tokens_BT = rng.integers(0, tiny.VOCAB, (2, 8)).astype(np.int32)
    batch = {**BATCH, "tokens_BT": tokens_BT}
    loss, totals = process_losses.step_labels(model)

    @jax.jit
    def gradient(batch):
        return jax.grad(lambda t: loss(t, frozen, batch, totals(batch), jax.random.key(0))[0])(
            trainable
        )

    found = gradient(batch)
    assert all(np.any(x) and np.all(np.isfinite(x)) for x in jax.tree.leaves(found))
    other = {**batch, "tokens_BT": tokens_BT.copy()}
    other["tokens_BT"][0, 4:] = 1  # after its last step's end, 3
    other["tokens_BT"][1, 3:] = 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, gradient(other))
