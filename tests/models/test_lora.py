import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from distill_jax.core.errors import ConfigError
from distill_jax.models.lora import (
    PROJECTIONS,
    Linear,
    LoraConfig,
    join_adapters,
    merge,
    merged_matmul,
    project,
)
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from tests import tiny

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

CONFIG = QwenConfig("qwen2", 48, 32, 40, 2, 4, 2, 8)
TOKENS = np.random.default_rng(2).integers(0, 48, (3, 12)).astype(np.int32)
# One program for each model and shape, whichever test asks.
run_hidden = jax.jit(
    lambda model, params, tokens_BT, **how: model.hidden(params, tokens_BT, **how), static_argnums=0
)


@functools.cache
def build(lora, noise=0.1):
    """With B away from zero, or without noise as freshly drawn."""
    model = QwenModel(CONFIG, lora)
    return model, {
        **tiny.weights(model, noise=0.0),
        "lora": tiny.weights(model, noise=noise)["lora"],
    }


def test_a_new_adapter_changes_nothing():
    model, params = build(LoraConfig(), noise=0.0)
    plain = run_hidden(model.replace(lora=None), {"base": params["base"], "lora": {}}, TOKENS)
    np.testing.assert_array_equal(run_hidden(model, params, TOKENS), plain)


@pytest.mark.parametrize("targets", [PROJECTIONS, ("q_proj", "v_proj"), ("k_proj", "down_proj")])
def test_merged_base_equals_the_adapter(targets):
    lora = LoraConfig(rank=3, alpha=5.0, targets=targets)
    model, params = build(lora)

    @jax.jit
    def added(params):
        before = jax.tree.flatten(params)
        merged = merge(params["base"], params["lora"], lora.scale)
        assert jax.tree.flatten(params) == before, "it changed what it was given"
        return merged

    merged = added(params)
    plain = model.replace(lora=None)
    got = run_hidden(plain, {"base": merged, "lora": {}}, TOKENS)
    np.testing.assert_allclose(got, run_hidden(model, params, TOKENS), atol=1e-5)
    bare = run_hidden(plain, {"base": params["base"], "lora": {}}, TOKENS)
    assert np.abs(got - np.asarray(bare)).max() > 1e-3


def test_merge_by_hand():
    base = {"layers": {"mlp": {"up_proj": {"kernel": jnp.array([[[1.0, 2.0]]])}}}, "norm": 7}
    lora = {"lora_A": jnp.array([[[3.0]]]), "lora_B": jnp.array([[[1.0, -1.0]]])}
    merged = merge(base, {"layers": {"mlp": {"up_proj": lora}}}, 2.0)
    # [1, 2] + 2·3·[1, −1] = [7, −4]
    assert merged["layers"]["mlp"]["up_proj"]["kernel"].tolist() == [[[7.0, -4.0]]]
    assert merged["norm"] == 7


def test_the_adapter_is_scaled_by_alpha_over_rank():
    assert LoraConfig(rank=4, alpha=8.0).scale == 2.0
    assert LoraConfig(rank=4, alpha=8.0, use_rslora=True).scale == 4.0  # 8/√4


def test_merged_matmul_has_the_gradients_of_its_formula():
    rng, shapes = np.random.default_rng(0), [(7, 4), (4, 6), (4, 2), (2, 6), (7, 6)]
    *args, weight = (rng.standard_normal(s, np.float32) for s in shapes)

    def plain(x, kernel, a, b):
        return x @ kernel + (x @ a) @ b

    @jax.jit
    def run(*args):
        both = (merged_matmul, plain)
        of = [jax.grad(lambda *z, f=f: jnp.sum(f(*z) * weight), (0, 1, 2, 3)) for f in both]
        return [(f(*args), *grad(*args)) for f, grad in zip(both, of, strict=True)]

    for g, w in zip(*run(*args), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)


def test_joined_adapters_are_block_diagonal():
    a, b = np.ones((3, 1)), np.array([[1.0, 2.0]])
    join = jax.jit(lambda a, b: join_adapters([(a, b), None, (2 * a, 3 * b)], [2, 1, 2]))
    left, right = join(a, b)
    np.testing.assert_array_equal(left, [[1, 2]] * 3)
    np.testing.assert_array_equal(right, [[1, 2, 0, 0, 0], [0, 0, 0, 3, 6]])


def test_few_and_many_tokens_take_two_ways_to_one_result():
    # 2·12 = 24 < 32 inputs: adapter beside the kernel; 36 tokens: kernel with the adapter added.
    model, params = build(LoraConfig())
    together = run_hidden(model, params, TOKENS)
    alone = run_hidden(model, params, TOKENS[:1])
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)


def _loss(model, dropout_key=None):
    def loss(lora, base):
        hidden = model.hidden({"base": base, "lora": lora}, TOKENS, dropout_key=dropout_key)
        return jnp.mean(jnp.square(hidden - 1.0))

    return loss


def test_base_is_frozen_bit_for_bit_and_the_adapter_learns():
    # Scanned layers have the same gradients (test_qwen.py).
    model, params = build(LoraConfig(rank=2), noise=0.0)
    before = jax.tree.map(np.array, params)
    optimizer = optax.adamw(1e-2)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(_loss(model))(params["lora"], params["base"])
        updates, state = optimizer.update(grads, state, params["lora"])
        return {**params, "lora": optax.apply_updates(params["lora"], updates)}, state, value

    state, losses = jax.jit(optimizer.init)(params["lora"]), []
    for _ in range(5):
        params, state, value = step(params, state)
        losses.append(float(value))
    jax.tree.map(np.testing.assert_array_equal, before["base"], params["base"])
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != np.asarray(b))), before["lora"], params["lora"]
    )
    assert all(jax.tree.leaves(moved))
    assert losses[-1] < losses[0]
    sizes = {x.shape for x in jax.tree.leaves(state)} - {()}
    assert sizes == {x.shape for x in jax.tree.leaves(params["lora"])}


def test_frozen_base_costs_no_gradient():
    # The gradient of an up_proj kernel would be the only product [tokens, 32]ᵀ·[tokens, 80].
    model, params = build(LoraConfig(rank=2))
    flops = {}
    for name, wrt in (("lora", 0), ("both", (0, 1))):
        step = jax.jit(jax.grad(_loss(model), argnums=wrt))
        flops[name] = step.lower(params["lora"], params["base"]).cost_analysis()["flops"]
    forward = jax.jit(_loss(model)).lower(params["lora"], params["base"])
    forward_flops = forward.cost_analysis()["flops"]
    assert flops["lora"] < 0.85 * flops["both"]
    assert flops["lora"] < 2.8 * forward_flops


def test_dropout_acts_and_is_keyed():
    # Of the projections that are joined, two with an adapter.
    lora = LoraConfig(dropout=0.5, targets=("q_proj", "v_proj", "down_proj"))
    model, params = build(lora)
    clean = run_hidden(model, params, TOKENS)
    one, same, other = (
        np.asarray(run_hidden(model, params, TOKENS, dropout_key=jax.random.key(s)))
        for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - clean).max() > 1e-3
    assert np.abs(one - other).max() > 1e-3
    scanned = model.replace(unroll=False, remat=True)
    got = run_hidden(scanned, params, TOKENS, dropout_key=jax.random.key(0))
    np.testing.assert_allclose(got, one, atol=1e-5)


def test_dropout_keeps_the_mean():
    # One adapter in one layer is linear in its dropped input: the mean over keys is the clean one.
    model, params = build(LoraConfig(dropout=0.3, targets=("o_proj",)), noise=0.05)
    linear = lambda key: model.hidden(params, TOKENS, dropout_key=key)  # noqa: E731
    mean = jax.jit(lambda: jax.vmap(linear)(jax.random.split(jax.random.key(0), 128)).mean(0))()
    clean = run_hidden(model, params, TOKENS)
    bare = run_hidden(model.replace(lora=None), {"base": params["base"], "lora": {}}, TOKENS)
    mean, clean, bare = map(np.asarray, (mean, clean, bare))
    assert np.abs(mean - clean).mean() < 0.2 * np.abs(bare - clean).mean()


def test_each_adapter_drops_entries_of_its_own():
    # Kernels are 0 and adapters the identity, so that an output is the dropped input.
    lora, one = LoraConfig(rank=16, alpha=16.0, dropout=0.25), np.eye(16, dtype=np.float32)
    linears = [Linear(name, 16, 16, lora=lora, rngs=nnx.Rngs(0)) for name in PROJECTIONS[:2]]
    for linear in linears:
        linear.kernel[...], linear.lora_A[...], linear.lora_B[...] = 0 * one, one, one

    @functools.partial(jax.jit, static_argnames="fuse")
    def outputs(seed, fuse=True):
        x_NI = jnp.ones((64, 16))
        return project(x_NI, linears, fuse=fuse, dropout_key=jax.random.key(seed))

    found = [np.asarray(y) for seed in (0, 1) for y in outputs(seed)]
    for i, y in enumerate(found):
        np.testing.assert_allclose(np.unique(y), [0, 4 / 3], atol=1e-6)  # x / keep
        assert abs((y > 0).mean() - 0.75) < 0.06
        for other in found[:i]:  # agree as independent ones do: 3/4·3/4 + 1/4·1/4 = .625
            assert abs((y == other).mean() - 0.625) < 0.06
    np.testing.assert_array_equal(outputs(0, fuse=False), found[:2])


def test_dropout_of_zero_ignores_the_key():
    model, params = build(LoraConfig())
    assert model.lora.dropout == 0.0
    got = run_hidden(model, params, TOKENS, dropout_key=jax.random.key(0))
    np.testing.assert_array_equal(got, run_hidden(model, params, TOKENS))


def test_impossible_targets_are_refused():
    with pytest.raises(ConfigError, match="embed_tokens"):
        LoraConfig(targets=("embed_tokens",))
    with pytest.raises(ConfigError, match="targets"):
        LoraConfig(targets=())
