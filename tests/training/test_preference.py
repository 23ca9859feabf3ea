"""The loss of preference training, through models and heads, against sums by a loop over rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core import rng as rngs
from distill_jax.models.head import chunks
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel
from distill_jax.training import optimizer
from distill_jax.training import state as states
from distill_jax.training.preference import Objective, preference, sequence_logps
from distill_jax.training.step import make_update
from tests import shallow, tiny
from tests.tiny import VOCAB

pytestmark = pytest.mark.slow

PAIRS, T, R = 4, 9, 5
PROMPT = np.array([3, 1, 4, 2], np.int32)
LENGTH = np.array([[4, 5], [5, 1], [2, 5], [3, 2]], np.int32)


@pytest.fixture(scope="module")
def built():
    return shallow.build()


def made(seed=0, reference=True):
    rng = np.random.default_rng(seed)
    tokens_BCT = rng.integers(1, VOCAB, (PAIRS, 2, T)).astype(np.int32)
    targets_BCR = np.zeros((PAIRS, 2, R), np.int32)
    for b, p in enumerate(PROMPT):
        tokens_BCT[b, 1, :p] = tokens_BCT[b, 0, :p]
        for c, n in enumerate(LENGTH[b]):
            tokens_BCT[b, c, p + n :] = 0
            targets_BCR[b, c, :n] = tokens_BCT[b, c, p : p + n]
    batch = {
        "tokens_BCT": tokens_BCT,
        "prompt_len_BC": np.stack([PROMPT, PROMPT], axis=1),
        "response_len_BC": LENGTH,
        "targets_BCR": targets_BCR,
        "loss_mask_BCR": (np.arange(R) < LENGTH[..., None]).astype(np.float32),
    }
    if reference:
        batch["reference_BC"] = rng.normal(-9.0, 2.0, (PAIRS, 2)).astype(np.float32)
    return batch


def sums(model, params, batch):
    """float64 [B, 2], a row at a time, all logits at once."""
    out = np.zeros((PAIRS, 2))
    for b, p in enumerate(PROMPT):
        for c, n in enumerate(LENGTH[b]):
            tokens = batch["tokens_BCT"][b, c, : p + n]
            logp = tiny.log_softmax(tiny.naive_logits(model, params, tokens)[p - 1 : -1])
            out[b, c] = logp[np.arange(n), tokens[p:]].sum()
    return out


@functools.cache
def program(model, objective):
    loss, totals = preference(model, objective, VOCAB)

    @jax.jit
    def run(trainable, frozen, batch, key):
        one = jax.value_and_grad(loss, has_aux=True)
        return one(trainable, frozen, batch, totals(batch), key)

    return run


def value_of(built, objective, batch, seed=0):
    model, params = built
    return program(model, objective)(*states.split(params, "lora"), batch, jax.random.key(seed))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hits(model, params, batch):
    """Share of the chosen completions' tokens that have the largest logit, a row at a time."""
    found = []
    for b, p in enumerate(PROMPT):
        n = LENGTH[b, 0]
        tokens = batch["tokens_BCT"][b, 0, : p + n]
        found += (
            tiny.naive_logits(model, params, tokens)[p - 1 : -1].argmax(1) == tokens[p:]
        ).tolist()
    return np.mean(found)


def test_sums_loss_and_metrics_of_a_whole_model():
    model, params = tiny.build()
    batch = made()
    # Some of the chosen tokens are the most likely ones, some are not.
    for b, p in enumerate(PROMPT):
        row = batch["tokens_BCT"][b, 0]
        row[p] = tiny.naive_logits(model, params, row[:p])[-1].argmax()
        batch["targets_BCR"][b, 0, 0] = row[p]
    want_BC = sums(model, params, batch)
    score = jax.jit(functools.partial(sequence_logps, model, vocab=VOCAB))
    np.testing.assert_allclose(score(params, batch), want_BC, rtol=1e-5)
    ratio_BC = want_BC - batch["reference_BC"]
    margin_B = 0.5 * (ratio_BC[:, 0] - ratio_BC[:, 1])
    nll = -want_BC[:, 0].sum() / LENGTH[:, 0].sum()
    objective = Objective(beta=0.5, label_smoothing=0.2, sft_weight=0.3)
    (value, metrics), grads = value_of((model, params), objective, batch)
    loss_B = -0.8 * np.log(sigmoid(margin_B)) - 0.2 * np.log(sigmoid(-margin_B))
    np.testing.assert_allclose(value, loss_B.mean() + 0.3 * nll, rtol=1e-5)
    want = {
        "rewards/chosen": 0.5 * ratio_BC[:, 0].mean(),
        "rewards/rejected": 0.5 * ratio_BC[:, 1].mean(),
        "rewards/margins": margin_B.mean(),
        "rewards/accuracies": (margin_B > 0).mean(),
        "logps/chosen": want_BC[:, 0].mean(),
        "logps/rejected": want_BC[:, 1].mean(),
        "margins/optimised": margin_B.mean(),
        "accuracies/optimised": (margin_B > 0).mean(),
        "logps/chosen_per_token": -nll,
        "mean_token_accuracy": hits(model, params, batch),
    }
    assert set(metrics) == set(want) and 0.2 < want["mean_token_accuracy"] < 1
    for name, x in want.items():
        np.testing.assert_allclose(metrics[name], x, rtol=1e-4, atol=1e-6, err_msg=name)
    assert all(np.any(np.asarray(x)) for x in jax.tree.leaves(grads))


def test_the_optimised_margin_is_that_of_the_loss(built):
    """Two pairs' averages and sums differ in sign, so the accuracies of both differ, too."""
    batch = made()
    model, params = built
    score = jax.jit(functools.partial(sequence_logps, model, vocab=VOCAB))
    logp_BC = np.asarray(score(params, batch))
    # Pair 1 has 5 and 1 tokens: W = −2, L = −1, so W − L = −1 and W/5 − L/1 = .6.
    batch["reference_BC"] = (logp_BC - np.array([[1, 0], [-2, -1], [1, 0], [1, 0]])).astype("f4")
    (_, metrics), _ = value_of(built, Objective("sigmoid_norm", beta=5.0), batch)
    np.testing.assert_allclose(metrics["rewards/accuracies"], 0.75)
    np.testing.assert_allclose(metrics["accuracies/optimised"], 1.0)
    # β·mean(1/4, .6, 1/2, 1/3) and β·mean(1, −1, 1, 1).
    np.testing.assert_allclose(metrics["margins/optimised"], 5 * 1.683333 / 4, rtol=1e-4)
    np.testing.assert_allclose(metrics["rewards/margins"], 2.5, rtol=1e-4)


def test_simpo_reads_no_reference(built):
    objective = Objective("simpo", beta=2.0, target_margin=0.5)
    (value, metrics), grads = value_of(built, objective, made(reference=False))
    (other, _), other_grads = value_of(built, objective, made())
    assert value == other and not any(name.startswith("rewards/") for name in metrics)
    jax.tree.map(np.testing.assert_array_equal, grads, other_grads)
    model, params = built
    score = jax.jit(functools.partial(sequence_logps, model, vocab=VOCAB))
    means_BC = np.asarray(score(params, made())) / LENGTH
    margin_B = 2 * (means_BC[:, 0] - means_BC[:, 1] - 0.5)
    np.testing.assert_allclose(metrics["margins/optimised"], margin_B.mean(), rtol=1e-5)
    np.testing.assert_allclose(value, -np.log(sigmoid(margin_B)).mean(), rtol=1e-5)


def test_microbatches_add_up(built):
    """Sums over the whole batch: chosen completions have 4, 5, 2 and 3 tokens."""
    model, params = built
    tx = optimizer.make(optimizer.OptimizerSettings(learning_rate=1e-2, eps=1e-3), 10)
    loss, totals = preference(model, Objective("ipo", beta=0.3, sft_weight=0.5), VOCAB)
    found = []
    for parts in (1, 2):
        state, shardings = states.create(
            states.split(params, "lora")[0], tx, rngs.run_key(0), tiny.mesh()
        )
        update = make_update(loss, totals, tx, tiny.mesh(), shardings, accumulate=parts)
        state, metrics = update(state, {"base": params["base"]}, made(), 0, 1)
        found.append(jax.device_get((state.trainable, metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)


@pytest.mark.parametrize("objective", [Objective(), Objective("sigmoid_norm", sft_weight=0.1)])
def test_prompts_and_padding_are_not_in_the_loss(built, objective):
    batch, other = made(), made()
    other["targets_BCR"][other["loss_mask_BCR"] == 0] = 7
    ends_BC = PROMPT[:, None] + LENGTH
    other["tokens_BCT"][np.arange(T) >= ends_BC[..., None]] = 3
    (value, _), grads = value_of(built, objective, batch)
    (same, _), same_grads = value_of(built, objective, other)
    assert value == same
    jax.tree.map(np.testing.assert_array_equal, grads, same_grads)


def test_the_dropout_of_the_adapter_is_off():
    """The reference was scored without it."""
    params, batch = tiny.build()[1], made()
    found = []
    for dropout in (0.0, 0.5):
        model = QwenModel(tiny.ONE_LAYER, LoraConfig(rank=2, dropout=dropout))
        loss, totals = preference(model, Objective(), VOCAB)
        found.append(jax.jit(loss)(*states.split(params, "lora"), batch, totals(batch),
                                   jax.random.key(1))[0])  # fmt: skip
    assert found[0] == found[1]


def shapes(jaxpr):
    """Shapes of all arrays that a program makes, those of its inner programs included."""
    for eqn in jaxpr.eqns:
        yield from (v.aval.shape for v in eqn.outvars)
        for inner in jax.core.jaxprs_in_params(eqn.params):
            yield from shapes(inner)


def test_no_array_has_batch_time_and_vocabulary(monkeypatch):
    """Logits exist for one chunk of tokens at a time, forward and backward."""
    # 509 is in no other extent; 2·4 rows of 5 response tokens in chunks of at most 8 tokens.
    rows, vocab, chunk = 2 * PAIRS * R, 509, 8
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", chunk * vocab)
    model, params = shallow.build(rows=vocab)
    loss, totals = preference(model, Objective(sft_weight=0.1), vocab)
    trainable, frozen = states.split(params, "lora")

    def run(trainable, batch):
        one = jax.value_and_grad(loss, has_aux=True)
        return one(trainable, frozen, batch, totals(batch), jax.random.key(0))

    found = set(shapes(jax.make_jaxpr(run)(trainable, made()).jaxpr))
    width = model.hidden_size
    of_vocab = {shape for shape in found if vocab in shape and shape[-1:] != (width,)}
    assert of_vocab  # logits are made at all
    assert max(np.prod(shape) for shape in of_vocab) <= chunk * vocab < rows * vocab
    scored = jax.make_jaxpr(lambda p, b: sequence_logps(model, p, b, vocab=vocab))(params, made())
    of_vocab = {s for s in shapes(scored.jaxpr) if vocab in s and s[-1:] != (width,)}
    assert of_vocab and max(np.prod(shape) for shape in of_vocab) <= chunk * vocab


def test_a_loss_that_is_not_finite_is_not_hidden(built):
    batch = made()
    batch["reference_BC"][0, 0] = np.nan
    assert not jnp.isfinite(value_of(built, Objective(), batch)[0][0])
