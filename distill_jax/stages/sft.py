"""Stage sft: LoRA on worked and answer-only solutions; the student that RL starts from."""

from pathlib import Path
from typing import Any

from distill_jax.core import sharding
from distill_jax.models import peft_io
from distill_jax.stages import export_files, forecast, loop, supervised
from distill_jax.stages.context import Context
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.step import make_update


def run(context: Context, directory: Path) -> dict[str, Any]:
    """Trains the student's adapter; exports `adapter/` in PEFT's form."""
    config, settings = context.config, context.config.sft
    forecast.show(context, "sft")
    student = context.load("student")
    tx = optimizer.make(settings.optimizer, settings.steps)
    trainable, frozen = states.split(student.params, "lora")
    state, shardings = states.create(trainable, tx, config.seed, context.mesh)
    loss, totals = losses.sft(student.model, context.vocab)
    update = make_update(loss, totals, tx, context.mesh, shardings, accumulate=settings.accumulate)
    rows = supervised.rows(context, answer_only=settings.answer_only)
    step = supervised.step_fn(context, rows, update, frozen, settings.batch_size)
    state = loop.run(
        context, "sft", directory, state, step, settings.steps, max_skipped=settings.max_skipped
    )
    save_adapter(context, student.model.config, state.trainable["lora"], directory / "adapter")
    export_files.write_model_info(context, "sft", directory / "adapter", settings.steps)
    skipped = int(sharding.fetch(state.skipped))
    return {
        "steps": settings.steps,
        "skipped_updates": skipped,
        "bare_answers": rows.bare_answers,
    }


def save_adapter(context: Context, geometry: Any, lora: Any, target: Path) -> None:
    """Writes the adapter with its tokenizer; it names the student as its base model.

    A hub id is named as given, so that the adapter loads on other machines, too.
    """
    given = context.config.student.path
    local = not given or Path(given).exists()
    base = str(context.model_path("student")) if local else given
    peft_io.save_adapter(
        target, geometry, context.config.lora, lora, base, tokenizer=context.tokenizer
    )
