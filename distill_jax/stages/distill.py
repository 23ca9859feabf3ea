"""Stage distill: the student learns the teacher's distributions, token by token."""

import contextlib
from pathlib import Path
from typing import Any

import jax

from distill_jax.core import sharding
from distill_jax.models import hf_io, lora
from distill_jax.models.qwen import QwenModel
from distill_jax.stages import curricula, distill_rows, export_files, loop
from distill_jax.stages.context import Context
from distill_jax.stages.distill_step import DistillStep
from distill_jax.stages.sft import save_adapter
from distill_jax.training import optimizer
from distill_jax.training import state as states


def run(context: Context, directory: Path) -> dict[str, Any]:
    """Trains the student on the teacher; exports `adapter/` (PEFT) or `model/` (Hugging Face)."""
    config, settings = context.config, context.config.distill
    teacher = context.load("teacher")
    rows = distill_rows.make(context, directory, teacher)
    student, trainable, frozen = starting_student(context)
    tx = optimizer.make(settings.optimizer, settings.steps)
    curriculum = curricula.of_distill(context, rows.problems)
    state, shardings = states.create(
        trainable, tx, config.seed, context.mesh, curriculum_state=curriculum.fresh()
    )
    step = DistillStep(context, student, frozen, teacher, rows, curriculum, tx, shardings)
    with contextlib.closing(step):
        state = loop.run(
            context,
            "distill",
            directory,
            state,
            step,
            settings.steps,
            max_tokens=settings.max_tokens,
            max_skipped=settings.max_skipped,
            eval_every=settings.eval_every,
            evaluate=step.validate,
        )
    made = directory / ("adapter" if settings.trainable == "lora" else "model")
    if settings.trainable == "lora":
        save_adapter(context, student.config, state.trainable["lora"], made)
    else:
        hf_io.save_hf(made, student.config, state.trainable["base"], tokenizer=context.tokenizer)
    found = sharding.fetch({"steps": state.step, "skipped_updates": state.skipped})
    counts = {name: int(x) for name, x in found.items()}
    export_files.write_model_info(context, "distill", made, counts["steps"])
    return {**counts, **rows.figures}


def starting_student(context: Context) -> tuple[QwenModel, dict[str, Any], dict[str, Any]]:
    """(model, trainable, frozen) of `distill.start` and `distill.trainable`.

    With all parameters trained there is no adapter: that of sft is added to the weights first.
    """
    loaded = context.load("student", context.distill_adapter())
    if context.config.distill.trainable == "lora":
        return loaded.model, *states.split(loaded.params, "lora")
    scale = context.config.lora.scale
    where = states.param_shardings({"base": loaded.params["base"]}, context.mesh)["base"]
    merge = jax.jit(lambda p: lora.merge(p["base"], p["lora"], scale), out_shardings=where)
    whole = {"base": merge(loaded.params), "lora": {}}
    return loaded.model.replace(lora=None), *states.split(whole, "full")
