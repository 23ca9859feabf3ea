"""A prompt that passes the layers once gives what it gives in each of its rows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.models import prompt_groups
from distill_jax.models.attention import attention
from distill_jax.models.prompt_groups import Groups, rows_of
from distill_jax.models.response import response_states
from distill_jax.models.splash import Splash
from tests import tiny
from tests.tiny import CONFIG, VOCAB

# Three prompts of 4, 1 and 3 tokens in 4 columns, two responses of up to 5 tokens to each.
LENGTH_P, ANSWER_B = np.array([4, 1, 3], np.int32), np.array([5, 2, 4, 5, 1, 3])
S, G, R = 4, 2, 5
RNG = np.random.default_rng(0)
PROMPTS = np.where(np.arange(S) < LENGTH_P[:, None], RNG.integers(1, VOCAB, (3, S)), 0)
ANSWERS = np.where(np.arange(R) < ANSWER_B[:, None], RNG.integers(1, VOCAB, (6, R)), 0)
MASK = np.arange(R + 1)[None] <= ANSWER_B[:, None]
LENGTH_B = np.repeat(LENGTH_P, G)
ROWS = np.zeros((6, S + R), np.int32)
for b in range(6):
    row = [*PROMPTS[b // G, : LENGTH_B[b]], *ANSWERS[b, : ANSWER_B[b]]]
    ROWS[b, : len(row)] = row
WEIGHT = RNG.normal(size=(6, R + 1, CONFIG.hidden_size)).astype(np.float32) * MASK[:, :, None]


@functools.partial(jax.jit, static_argnums=(0, 3))
def states(model, params, tokens, grouped):
    def total(lora):
        weights = {"base": params["base"], "lora": lora}
        place = Groups(jnp.asarray(LENGTH_P), S, G) if grouped else jnp.asarray(LENGTH_B)
        found = response_states(model, weights, tokens, place, R + 1)
        return jnp.sum(found * WEIGHT), found

    return jax.value_and_grad(total, has_aux=True)(params["lora"])


def both(model, params):
    tokens = rows_of(jnp.asarray(PROMPTS), jnp.asarray(ANSWERS))
    (_, grouped), grad = states(model, params, tokens, True)
    (_, whole), wanted = states(model, params, ROWS, False)
    return (np.asarray(grouped)[MASK], grad), (np.asarray(whole)[MASK], wanted)


WINDOWED = dataclasses.replace(
    CONFIG, sliding_window=3, layer_types=("full_attention", "sliding_attention")
)


@pytest.mark.parametrize("config", [CONFIG, WINDOWED], ids=["full", "windowed"])
@pytest.mark.parametrize("how", ["products", "xla", "scanned", "remat"])
def test_states_and_gradients_equal_those_of_rows(config, how):
    other = {"attention_impl": how} if how in ("products", "xla") else {"unroll": how != "scanned"}
    model, params = tiny.build(config, remat=how == "remat", **other)
    for got, want in zip(*map(jax.tree.leaves, both(model, params)), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5 * np.abs(want).max())


def test_whole_rows_give_the_same(monkeypatch):
    # As kernels without a mask take them: here one of a TPU, interpreted.
    model, params = tiny.build(attention_impl="products")
    wanted = both(model, params)[1]
    lengths, call = set(), Splash.__call__

    def noted(self, q, k, v, segment):
        lengths.add(q.shape[:2])
        return call(self, q, k, v, segment)

    monkeypatch.setattr(Splash, "__call__", noted)
    other = model.replace()  # jit knows a program by its model
    kernel = Splash(tiny.mesh(), interpret=True)
    object.__setattr__(other, "attention_impl", kernel)  # never asked for by a setting
    tokens = rows_of(jnp.asarray(PROMPTS), jnp.asarray(ANSWERS))
    (_, grouped), grad = states(other, params, tokens, True)
    assert lengths == {(6, S + R)}
    got = np.asarray(grouped)[MASK], grad
    for one, want in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
        np.testing.assert_allclose(one, want, rtol=1e-4, atol=1e-4)


def test_padding_and_other_responses_have_no_influence():
    model, params = tiny.build(CONFIG)
    tokens = rows_of(jnp.asarray(PROMPTS), jnp.asarray(ANSWERS))
    (_, before), _ = states(model, params, tokens, True)
    prompts = np.where(np.arange(S) < LENGTH_P[:, None], PROMPTS, 7)
    answers = np.where(np.arange(R) < ANSWER_B[:, None], ANSWERS, 7)
    answers[1] = 9
    (_, after), _ = states(model, params, rows_of(prompts, answers), True)
    kept = MASK & (np.arange(6) != 1)[:, None]
    np.testing.assert_array_equal(np.asarray(before)[kept], np.asarray(after)[kept])


def test_positions_follow_the_prompt():
    found = Groups(jnp.asarray(LENGTH_P), S, G).positions(S + G * R)
    # Prompt columns count from 0; the second prompt has one token, its responses begin at 1.
    np.testing.assert_array_equal(found[1], [0, 1, 2, 3, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5])


def test_a_group_of_one_is_a_row():
    groups, random = Groups(jnp.array([2]), 2, 1), np.random.default_rng(1)
    q, k, v = (random.normal(size=(1, 5, heads, 4)).astype(np.float32) for heads in (4, 2, 2))
    got = prompt_groups.attend(q, k, v, groups=groups)
    np.testing.assert_allclose(got, attention(q, k, v), rtol=1e-6, atol=1e-6)
