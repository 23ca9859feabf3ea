import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.core.sharding import MeshSettings, make_mesh, shardings
from distill_jax.models import qwen, value_head
from distill_jax.models.layers import rope_table
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel, logical_axes
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.released import PRESETS
from distill_jax.models.rope_scaling import YarnConfig
from tests import tiny
from tests.models.parameters import parameter_count

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

QWEN2 = QwenConfig("qwen2", 48, 32, 40, 2, 4, 2, 8)
QWEN3 = QwenConfig(
    "qwen3",
    48,
    32,
    40,
    2,
    4,
    2,
    16,
    qkv_bias=False,
    qk_norm=True,
    tie_embeddings=False,
    rope_scaling=YarnConfig(4.0, 16),
    sliding_window=4,
    layer_types=("full_attention", "sliding_attention"),
)
CONFIGS = {"qwen2": QWEN2, "qwen3-yarn-windowed": QWEN3}


ADAPTER = LoraConfig(rank=2)


@functools.cache
def build(config, lora=ADAPTER, **other):
    model = QwenModel(config, lora, **other)
    return model, tiny.weights(model, noise=0.05)


# One program for each model and shape, whichever test asks.
run_hidden = jax.jit(lambda model, params, tokens_BT: model.hidden(params, tokens_BT),
                     static_argnums=0)  # fmt: skip
TOKENS = np.random.default_rng(2).integers(0, 48, (4, 12)).astype(np.int32)


@pytest.mark.parametrize(
    "config, ways",
    [
        (QWEN2, [{"unroll": False}]),
        (QWEN3, [{"unroll": False, "remat": True, "fuse": False},
                 {"remat": True, "attention_impl": "xla"}]),
    ],
    ids=CONFIGS,
)  # fmt: skip
def test_every_way_to_run_the_layers_gives_the_same(config, ways):
    model, params = build(config)
    weight = np.random.default_rng(3).standard_normal((4, 12, 32)).astype(np.float32)

    def run(model):
        def loss(params):
            hidden = model.hidden(params, TOKENS)
            return jnp.sum(hidden * weight), hidden

        (_, hidden), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return hidden, jax.tree.map(np.asarray, grads)

    want_hidden, want = run(model)
    scale = max(np.abs(g).max() for g in jax.tree.leaves(want))
    for changes in ways:
        hidden, grads = run(model.replace(**changes))
        np.testing.assert_allclose(hidden, want_hidden, atol=2e-5, err_msg=str(changes))
        assert jax.tree.structure(grads) == jax.tree.structure(want)
        for got, expected in zip(jax.tree.leaves(grads), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5 * scale, err_msg=str(changes))


def test_padding_at_the_right_changes_nothing():
    model, params = build(QWEN3)  # a layer that sees all before and one that sees a window
    lengths = [12, 7, 3, 7]
    real = np.arange(12) < np.array(lengths)[:, None]
    got, full = (
        np.asarray(run_hidden(model, params, x)) for x in (np.where(real, TOKENS, 47), TOKENS)
    )
    np.testing.assert_allclose(got[real], full[real], atol=2e-5)
    alone = run_hidden(model, params, TOKENS[[1, 3], :7])
    np.testing.assert_allclose(got[[1, 3], :7], alone, atol=2e-5)
    assert np.isfinite(got).all()


def test_sliding_window_forgets():
    # Two layers that see 4 tokens each: what stands 2·(4−1) = 6 tokens back still reaches a
    # position, what stands 7 back does not.
    config = QwenConfig(
        "qwen2", 48, 32, 40, 2, 4, 2, 8, sliding_window=4, layer_types=("sliding_attention",) * 2
    )
    model, params = build(config, None)
    rows = np.repeat(TOKENS[:1], 3, axis=0)
    rows[[1, 2], [5, 4]] = (rows[0, [5, 4]] + 1) % 48
    last, reach, beyond = np.asarray(run_hidden(model, params, rows))[:, -1]
    assert np.abs(last - reach).max() > 0
    np.testing.assert_array_equal(last, beyond)


def test_positions_are_relative(monkeypatch):
    model, params = build(QWEN2)
    shifted = np.arange(12)[None] + np.array([[0], [5], [60], [8000]])
    want = run_hidden(model, params, TOKENS)

    @jax.jit
    def at(params, positions_BT):
        monkeypatch.setattr(qwen, "rope_table", lambda config, _: rope_table(config, positions_BT))
        return model.hidden(params, TOKENS)

    got, stretched = (np.asarray(at(params, x)) for x in (shifted, shifted * 3))
    np.testing.assert_allclose(got, want, atol=5e-3)
    assert np.abs(stretched - got).max() > 1e-2


def test_head_is_the_embedding_when_tied():
    tied, params = build(QWEN2)
    assert tied.head_VD(params) is params["base"]["embed_tokens"]["embedding"]
    assert "lm_head" not in params["base"]
    untied, params = build(QWEN3)
    assert untied.head_VD(params) is params["base"]["lm_head"]["kernel"]


def test_parameter_tree_is_the_documented_one():
    model = QwenModel(QWEN2, LoraConfig(rank=2, targets=("q_proj", "down_proj")))
    params = jax.eval_shape(model.init, jax.random.key(0))
    shapes = jax.tree.map(lambda x: x.shape, params)
    assert shapes["lora"] == {
        "layers": {
            "self_attn": {"q_proj": {"lora_A": (2, 32, 2), "lora_B": (2, 2, 32)}},
            "mlp": {"down_proj": {"lora_A": (2, 40, 2), "lora_B": (2, 2, 32)}},
        }
    }
    attention = shapes["base"]["layers"]["self_attn"]
    assert attention["k_proj"] == {"kernel": (2, 32, 16), "bias": (2, 16)}
    assert attention["o_proj"] == {"kernel": (2, 32, 32)}
    assert shapes["base"]["layers"]["input_layernorm"] == {"scale": (2, 32)}
    assert shapes["base"]["norm"] == {"scale": (32,)}
    assert jax.eval_shape(model.replace(lora=None).init, jax.random.key(0))["lora"] == {}


@pytest.mark.parametrize("name", ["qwen2_5_0_5b", "qwen2_5_7b", "qwen2_5_32b", "qwen3_0_6b"])
def test_init_of_released_sizes_is_abstract(name):
    model = QwenModel(PRESETS[name], LoraConfig(), param_dtype=jnp.bfloat16)
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    count = sum(x.size for x in jax.tree.leaves(abstract["base"]))
    assert count == parameter_count(PRESETS[name])
    assert {x.dtype for x in jax.tree.leaves(abstract["base"])} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in jax.tree.leaves(abstract["lora"])} == {jnp.dtype("float32")}


def test_init_is_a_function_of_the_key_and_layers_differ():
    init = jax.jit(QwenModel(QWEN2, LoraConfig(targets=("down_proj",))).init)
    one, same, other = (jax.tree.map(np.asarray, init(jax.random.key(s))) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    kernel = one["base"]["layers"]["mlp"]["up_proj"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0
    assert np.abs(kernel - other["base"]["layers"]["mlp"]["up_proj"]["kernel"]).max() > 0
    down = one["lora"]["layers"]["mlp"]["down_proj"]
    assert not down["lora_B"].any()
    # peft's kaiming_uniform(a=√5): uniform within ±1/√in, here 1/√40 = .158
    assert 0.15 < np.abs(down["lora_A"]).max() <= 40**-0.5
    # 2·32·40 draws: their standard deviation strays by .02/√(2·2560) ≈ .0003
    assert abs(float(kernel.std()) - 0.02) < 0.001


def test_shapes_follow_the_widest_float():
    model = QwenModel(QWEN2, param_dtype=jnp.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jax says that it makes float32
        assert {leaf.dtype for leaf in jax.tree.leaves(model.shapes())} == {jnp.dtype("float32")}
    with jax.enable_x64(True):
        assert {leaf.dtype for leaf in jax.tree.leaves(model.shapes())} == {jnp.dtype("float64")}


def test_model_is_hashable_and_equal_by_value():
    one, two = (QwenModel(QWEN2, LoraConfig()) for _ in range(2))
    assert one == two and hash(one) == hash(two)
    assert one != one.replace(remat=True)
    run = jax.jit(lambda model, x: x + model.config.hidden_size, static_argnums=0)
    run(one, 1), run(two, 1)
    assert run._cache_size() == 1


def test_bfloat16_stays_near_float32():
    model, params = build(QWEN3)
    low = run_hidden(model.replace(compute_dtype=jnp.bfloat16), params, TOKENS)
    assert low.dtype == jnp.bfloat16
    full = np.asarray(run_hidden(model, params, TOKENS))
    assert np.abs(np.asarray(low, np.float32) - full).mean() < 0.03


def test_impossible_attention_is_refused():
    with pytest.raises(ConfigError, match="attention_impl='flash'"):
        QwenModel(QWEN2, attention_impl="flash")
    with pytest.raises(ConfigError, match="float32"):
        QwenModel(QWEN2, attention_impl="cudnn")


@pytest.mark.parametrize("config", [QWEN2, QWEN3], ids=["qwen2", "qwen3"])
def test_logical_axes_mirror_the_parameters(config):
    model, params = build(config)
    axes = logical_axes(params)
    is_axes = lambda x: isinstance(x, tuple)  # noqa: E731
    assert jax.tree.structure(axes, is_leaf=is_axes) == jax.tree.structure(params)
    jax.tree.map(lambda x, names: len(names) == x.ndim or pytest.fail(str(names)), params, axes)
    layers = axes["base"]["layers"]
    assert layers["self_attn"]["o_proj"]["kernel"] == ("layers", "heads", "embed")
    assert axes["lora"]["layers"]["mlp"]["up_proj"]["lora_B"] == ("layers", "lora_rank", "mlp")
    assert axes["base"]["embed_tokens"]["embedding"] == ("vocab", "embed")
    assert logical_axes(params["lora"]) == axes["lora"]


@pytest.mark.parametrize("fuse", [True, False])
def test_sharded_forward_equals_the_single_device(fuse):
    model, params = build(QWEN2)
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2))
    placed = jax.device_put(params, shardings(params, logical_axes(params), mesh))
    kernel = placed["base"]["layers"]["mlp"]["up_proj"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 16, 20)
    got = run_hidden(model.replace(fuse=fuse), placed, TOKENS)
    np.testing.assert_allclose(got, run_hidden(model, params, TOKENS), atol=2e-5)


def test_value_head_starts_at_zero_and_is_linear():
    params = value_head.init(4)
    hidden = np.ones((2, 3, 4), jnp.bfloat16)
    np.testing.assert_array_equal(value_head.apply(params, hidden), np.zeros((2, 3), np.float32))
    params = {"kernel_D": np.array([1, 0, 2, 0], np.float32), "bias": np.float32(0.5)}
    got = value_head.apply(params, np.array([[1.0, 9.0, 2.0, 9.0]], jnp.bfloat16))
    np.testing.assert_array_equal(got, np.array([5.5], np.float32))  # 1·1 + 2·2 + .5
    assert got.dtype == jnp.float32
