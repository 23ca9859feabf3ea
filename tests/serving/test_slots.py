"""Rows that begin and end at any time draw what the rollout's sampler draws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core import rng
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.rollout.sampling import draw, draw_rows
from distill_jax.serving.slots import Decoding, Slots, widths
from tests import tiny
from tests.rollout.test_sampler import make

pytestmark = pytest.mark.slow

NEW, STEPS = 12, 4
PROMPTS = [[3, 9, 4, 11, 2], [7], [12, 3, 3, 8], [6, 14], list(range(6, 20)) * 5]
HOWS = [
    Decoding(temperature=0.0),
    Decoding(temperature=1.0, seed=5),
    Decoding(temperature=0.7, top_p=0.8, seed=6, number=1),
    Decoding(temperature=1.3, top_k=4, seed=5),
    Decoding(temperature=1.0, top_k=6, top_p=0.9, seed=9, number=2),
]


@pytest.fixture(scope="module")
def built():
    config = dataclasses.replace(
        tiny.CONFIG, max_position_embeddings=256, sliding_window=6,
        layer_types=("full_attention", "sliding_attention"),
    )  # fmt: skip
    model, params = tiny.build(config)
    sampler = make(model, eos=-1)  # nothing ends a row: every token counts
    return sampler, sampler.weights(params, SamplingSettings())


def by_sampler(built, prompt, how):
    """The tokens of the rollout's sampler with a request's settings."""
    sampler, weights = built
    settings = SamplingSettings(
        temperature=how.temperature, top_p=how.top_p, top_k=how.top_k, max_new_tokens=NEW,
        segment=STEPS,
    )  # fmt: skip
    out = sampler.generate(
        weights, [prompt], settings, key=rng.run_key(how.seed), prompt_ids=[0], firsts=[how.number]
    )
    return out.tokens_BR[0].tolist()


def slots_of(built, rows=3):
    sampler, weights = built
    longest = max(map(len, PROMPTS))
    model = sampler.programs.model
    return Slots(model, weights, rows=rows, prompt=longest, new=NEW, steps=STEPS)


def test_requests_that_come_and_go_draw_what_the_sampler_draws(built):
    """Five requests in three rows, each begun at another step: the ring goes round twice."""
    slots, waiting = slots_of(built), list(range(5))
    drawn = {number: [] for number in waiting}
    rows, segments = {}, 0
    while waiting or rows:
        if waiting and slots.free and segments % 2 == 0:
            number, row = waiting.pop(0), slots.free[0]
            slots.begin([row], PROMPTS[number], [HOWS[number]])
            rows[row] = number
        tokens_BN, logp_BN = slots.segment()
        segments += 1
        assert np.all(logp_BN[list(rows)] <= 0)
        for row, number in list(rows.items()):
            drawn[number] += tokens_BN[row].tolist()
            if len(drawn[number]) == NEW:
                slots.end(row)
                del rows[row]
    assert segments * STEPS >= 2 * NEW
    for number, prompt in enumerate(PROMPTS):
        assert drawn[number] == by_sampler(built, prompt, HOWS[number]), number


def test_samples_of_one_prompt_are_those_of_the_sampler(built):
    sampler, weights = built
    slots = slots_of(built)
    hows = [Decoding(seed=3, number=n) for n in range(3)]
    slots.begin([2, 0, 1], PROMPTS[0], hows)
    parts = [slots.segment()[0] for _ in range(NEW // STEPS)]
    got_BN = np.concatenate(parts, axis=1)[[2, 0, 1]]
    settings = SamplingSettings(max_new_tokens=NEW, segment=STEPS)
    out = sampler.generate(
        weights, [PROMPTS[0]], settings, key=rng.run_key(3), prompt_ids=[0], samples=3
    )
    np.testing.assert_array_equal(got_BN, out.tokens_BR)


def test_a_row_keeps_nothing_of_the_request_before(built):
    """A NaN in the values of a slot would pass a weight of 0."""
    slots = slots_of(built, rows=1)
    cache = slots._state.cache
    broken = cache._replace(v=tuple(one * jnp.nan for one in cache.v))
    slots._state = slots._state._replace(cache=broken)
    slots.begin([0], PROMPTS[0], [HOWS[0]])
    drawn = [token for _ in range(NEW // STEPS) for token in slots.segment()[0][0].tolist()]
    assert drawn == by_sampler(built, PROMPTS[0], HOWS[0])


def test_few_programs_serve_all_requests(built):
    slots = slots_of(built)
    slots.warm_up()
    programs = (slots._programs.prefill, slots._programs.insert, slots._programs.segment)
    before = [one._cache_size() for one in programs]
    assert slots.widths == (64, 72) and before == [2, 2, 1]
    for prompt, how in zip(PROMPTS, HOWS, strict=True):
        slots.begin(slots.free[:1], prompt, [how])
        slots.segment()
        slots.end(0)
    assert [one._cache_size() for one in programs] == before


def test_widths():
    assert widths(10) == (64,) and widths(64) == (64,)
    assert widths(300) == (64, 128, 256, 304)


def test_rows_with_settings_of_their_own_are_drawn_as_alone():
    logits_BV = jnp.asarray(3 * np.random.default_rng(0).standard_normal((5, 37)), jnp.float32)
    uniform_B = jax.random.uniform(jax.random.key(1), (5,))
    settings = {
        f"{name}_B": jnp.asarray([getattr(one, name) for one in HOWS])
        for name in ("temperature", "top_k", "top_p")
    }
    got = jax.jit(draw_rows)(logits_BV, uniform_B, **settings)
    for row, how in enumerate(HOWS):
        alone = draw(
            logits_BV[row : row + 1], uniform_B[row : row + 1], temperature=how.temperature,
            top_k=how.top_k, top_p=how.top_p,
        )  # fmt: skip
        assert int(got.token_B[row]) == int(alone.token_B[0])
        logp = tiny.log_softmax(logits_BV[row])[int(got.token_B[row])]
        assert abs(float(got.logp_B[row]) - logp) < 1e-5
