"""Packed rows against the same examples one a row: logits, losses and gradients, in float32."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.data import batching, packing
from distill_jax.data.chat import Example
from distill_jax.models.qwen import QwenModel
from distill_jax.training import distillation, losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.distillation import DistillLossSettings
from distill_jax.training.step import make_update
from tests import tiny
from tests.tiny import VOCAB

# Of the mesh, for its last test.
pytestmark = [pytest.mark.mesh, pytest.mark.slow]

# Prompt and response of each.
SIZES = [(3, 4), (1, 5), (4, 2), (2, 3), (5, 6), (2, 2), (1, 1), (6, 3)]
RANDOM = np.random.default_rng(0)
EXAMPLES = [Example(*(RANDOM.integers(1, VOCAB, n).tolist() for n in one)) for one in SIZES]
ROWS = 4
PLAN = packing.plan(
    batching.lengths_of(EXAMPLES), [np.arange(8)], budget=64, parts=ROWS, multiple=4
)


def unpacked() -> dict[str, np.ndarray]:
    made = batching.pack_examples(EXAMPLES, pad_id=0, multiple=4)
    return {**made, "place_BB": np.eye(8, dtype=np.float32)}


def packed() -> dict[str, np.ndarray]:
    lengths_E2 = batching.lengths_of(EXAMPLES)
    how: dict[str, Any] = {"rows": PLAN.rows, "chosen": PLAN.chosen}
    return packing.pack(EXAMPLES, lengths_E2, pad_id=0, multiple=4, **how)


def close(got: Any, want: Any) -> None:
    """Sums of a few hundred float32 products in another order."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-6), got, want)


# Both attention paths of this platform, both forms of the layers, a window shorter than a row.
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "xla, scanned, remat": {"attention_impl": "xla", "unroll": False, "remat": True},
    "xla": {"attention_impl": "xla"},
    "window": {"config": dataclasses.replace(
        tiny.CONFIG, sliding_window=3, layer_types=("full_attention", "sliding_attention"),
    )},
    "windows, scanned": {"unroll": False, "config": dataclasses.replace(
        tiny.CONFIG, sliding_window=3, layer_types=("full_attention", "sliding_attention"),
    )},
}  # fmt: skip


@functools.cache
def built(name: str) -> tuple[QwenModel, Any]:
    return tiny.build(**{"config": tiny.CONFIG, **MODELS[name]})


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_each_example_alone(name: str) -> None:
    model, params = built(name)
    run = jax.jit(lambda *x: model.hidden(params, x[0], segment_BT=x[1]) @ model.head_VD(params).T)
    batch = packed()
    logits = np.asarray(run(batch["tokens_BT"], batch["segment_BT"]))
    alone = tiny.build(**{"config": tiny.CONFIG, **MODELS[name], "remat": False})
    for row, inside in enumerate(packing.divide(batching.lengths_of(EXAMPLES), ROWS)):
        begin = 0
        for number in inside:
            tokens = [*EXAMPLES[number].prompt, *EXAMPLES[number].response]
            want = tiny.naive_logits(*alone, tokens)
            got = logits[row, begin : begin + len(tokens), :VOCAB]
            np.testing.assert_allclose(got, want, atol=1e-5)
            begin += len(tokens)


def sft(model: QwenModel, params: Any, mode: str, batch: Any) -> Any:
    trainable, frozen = states.split(params, mode)
    loss, totals = losses.sft(model, VOCAB)

    def value(trainable: Any) -> jax.Array:
        return loss(trainable, frozen, batch, totals(batch), jax.random.key(0))[0]

    return jax.jit(jax.value_and_grad(value))(trainable)


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("name", ["plain", "xla, scanned, remat", "window"])
def test_the_loss_of_sft_and_its_gradient(name: str, mode: str) -> None:
    model, params = built(name)
    if mode == "full":
        model, params = model.replace(lora=None), {**params, "lora": {}}
    got, want = (sft(model, params, mode, make()) for make in (packed, unpacked))
    close(got, want)
    assert all(
        np.any(leaf) for leaf in jax.tree.leaves(got[1]["lora" if mode == "lora" else "base"])
    )


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_loss_of_distillation_its_gradient_and_the_figure_of_each_example(mode: str) -> None:
    model, params = built("plain")
    if mode == "full":
        model, params = model.replace(lora=None), {**params, "lora": {}}
    teacher, theirs = tiny.build(tiny.CONFIG, lora=False, seed=1)
    trainable, frozen = states.split(params, mode)
    settings = DistillLossSettings("jsd", beta=0.3, temperature=2.0, kd_weight=0.6, ce_weight=0.5)
    loss, totals = distillation.distill(model, teacher, settings, VOCAB, given=True)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def value(trainable: Any, batch: Any) -> Any:
        both = {**frozen, "teacher": theirs}
        return loss(trainable, both, batch, totals(batch), jax.random.key(0))

    got, want = (jax.jit(value)(trainable, make()) for make in (packed, unpacked))
    close(got, want)
    figures = got[0][1]["rows_B"]
    assert figures.shape == (8,) and len(set(np.asarray(figures).tolist())) == 8


def updated(name: str, batch: Any, accumulate: int, mesh: Any) -> Any:
    """Trainable arrays and metrics after an update of distillation."""
    model, params = built(name)
    teacher, theirs = tiny.build(tiny.CONFIG, lora=False, seed=1)
    trainable, frozen = states.split(tiny.placed(params, mesh), "lora")
    settings = optimizer.OptimizerSettings(learning_rate=1e-2, warmup_steps=0, eps=1e-4)
    tx = optimizer.make(settings, 3)
    trainable = jax.tree.map(jnp.copy, trainable)
    state, shardings = states.create(trainable, tx, jax.random.key(0), mesh)
    loss = distillation.distill(model, teacher, DistillLossSettings(), VOCAB, given=True)
    update = make_update(*loss, tx, mesh, shardings, accumulate=accumulate)
    frozen = {**frozen, "teacher": tiny.placed(theirs, mesh)}
    state, metrics = update(state, frozen, batch, np.int32(0), np.int32(1))
    return jax.tree.map(np.asarray, (state.trainable, metrics))


@pytest.mark.parametrize(("accumulate", "shape"), [(2, (1, 1, 1)), (1, (2, 2, 2)), (2, (2, 1, 2))])
def test_microbatches_and_devices_equal_one(accumulate: int, shape: tuple[int, int, int]) -> None:
    want = updated("plain", packed(), 1, tiny.mesh())
    got = updated("plain", packed(), accumulate, tiny.mesh(*shape))
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=2e-3, atol=2e-5), got, want)
