"""Projection kernels in int8: bytes, errors and the forward passes on them."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from distill_jax.core import sharding
from distill_jax.core.errors import MissingExtraError
from distill_jax.models import quantised
from distill_jax.models.qwen import logical_axes
from distill_jax.training.state import param_shardings
from tests import tiny

pytestmark = [pytest.mark.mesh, pytest.mark.slow]


@pytest.fixture(scope="module")
def model():
    return tiny.build(tiny.CONFIG, lora=False, seed=3)


def convert(base, dtype=jnp.float32, path=()):
    """The tree as `Context.load` holds it."""
    if isinstance(base, dict):
        return {name: convert(x, dtype, (*path, name)) for name, x in base.items()}
    leaf = jnp.asarray(base)
    return quantised.quantise(leaf, dtype) if quantised.is_quantised(path) else leaf


def small(params, dtype=jnp.float32):
    return {**params, "base": convert(params["base"], dtype)}


run = jax.jit(lambda model, params, tokens_BT: model.hidden(params, tokens_BT), static_argnums=0)


def kernels(tree):
    layers = tree["base"]["layers"]
    parts = [*layers["self_attn"].values(), *layers["mlp"].values()]
    return [leaf["kernel"] for leaf in parts if "kernel" in leaf]


def nbytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_by_hand():
    # Columns with absolute maxima 127.5 and 12.75: 255 steps of 1 and 0.1, the maximum half a step
    # beyond the last value.
    kernel = jnp.array([[[127.5, 1.27], [-3.4, 12.75], [0.6, -0.26]]])
    got = quantised.quantise(kernel, jnp.float32)
    np.testing.assert_array_equal(got.qvalue, [[[127, 13], [-3, 127], [1, -3]]])
    np.testing.assert_allclose(got.scale, [[[1.0, 0.1]]], rtol=1e-6)


def test_which_leaves(model):
    base = model[1]["base"]
    taken = {path[-2] for path in flatten_dict(base) if quantised.is_quantised(path)}
    assert taken == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert not quantised.is_quantised(("lm_head", "kernel"))


@pytest.mark.parametrize(("dtype", "share"), [("float32", 0.25), ("bfloat16", 0.5)])
def test_bytes_held(model, dtype, share):
    params = jax.tree.map(lambda x: x.astype(dtype), model[1])
    before, after = kernels(params), kernels(small(params, dtype))
    scales = sum(x.scale.nbytes for x in after)
    assert nbytes(after) == share * nbytes(before) + scales
    # A scale for `in` values; widths of 16 to 24 here, thousands in a real model.
    assert scales == sum(x.nbytes / x.shape[1] for x in before)
    rest = nbytes(params) - nbytes(before)
    assert nbytes(small(params, dtype)) == nbytes(after) + rest


def test_each_weight_is_within_half_a_step(model):
    import qwix

    for before, after in zip(kernels(model[1]), kernels(small(model[1])), strict=True):
        error = np.abs(np.asarray(qwix.dequantize(after)) - before)
        step = np.abs(before).max(axis=1, keepdims=True) / 127.5
        assert np.all(error <= 0.501 * step) and error.max() > 0.3 * step.min()


@pytest.mark.parametrize(("fuse", "unroll"), [(True, True), (False, False)])
def test_the_forward_pass_is_that_of_the_rounded_weights(model, fuse, unroll):
    import qwix

    own = model[0].replace(fuse=fuse, unroll=unroll)
    tokens = np.random.default_rng(0).integers(0, tiny.VOCAB, (2, 8)).astype(np.int32)
    int8 = small(model[1])
    quantised_leaf = lambda x: isinstance(x, qwix.QArray)  # noqa: E731
    plain = jax.tree.map(
        lambda x: qwix.dequantize(x) if quantised_leaf(x) else x, int8, is_leaf=quantised_leaf
    )
    got, want, exact = (np.asarray(run(own, p, tokens)) for p in (int8, plain, model[1]))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert 1e-4 < np.abs(got - exact).max() < 0.1


def test_decoding_on_them(model):
    """The sampler's weights keep the int8 kernels; prefill gives the states of the whole pass."""
    tokens = np.random.default_rng(0).integers(0, tiny.VOCAB, (2, 8)).astype(np.int32)
    lengths = np.array([8, 5], np.int32)
    int8 = small(model[1])
    weights = jax.jit(model[0].decode_params)(int8)
    kinds = {x.dtype for layer in weights["layers"] for x in jax.tree.leaves(layer["qkv"])}
    assert jnp.dtype(jnp.int8) in kinds
    hidden_PD, _ = jax.jit(model[0].prefill)(weights, tokens, lengths)
    whole = np.asarray(run(model[0], int8, tokens))
    np.testing.assert_allclose(hidden_PD, whole[np.arange(2), lengths - 1], atol=1e-5)


@pytest.mark.parametrize("extents", [(1, 8, 1), (2, 2, 2)])
def test_over_a_mesh(model, extents):
    mesh = tiny.mesh(*extents)
    whole = small(model[1])
    placed = tiny.placed(model[1], mesh)
    split = {**placed, "base": convert(placed["base"])}
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_array_equal(one, other)
    # Where logical axes would put them: values as the kernel, scales by their output channels.
    wanted = param_shardings(split, mesh)
    for leaf, where in zip(jax.tree.leaves(split["base"]), jax.tree.leaves(wanted["base"]),
                           strict=True):  # fmt: skip
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
    own = model[0].replace(fuse=extents[2] == 1)
    tokens = np.random.default_rng(0).integers(0, tiny.VOCAB, (8, 8)).astype(np.int32)
    rows = sharding.place(tokens, sharding.batch_sharding(mesh))
    np.testing.assert_allclose(run(own, split, rows), run(model[0], whole, tokens), atol=2e-5)


def test_axes_of_a_quantised_kernel(model):
    axes = logical_axes(small(model[1]))["base"]["layers"]["mlp"]["up_proj"]["kernel"]
    assert axes.qvalue == axes.scale == ("layers", "embed", "mlp")


def test_without_qwix_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(MissingExtraError, match="int8"):
        quantised.quantise(jnp.ones((1, 2, 2)), jnp.float32)


def test_a_kernel_in_bfloat16_is_divided_in_float32():
    kernel = np.random.default_rng(0).standard_normal((2, 64, 32)).astype(jnp.bfloat16)
    got, want = (quantised.quantise(jnp.asarray(x), jnp.float32)
                 for x in (kernel, kernel.astype(np.float32)))  # fmt: skip
    np.testing.assert_array_equal(got.qvalue, want.qvalue)
    np.testing.assert_array_equal(got.scale, want.scale)
