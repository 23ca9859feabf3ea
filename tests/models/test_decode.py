import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.models import cache as kv
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig, YarnConfig

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
    params = model.init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return model, jax.tree.unflatten(tree, leaves)


def decoded(model, weights, prompts, continuations, lengths):
    """Hidden states [B, 1 + NEW, D]: after the prompt, then after every further token."""
    slots = prompts.shape[1] + NEW
    hidden, cache = jax.jit(model.prefill)(weights, prompts, lengths)
    cache = kv.expand(cache, 1, slots)
    slot = np.arange(slots)[None]
    position = np.where(slot < lengths[:, None], slot, -1)
    step, states = jax.jit(model.decode), [hidden]
    for i in range(NEW):
        at = prompts.shape[1] + i
        position[:, at] = lengths + i
        hidden, cache = step(
            weights, continuations[:, i], jnp.asarray(lengths + i), cache, at, jnp.array(position)
        )
        states.append(hidden)
    return jnp.stack(states, axis=1)


@pytest.mark.parametrize("merge_lora", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_decode_equals_the_full_forward(name, merge_lora):
    model, params = build(CONFIGS[name])
    text = np.asarray(jax.random.randint(jax.random.key(2), (3, 6 + NEW), 1, 48))
    prompts, continuations = np.zeros((3, 6), np.int32), np.zeros((3, NEW), np.int32)
    for row, n in enumerate(LENGTHS):
        prompts[row, :n] = text[row, :n]
        continuations[row] = text[row, n : n + NEW]
    weights = jax.jit(model.decode_params, static_argnums=1)(params, merge_lora)
    got = decoded(model, weights, jnp.asarray(prompts), jnp.asarray(continuations), LENGTHS)
    full = jax.jit(model.hidden)(params, jnp.asarray(text))
    for row, n in enumerate(LENGTHS):
        np.testing.assert_allclose(got[row], full[row, n - 1 : n + NEW], atol=1e-5)


def test_unfused_weights_decode_the_same():
    model, params = build(CONFIGS["qwen3"])
    other = model.replace(fuse=False)
    prompts = jnp.ones((2, 6), jnp.int32)
    one, _ = jax.jit(model.prefill)(model.decode_params(params), prompts, jnp.array([6, 3]))
    two, _ = jax.jit(other.prefill)(other.decode_params(params), prompts, jnp.array([6, 3]))
    assert len(other.decode_params(params)["layers"][0]["qkv"]) == 3
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_decode_params_leave_the_tree_alone_and_work_without_lora():
    model, params = build(CONFIGS["qwen2"])
    before = jax.tree.map(np.array, params)
    merged = model.decode_params(params)
    jax.tree.map(np.testing.assert_array_equal, before, params)
    assert not any("lora_A" in p for layer in merged["layers"] for p in layer["qkv"])
    plain = model.replace(lora=None)
    weights = plain.decode_params({"base": params["base"], "lora": {}})
    assert len(weights["layers"]) == 2
    kernel = weights["layers"][1]["down"][0]["kernel"]
    want = params["base"]["layers"]["mlp"]["down_proj"]["kernel"][1]
    np.testing.assert_array_equal(kernel, want)


def test_cache_rows_and_slots():
    k, v = jnp.arange(2 * 3.0).reshape(2, 1, 1, 3), jnp.arange(2 * 3.0).reshape(2, 1, 3, 1)
    cache = kv.KVCache((k,), (v,))
    assert cache.num_slots == 3
    grown = kv.expand(cache, 2, 5)
    want = [[0, 1, 2, 0, 0], [0, 1, 2, 0, 0], [3, 4, 5, 0, 0], [3, 4, 5, 0, 0]]
    np.testing.assert_array_equal(grown.k[0][:, 0, 0], want)
    np.testing.assert_array_equal(grown.v[0][:, 0, :, 0], want)


def test_a_step_writes_one_slot_and_reads_only_what_it_may():
    model, params = build(CONFIGS["qwen2"])
    weights = model.decode_params(params)
    _, cache = jax.jit(model.prefill)(weights, jnp.ones((1, 4), jnp.int32), jnp.array([4]))
    cache = kv.expand(cache, 1, 8)
    position = jnp.array([[0, 1, 2, -1, 3, -1, 9, -1]])  # a hole, the new one, one of the future
    args = (jnp.array([5]), jnp.array([3]))
    hidden, after = jax.jit(model.decode)(weights, *args, cache, 4, position)
    dirty = kv.KVCache(
        tuple(k.at[..., jnp.array([3, 5, 6, 7])].set(1e4) for k in cache.k),
        tuple(v.at[:, :, jnp.array([3, 5, 6, 7])].set(1e4) for v in cache.v),
    )
    np.testing.assert_array_equal(
        jax.jit(model.decode)(weights, *args, dirty, 4, position)[0], hidden
    )
    untouched = np.array([0, 1, 2, 3, 5, 6, 7])
    np.testing.assert_array_equal(after.k[0][..., untouched], cache.k[0][..., untouched])
    assert float(jnp.abs(after.v[1][:, :, 4]).max()) > 0


def test_bfloat16_cache_and_hidden():
    model, params = build(CONFIGS["qwen2"], compute_dtype=jnp.bfloat16)
    weights = model.decode_params(params)
    hidden, cache = jax.jit(model.prefill)(weights, jnp.ones((2, 4), jnp.int32), jnp.array([4, 2]))
    assert hidden.dtype == cache.k[0].dtype == cache.v[0].dtype == jnp.bfloat16
    cache = kv.expand(cache, 3, 6)
    position = jnp.tile(jnp.array([[0, 1, -1, -1, 2, -1]]), (6, 1))
    hidden, after = jax.jit(model.decode)(
        weights, jnp.ones(6, jnp.int32), jnp.full(6, 2), cache, jnp.int32(4), position
    )
    assert hidden.shape == (6, 32) and hidden.dtype == jnp.bfloat16
    assert after.k[0].shape == (6, 2, 8, 6) and after.v[0].shape == (6, 2, 6, 8)
