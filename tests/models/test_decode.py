import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.models import cache as kv
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.rope_scaling import YarnConfig
from tests import tiny

pytestmark = pytest.mark.slow

BASE = dict(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=40,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
)
MIXED = ("sliding_attention", "full_attention")
CONFIGS = {
    "qwen2": QwenConfig("qwen2", **BASE),
    "qwen3": QwenConfig("qwen3", **BASE, qkv_bias=False, qk_norm=True, tie_embeddings=False),
    "windowed-yarn": QwenConfig(
        "qwen2", **BASE, sliding_window=5, layer_types=MIXED, rope_scaling=YarnConfig(4.0, 16)
    ),
}
LENGTHS = np.array([6, 2, 4])  # prompts, padded to 6 slots
NEW = 7


@functools.cache
def build(config, **other):
    model = QwenModel(config, LoraConfig(rank=2), **other)
    return model, tiny.weights(model, noise=0.05)


expand = jax.jit(kv.expand, static_argnums=(1, 2))
# One program for each model and shape, whichever test asks.
prefill = jax.jit(lambda model, *args: model.prefill(*args), static_argnums=0)
decode = jax.jit(lambda model, *args: model.decode(*args), static_argnums=0)
whole = jax.jit(lambda model, *args: model.hidden(*args), static_argnums=0)
decode_params = jax.jit(
    lambda model, params, merge_lora=True: model.decode_params(params, merge_lora),
    static_argnums=(0, 2),
)


def decoded(model, weights, prompts, continuations, lengths):
    """Hidden states [B, 1 + NEW, D]: after the prompt, then after every further token."""
    slots = prompts.shape[1] + NEW
    hidden, cache = prefill(model, weights, prompts, lengths)
    cache = expand(cache, 1, slots)
    slot = np.arange(slots)[None]
    position = np.where(slot < lengths[:, None], slot, -1)
    states = [hidden]
    for i in range(NEW):
        at = prompts.shape[1] + i
        position[:, at] = lengths + i
        hidden, cache = decode(
            model, weights, continuations[:, i], lengths + i, cache, at, position.copy()
        )
        states.append(hidden)
    return np.stack(states, axis=1)


@pytest.mark.parametrize(
    "name, merge_lora", [("qwen2", True), ("qwen3", False), ("windowed-yarn", True)]
)
def test_decode_equals_the_full_forward(name, merge_lora):
    model, params = build(CONFIGS[name])
    text = np.random.default_rng(2).integers(1, 48, (3, 6 + NEW)).astype(np.int32)
    prompts, continuations = np.zeros((3, 6), np.int32), np.zeros((3, NEW), np.int32)
    for row, n in enumerate(LENGTHS):
        prompts[row, :n] = text[row, :n]
        continuations[row] = text[row, n : n + NEW]
    weights = decode_params(model, params, merge_lora)
    got = decoded(model, weights, prompts, continuations, LENGTHS)
    full = np.asarray(whole(model, params, text))
    for row, n in enumerate(LENGTHS):
        np.testing.assert_allclose(got[row], full[row, n - 1 : n + NEW], atol=1e-5)


def test_unfused_weights_decode_the_same():
    model, params = build(CONFIGS["qwen2"])
    other = model.replace(fuse=False)
    prompts, split = np.ones((3, 6), np.int32), decode_params(other, params)
    one, _ = prefill(model, decode_params(model, params), prompts, LENGTHS)
    two, _ = prefill(other, split, prompts, LENGTHS)
    assert len(split["layers"][0]["qkv"]) == 3
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_decode_params_leave_the_tree_alone_and_work_without_lora():
    model, params = build(CONFIGS["qwen2"])

    def merge(params):
        before = jax.tree.flatten(params)
        merged = model.decode_params(params)
        assert jax.tree.flatten(params) == before, "it changed what it was given"
        return merged

    merged = jax.eval_shape(merge, params)
    assert not any("lora_A" in p for layer in merged["layers"] for p in layer["qkv"])
    plain = model.replace(lora=None)
    weights = decode_params(plain, {"base": params["base"], "lora": {}})
    assert len(weights["layers"]) == 2
    kernel = weights["layers"][1]["down"][0]["kernel"]
    want = params["base"]["layers"]["mlp"]["down_proj"]["kernel"][1]
    np.testing.assert_array_equal(kernel, want)


def test_cache_rows_and_slots():
    k, v = (np.arange(2 * 3.0).reshape(2, 1, *shape) for shape in ((1, 3), (3, 1)))
    cache = kv.KVCache((k,), (v,))
    assert cache.num_slots == 3
    grown = expand(cache, 2, 5)
    want = [[0, 1, 2, 0, 0], [0, 1, 2, 0, 0], [3, 4, 5, 0, 0], [3, 4, 5, 0, 0]]
    np.testing.assert_array_equal(grown.k[0][:, 0, 0], want)
    np.testing.assert_array_equal(grown.v[0][:, 0, :, 0], want)


def test_a_step_writes_one_slot_and_reads_only_what_it_may():
    model, params = build(CONFIGS["qwen2"])
    weights = decode_params(model, params)
    _, cache = prefill(model, weights, np.ones((3, 6), np.int32), LENGTHS)
    # Writable, of the shape that the other tests decode.
    cache = jax.tree.map(np.array, expand(cache, 1, 6 + NEW))
    hole = [0, 1, 2, -1, 3, -1, 9] + [-1] * 6  # a hole, the new one, one of the future
    args = (np.full(3, 5, np.int32), np.full(3, 3))
    hidden, after = decode(model, weights, *args, cache, 4, np.array([hole] * 3))
    dirty, beyond = jax.tree.map(np.copy, cache), [3, *range(5, 13)]
    for k, v in zip(dirty.k, dirty.v, strict=True):
        k[..., beyond] = v[:, :, beyond] = 1e4
    got = decode(model, weights, *args, dirty, 4, np.array([hole] * 3))[0]
    np.testing.assert_array_equal(got, hidden)
    untouched = np.delete(np.arange(13), 4)
    after = jax.tree.map(np.asarray, after)
    np.testing.assert_array_equal(after.k[0][..., untouched], cache.k[0][..., untouched])
    assert np.abs(after.v[1][:, :, 4]).max() > 0


def test_bfloat16_cache_and_hidden():
    model, params = build(CONFIGS["qwen2"], compute_dtype=jnp.bfloat16)
    weights = jax.eval_shape(model.decode_params, params)
    prompts, lengths = np.ones((2, 4), np.int32), np.array([4, 2])
    hidden, cache = jax.eval_shape(model.prefill, weights, prompts, lengths)
    assert hidden.dtype == cache.k[0].dtype == cache.v[0].dtype == jnp.bfloat16
    cache = jax.eval_shape(lambda x: kv.expand(x, 3, 6), cache)
    tokens = np.ones(6, np.int32)
    position = np.tile(np.array([[0, 1, -1, -1, 2, -1]]), (6, 1))
    hidden, after = jax.eval_shape(
        model.decode, weights, tokens, 2 * tokens, cache, np.int32(4), position
    )
    assert hidden.shape == (6, 32) and hidden.dtype == jnp.bfloat16
    assert after.k[0].shape == (6, 2, 8, 6) and after.v[0].shape == (6, 2, 6, 8)
