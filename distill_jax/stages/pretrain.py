"""Stage pretrain: tiny Qwen models from scratch, teacher and student, on worked solutions."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from distill_jax.core import rng
from distill_jax.core.batching import round_up
from distill_jax.models import hf_io
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.stages import loop, supervised
from distill_jax.stages.context import Context
from distill_jax.stages.settings import ModelSettings, RunConfig
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.step import make_update

# The vocabulary is padded as Qwen's is, so that it splits over tensor axes.
_VOCAB_MULTIPLE = 64


def geometry(settings: ModelSettings, context: Context) -> QwenConfig:
    """The Qwen2 geometry of a model that is trained here."""
    return dataclasses.replace(
        made_geometry(settings, context.config, context.vocab),
        eos_token_id=context.eos_id,
        pad_token_id=context.pad_id,
    )


def made_geometry(settings: ModelSettings, config: RunConfig, vocab: int) -> QwenConfig:
    """The same before there is a tokenizer."""
    longest = config.data.max_prompt_tokens + config.sampling.max_new_tokens
    return QwenConfig(
        model_type="qwen2",
        vocab_size=round_up(vocab, _VOCAB_MULTIPLE),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        num_kv_heads=settings.num_kv_heads,
        head_dim=settings.hidden_size // settings.num_heads,
        rope_theta=10_000.0,
        max_position_embeddings=max(512, 2 * longest),
        # 1/√D: Qwen's own 0.02 suits widths in the thousands; a width of 112 learns several times
        # slower with it.
        initializer_range=settings.hidden_size**-0.5,
    )


def run(context: Context, directory: Path) -> dict[str, Any]:
    """Trains every model without a path of its own; exports `ROLE/model` as Hugging Face files."""
    figures = {}
    for number, role in enumerate(("teacher", "student")):
        if context.settings_of(role).path:
            continue
        target = directory / role / "model"
        if not (target / "config.json").exists():
            _train(context, role, number, directory / role)
        figures[role] = {"steps": context.settings_of(role).steps}
    return figures


def _train(context: Context, role: str, number: int, directory: Path) -> None:
    settings, config = context.config.pretrain, context.config
    shape = geometry(context.settings_of(role), context)
    model = context.build(role, shape, lora=None)
    key = rng.stream_key(rng.run_key(config.seed), "pretrain", number)
    shapes = jax.eval_shape(model.init, key)
    where = states.param_shardings(shapes, context.mesh)
    params = jax.jit(model.init, out_shardings=where)(key)
    steps = context.settings_of(role).steps
    tx = optimizer.make(settings.optimizer, steps)
    trainable, frozen = states.split(params, "full")
    state, shardings = states.create(trainable, tx, config.seed, context.mesh)
    loss, totals = losses.sft(model, context.vocab)
    update = make_update(loss, totals, tx, context.mesh, shardings, accumulate=settings.accumulate)
    rows = supervised.rows(context, answer_only=0.0)
    step = supervised.step_fn(context, rows, update, frozen, settings.batch_size)
    state = loop.run(
        context,
        f"pretrain {role}",
        directory,
        state,
        step,
        steps,
        max_skipped=settings.max_skipped,
    )
    base = state.trainable["base"]
    hf_io.save_hf(directory / "model", shape, base, tokenizer=context.tokenizer)
