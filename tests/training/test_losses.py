import jax
import numpy as np
import pytest

from distill_jax.models import response
from distill_jax.training import losses
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS
from tests import shallow, tiny
from tests.tiny import VOCAB
from tests.training import rl_batch
from tests.training.rl_batch import ANSWER, PROMPT, TEMPERATURE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built():
    return shallow.build()


def test_sft_loss_is_the_mean_cross_entropy_of_response_tokens():
    model, params = tiny.build()
    trainable, frozen, batch = rl_batch.make_sft(params)
    loss, totals = losses.sft(model, VOCAB)
    value, _ = jax.jit(loss)(trainable, frozen, batch, totals(batch), jax.random.key(0))
    parts = []
    for row in range(8):
        p, n = PROMPT[row], ANSWER[row]
        tokens = batch["tokens_BT"][row, : p + n]
        logp = tiny.log_softmax(tiny.naive_logits(model, params, tokens)[p - 1 : -1])
        parts.extend(logp[np.arange(n), tokens[p:]])
    assert len(parts) == ANSWER.sum() == totals(batch)
    np.testing.assert_allclose(value, -np.mean(parts), rtol=1e-5)


def test_the_last_token_of_an_answer_is_trained(built):
    # EOS stands last in a response: without it in the mask the gradient would be another.
    model, params = built
    trainable, frozen, batch = rl_batch.make_sft(params)
    loss, _ = losses.sft(model, VOCAB)
    last = np.arange(5)[None] == ANSWER[:, None] - 1
    only = {**batch, "loss_mask_BR": last.astype(np.float32)}
    grads = jax.jit(jax.grad(lambda t: loss(t, frozen, only, 8.0, jax.random.key(0))[0]))(trainable)
    assert all(np.any(np.asarray(g)) for g in jax.tree.leaves(grads))


def value_of(built, name, settings, **changes):
    model, params = built
    trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS[name], settings)
    batch = batch.replace(advantages=batch.advantages.replace(**changes))
    loss, totals = losses.policy(
        model, ALGORITHMS[name], settings, temperature=TEMPERATURE, vocab=VOCAB
    )

    @jax.jit
    def run(trainable, frozen, batch):
        one = jax.value_and_grad(loss, has_aux=True)
        return one(trainable, frozen, batch, totals(batch), jax.random.key(0))

    return run(trainable, frozen, batch)


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_the_entropy_bonus_acts(built, name):
    some = {"importance": "none", "beta": 0.0, "top_entropy": 1.0} if name == "grpo" else {}
    flat = np.zeros((8, 5), np.float32)
    (_, metrics), without = value_of(
        built, name, rl_batch.settings_of(name, entropy_coef=0.0, **some), advantage_BR=flat
    )
    (value, _), bonus = value_of(
        built, name, rl_batch.settings_of(name, entropy_coef=0.5, **some), advantage_BR=flat
    )
    assert float(metrics["entropy"]) > 0.5  # reported with and without a bonus
    size = {k: max(np.abs(x).max() for x in jax.tree.leaves(g["lora"])) for k, g in
            (("without", without), ("bonus", bonus))}  # fmt: skip
    # Without advantages nothing else moves the policy (PPO's value head starts at zero).
    assert size["without"] < 1e-7 and size["bonus"] > 1e-4
    if name == "grpo":
        # grpo averages rows first; the bonus enters with a minus, so that entropy rises.
        assert float(value) < 0


def test_the_value_head_starts_at_zero_and_learns(built):
    model, params = built
    settings = rl_batch.settings_of("ppo")
    (_, _), grads = value_of(built, "ppo", settings)
    trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS["ppo"], settings)
    assert np.all(batch.advantages.old_value_BR == 0)
    assert all(np.any(np.asarray(x)) for x in grads["value_head"].values())
    # A head of ones reads the sum of the state before each token, and the one after the last.
    trainable["value_head"] = jax.tree.map(np.ones_like, trainable["value_head"])
    scored = rl_batch.score(model, trainable, frozen, rl_batch.to_rollout(batch), True)
    hidden = np.asarray(jax.jit(model.hidden)(params, batch.tokens_BT))
    for row in range(8):
        p, n = PROMPT[row], ANSWER[row]
        want = 1 + hidden[row, p - 1 : p + n].sum(axis=1)
        np.testing.assert_allclose(scored.value_BR[row, :n], want[:-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scored.end_value_B[row], want[-1], rtol=1e-4, atol=1e-5)


def test_agreement_of_sampler_and_trainer_is_measured(built):
    settings = rl_batch.settings_of("grpo")
    model, params = built
    _, _, batch = rl_batch.make(model, params, ALGORITHMS["grpo"], settings)
    (_, metrics), _ = value_of(built, "grpo", settings)
    l_N = (batch.old_logp_BR - batch.behaviour_logp_BR)[batch.loss_mask_BR > 0]
    for name, want in {
        "sampling_logp_difference/mean": np.abs(l_N).mean(),
        "sampling_logp_difference/max": np.abs(l_N).max(),
        "importance_sampling_ratio/min": np.exp(l_N).min(),
        "importance_sampling_ratio/mean": np.exp(l_N).mean(),
        "importance_sampling_ratio/max": np.exp(l_N).max(),
    }.items():
        np.testing.assert_allclose(metrics[f"sampling/{name}"], want, rtol=1e-5, err_msg=name)


def test_without_an_old_policy_agreement_is_that_of_the_trained_one(built):
    settings = rl_batch.settings_of("grpo")
    model, params = built
    trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS["grpo"], settings)
    how = {"temperature": TEMPERATURE, "vocab": VOCAB}
    loss, totals = losses.policy(model, ALGORITHMS["grpo"], settings, **how)
    scores = rl_batch.score(model, trainable, frozen, rl_batch.to_rollout(batch), False)
    run = jax.jit(lambda b: loss(trainable, frozen, b, totals(b), jax.random.key(0)))
    (absent, got), (given, want) = (
        run(batch.replace(old_logp_BR=old)) for old in (None, scores.logp_BR)
    )
    np.testing.assert_allclose(absent, given, rtol=1e-5)
    assert set(got) == set(want) and got["sampling/sampling_logp_difference/mean"] > 0
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_score_policy_gives_what_is_asked(built):
    model, params = built
    trainable, frozen = states.split(params, "lora")
    _, _, batch = rl_batch.make(model, params, ALGORITHMS["grpo"], rl_batch.settings_of("grpo"))
    rollout = rl_batch.to_rollout(batch)
    how = {"temperature": TEMPERATURE, "vocab": VOCAB, "values": False}
    plain = jax.jit(lambda t: losses.score_policy(model, t, frozen, rollout, **how))(trainable)
    both = rl_batch.score(model, trainable, frozen, rollout, False)
    assert plain[1:] == (None, None, None) and both[2:] == (None, None)
    np.testing.assert_allclose(plain.logp_BR, both.logp_BR, atol=1e-6)
    assert plain.logp_BR.shape == both.entropy_BR.shape == (8, 5)


def test_a_scorer_takes_few_rows_at_a_time(built, monkeypatch):
    model, params = built
    trainable, frozen = states.split(params, "lora")
    _, _, batch = rl_batch.make(model, params, ALGORITHMS["ppo"], rl_batch.settings_of("ppo"))
    rollout = rl_batch.to_rollout(batch)
    how = {"temperature": TEMPERATURE, "vocab": VOCAB, "values": True, "entropy": True}
    trainable = states.with_value_head(trainable, model.config.hidden_size)
    score = losses.policy_scorer.__wrapped__
    whole = score(None, model, **how)(trainable, frozen, rollout)
    monkeypatch.setattr(response, "PART_TOKENS", 3 * rollout.tokens_BT.shape[1])
    parts = score(None, model, **how)
    assert parts.lower(trainable, frozen, rollout).as_text().count("stablehlo.while") == 1
    for got, want in zip(parts(trainable, frozen, rollout), whole, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
