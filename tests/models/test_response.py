import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.models import response
from distill_jax.models.response import in_parts, response_scores
from tests import tiny
from tests.tiny import VOCAB

# Prompts of 3, 1 and 2 tokens; answers of 4, 2 and 5; then padding to 8.
TOKENS = np.zeros((3, 8), np.int32)
PROMPT, ANSWER = np.array([3, 1, 2], np.int32), np.array([4, 2, 5], np.int32)
for row in range(3):
    n = PROMPT[row] + ANSWER[row]
    TOKENS[row, :n] = np.random.default_rng(row).integers(1, VOCAB, n)
TARGETS = np.zeros((3, 6), np.int32)
for row in range(3):
    TARGETS[row, : ANSWER[row]] = TOKENS[row, PROMPT[row] :][: ANSWER[row]]


@functools.partial(jax.jit, static_argnums=(0, 4))
def program(model, params, tokens, targets, how):
    return response_scores(model, params, tokens, PROMPT, targets, vocab=VOCAB, **dict(how))


def scores(model, params, tokens=TOKENS, targets=TARGETS, **how):
    return program(model, params, tokens, targets, tuple(how.items()))


def test_scores_equal_the_naive_formula():
    model, params = tiny.build()
    got = scores(model, params, temperature=0.7, alphas=(1.0, 2.5), entropy=True)
    for row in range(3):
        p, n = PROMPT[row], ANSWER[row]
        # Row i of the logits scores token i + 1: the first answer token stands at p.
        logits = tiny.naive_logits(model, params, TOKENS[row, : p + n])[p - 1 : -1]
        chosen = TARGETS[row, :n]
        logp = tiny.log_softmax(logits / 0.7)
        at = (np.arange(n), chosen)
        np.testing.assert_allclose(got.logit_BR[row, :n], logits[at], atol=1e-5)
        np.testing.assert_allclose(got.logp_BR[row, :n], logp[at], atol=1e-5)
        entropy = -(np.exp(logp) * logp).sum(axis=1)
        np.testing.assert_allclose(got.entropy_BR[row, :n], entropy, atol=1e-5)
        for i, alpha in enumerate((1.0, 2.5)):
            value = alpha * np.log(np.exp(logits / alpha).sum(axis=1))
            np.testing.assert_allclose(got.value_ABR[i, row, :n], value, atol=1e-5)


def test_a_score_does_not_look_at_its_own_token_or_later_ones():
    model, params = tiny.build()
    before = jax.tree.map(np.asarray, scores(model, params, alphas=(1.0,)))
    t = 2  # of rows 0 and 2
    tokens, targets = TOKENS.copy(), TARGETS.copy()
    for row in (0, 2):
        tokens[row, PROMPT[row] + t] = targets[row, t] = 1 + TARGETS[row, t] % (VOCAB - 1)
    after = jax.tree.map(np.asarray, scores(model, params, tokens, targets, alphas=(1.0,)))
    # The state before token t is the same, and so is every score before it ...
    np.testing.assert_array_equal(before.value_ABR[0][:, : t + 1], after.value_ABR[0][:, : t + 1])
    np.testing.assert_array_equal(before.logp_BR[:, :t], after.logp_BR[:, :t])
    # ... its own score is that of another token, and the next state is another.
    assert np.all(before.logp_BR[[0, 2], t] != after.logp_BR[[0, 2], t])
    assert np.all(before.value_ABR[0][[0, 2], t + 1] != after.value_ABR[0][[0, 2], t + 1])


def test_padding_has_no_influence_and_no_gradient_reaches_it():
    model, params = tiny.build()
    other = TOKENS.copy()
    mask = np.arange(6)[None] < ANSWER[:, None]
    for row in range(3):
        other[row, PROMPT[row] + ANSWER[row] :] = 7
    one, two = scores(model, params), scores(model, params, other)
    np.testing.assert_array_equal(np.asarray(one.logp_BR)[mask], np.asarray(two.logp_BR)[mask])

    def loss(lora, tokens):
        found = scores(model, {"base": params["base"], "lora": lora}, tokens)
        return jnp.sum(jnp.where(mask, found.logp_BR, 0.0))

    slope = jax.jit(jax.grad(loss))
    grads = [jax.tree.map(np.asarray, slope(params["lora"], x)) for x in (TOKENS, other)]
    jax.tree.map(np.testing.assert_array_equal, *grads)
    assert all(np.all(np.isfinite(g)) and np.any(g) for g in jax.tree.leaves(grads[0]))


def test_gradient_equals_finite_differences():
    model, params = tiny.build()
    mask = np.arange(6)[None] < ANSWER[:, None]
    direction = jax.tree.map(
        lambda x: np.random.default_rng(x.size).standard_normal(x.shape).astype(np.float32),
        params["lora"],
    )

    @jax.jit
    @jax.value_and_grad
    def along(size):
        lora = jax.tree.map(lambda x, d: x + size * d, params["lora"], direction)
        found = scores(model, {"base": params["base"], "lora": lora})
        return jnp.sum(jnp.where(mask, found.logp_BR, 0.0))

    slope = float(along(0.0)[1])
    numeric = float(along(3e-3)[0] - along(-3e-3)[0]) / 6e-3
    np.testing.assert_allclose(slope, numeric, rtol=2e-2)


@pytest.mark.parametrize(
    ("rows", "shards", "tokens", "part"),
    [
        (12, 1, 24, 12),  # exactly as many as are allowed: whole
        (12, 1, 23, 6),  # 11 rows: two parts
        (12, 2, 4, 4),  # two rows of each device
        (11, 1, 6, 3),  # no number near divides 11: the last part is padded
        (3, 1, 1, 1),  # a row is longer than a part: one at a time
    ],
)
def test_a_call_takes_its_rows_in_parts(monkeypatch, rows, shards, tokens, part):
    monkeypatch.setattr(response, "PART_TOKENS", tokens)
    seen, x_B2 = set(), np.arange(2.0 * rows).reshape(rows, 2)

    def score(batch):
        seen.add(batch["x"].shape)
        return {"sum": batch["x"].sum(axis=1), "twice": 2 * batch["x"], "none": None}

    got = jax.jit(lambda batch: in_parts(score, batch, 2, shards))({"x": x_B2})
    assert seen == {(part, 2)}
    np.testing.assert_array_equal(got["sum"], x_B2.sum(axis=1))
    np.testing.assert_array_equal(got["twice"], 2 * x_B2)
