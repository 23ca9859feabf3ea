"""A tiny model for tests of everything above models: rows of the head beyond VOCAB are padding."""

import dataclasses

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


def build(config=ONE_LAYER, *, lora=True, noise=0.15, seed=0, **other):
    """A model and weights with noise on every leaf, so that no distribution is flat."""
    model = QwenModel(config, LoraConfig(rank=2) if lora else None, **other)
    params = jax.jit(model.init)(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return model, jax.tree.map(
        lambda x: np.asarray(x + noise * rng.standard_normal(x.shape), x.dtype), params
    )


def mesh(data=1, fsdp=1, tensor=1):
    """A mesh over the first devices."""
    settings = sharding.MeshSettings(data, fsdp, tensor)
    return sharding.make_mesh(settings, jax.devices()[: data * fsdp * tensor])


def placed(params, where):
    """The weights, split over a mesh as in training."""
    return sharding.place(params, param_shardings(params, where))


_hidden = jax.jit(lambda model, params, row: model.hidden(params, row), static_argnums=0)


def naive_logits(model, params, tokens):
    """float64 [T, VOCAB] of one row, without cache, chunks or batch."""
    # Padding at the right is hidden by causality; one shape is compiled once.
    row = np.zeros((1, 16), np.int32)
    row[0, : len(tokens)] = tokens
    hidden = _hidden(model, params, row)[0, : len(tokens)]
    head = np.asarray(model.head_VD(params), np.float64)[:VOCAB]
    return np.asarray(hidden, np.float64) @ head.T


def log_softmax(x):
    """log softmax over the last axis in float64."""
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
