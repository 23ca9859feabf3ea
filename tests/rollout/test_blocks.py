"""Heads of large vocabularies come in blocks: the same draws, and none of padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.models.head.chunks import NEVER
from distill_jax.rollout import sampler, weights
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from distill_jax.rollout.sampling import draw
from distill_jax.rollout.weights import blocks, decode_weights, head_rows
from tests import tiny
from tests.tiny import EOS, PAD, VOCAB

OFF = dict(temperature=1.0, top_k=0, top_p=1.0)


def test_blocks_are_near_a_square_of_lanes():
    assert blocks(151_665) == blocks(151_669) == (395, 384)  # Qwen2.5, Qwen3; 1185 = 3·395 lanes
    assert blocks(151_936) == (1187, 128)  # 1187 is a prime
    assert blocks(2**14 - 1) == (1, 2**14 - 1)
    for vocab in (2**14, 32_000, 49_152, 128_256, 152_064):
        R, W = blocks(vocab)
        assert 0 <= R * W - vocab < 128 == W // (W // 128) and R > 1


@pytest.mark.parametrize(
    "how",
    [
        OFF,
        {**OFF, "temperature": 0.6},
        {**OFF, "temperature": 0.0},
        {**OFF, "top_k": 4},
        {**OFF, "top_k": 18},  # all that exist
        {**OFF, "top_p": 0.8},
    ],
    ids=["plain", "cold", "greedy", "top_k", "all", "top_p"],
)
def test_a_draw_from_blocks_is_that_from_a_row(how):
    V, R, W, N = 18, 5, 4, 4096
    rng = np.random.default_rng(2)
    logits_NV = np.round(rng.normal(size=(N, V)), 1).astype(np.float32)  # with ties
    logits_NRW = np.pad(logits_NV, ((0, 0), (0, 2)), constant_values=NEVER).reshape(N, R, W)
    uniform_N = rng.random(N).astype(np.float32)
    run = jax.jit(lambda x, u: draw(x, u, **how))
    got, want = run(logits_NRW, uniform_N), run(logits_NV, uniform_N)
    np.testing.assert_array_equal(got.token_B, want.token_B)
    np.testing.assert_allclose(got.logp_B, want.logp_B, atol=2e-6)


def test_nothing_but_tokens_is_drawn_from_the_last_block():
    logits_RW = np.full((1, 5, 4), NEVER, np.float32)
    logits_RW[0, 4, 1] = 0.0
    for u in (0.0, 0.5, 1 - 2**-24):
        assert draw(jnp.asarray(logits_RW), jnp.float32([u]), **OFF).token_B.tolist() == [17]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_sampler_draws_the_same_from_a_head_in_blocks(monkeypatch, temperature):
    model, params = tiny.build()
    how = SamplingSettings(temperature=temperature, max_new_tokens=6, segment=3, prompt_multiple=4)

    def drawn():
        made = Sampler(model, tiny.mesh(), eos_id=EOS, pad_id=PAD, vocab=VOCAB - 1)
        held = made.weights(params, how)
        out = made.generate(
            held, [[3, 9, 4], [7]], how, key=jax.random.key(1), prompt_ids=[0, 1], samples=4
        )
        return held, out

    _, want = drawn()
    # Not the jitted function: it keeps its program.
    monkeypatch.setattr(sampler, "decode_weights", decode_weights.__wrapped__)
    monkeypatch.setattr(weights, "BLOCKED_FROM", 1)
    monkeypatch.setattr(weights, "_LANES", 4)
    held, got = drawn()
    assert held["head_RWD"].shape == (5, 4, 16) and int(held["vocab"]) == 19
    assert not np.asarray(head_rows(held))[19:].any()
    np.testing.assert_array_equal(got.tokens_BR, want.tokens_BR)
    np.testing.assert_allclose(got.behaviour_logp_BR, want.behaviour_logp_BR, atol=1e-5)
