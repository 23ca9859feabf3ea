"""A tiny model for tests of everything above models: rows of the head beyond VOCAB are padding."""

import dataclasses
import functools

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.training.state import param_shardings

ROWS, VOCAB, EOS, PAD = 24, 20, 5, 0
CONFIG = QwenConfig(
    "qwen2",
    vocab_size=ROWS,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_position_embeddings=64,
)
# Half the program to compile, where only what stands around the layers is looked at.
ONE_LAYER = dataclasses.replace(CONFIG, num_layers=1, layer_types=())


@functools.cache
def _shapes(config, lora, dtype):
    model = QwenModel(config, lora, param_dtype=dtype)
    return jax.eval_shape(model.init, jax.random.key(0))


def weights(model, *, noise=0.15, seed=0):
    """Drawn about as `model.init` draws them, which takes seconds to compile, and noise on all."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        start = {"scale": 1.0, "bias": 0.0, "lora_B": 0.0}.get(path[-1].key)
        if path[-1].key == "lora_A":
            start = rng.uniform(-1, 1, leaf.shape) * leaf.shape[-2] ** -0.5
        elif start is None:
            start = model.config.initializer_range * rng.standard_normal(leaf.shape)
        return np.asarray(start + noise * rng.standard_normal(leaf.shape), leaf.dtype)

    shapes = _shapes(model.config, model.lora, model.param_dtype)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def build(config=ONE_LAYER, *, lora=True, noise=0.15, seed=0, **other):
    """A model and weights with noise on every leaf, so that no distribution is flat."""
    model = QwenModel(config, LoraConfig(rank=2) if lora else None, **other)
    return model, weights(model, noise=noise, seed=seed)


def mesh(data=1, fsdp=1, tensor=1):
    """A mesh over the first devices."""
    settings = sharding.MeshSettings(data, fsdp, tensor)
    return sharding.make_mesh(settings, jax.devices()[: data * fsdp * tensor])


def placed(params, where):
    """The weights, split over a mesh as in training."""
    return sharding.place(params, param_shardings(params, where))


# Compiled once a model and shape; called as it is, each operation is compiled by itself.
hidden = jax.jit(lambda model, params, row: model.hidden(params, row), static_argnums=0)


def naive_logits(model, params, tokens):
    """float64 [T, VOCAB] of one row, without cache, chunks or batch."""
    # Padding at the right is hidden by causality; one shape is compiled once.
    row = np.zeros((1, 24), np.int32)
    row[0, : len(tokens)] = tokens
    states = np.asarray(hidden(model, params, row), np.float64)[0, : len(tokens)]
    head = np.asarray(model.head_VD(params), np.float64)[:VOCAB]
    return states @ head.T


def log_softmax(x):
    """log softmax over the last axis in float64."""
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
