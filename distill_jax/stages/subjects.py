"""The models that stage evaluate looks at: what each is made of, and how it is loaded."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.errors import CheckpointError, TokenizerMismatchError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.models import hf_io, peft_io
from distill_jax.report.view import checkpoint_name
from distill_jax.stages import inputs
from distill_jax.stages.context import Context, Loaded
from distill_jax.training import checkpoint_reader
from distill_jax.training.state import param_shardings

_PART = "trainable.lora"


@dataclass(frozen=True)
class Subject:
    """A model to evaluate.

    Attributes:
        name: of its files: teacher, base, the stage that made it, STAGE_step_N, model.
        path: where its weights lie.
        weights: names of their parts with digests.
        load: puts it on the mesh.
        tokenizer: its own; None is the run's.
    """

    name: str
    path: Path
    weights: dict[str, str]
    load: Callable[[], Loaded] = field(repr=False)
    tokenizer: Any = field(default=None, repr=False)


def find(context: Context) -> list[Subject]:
    """What can be evaluated in this work directory, and what the settings name.

    The bare student is one of them: sft may leave a student that is worse than it was, and what
    reinforcement then wins back must not pass for progress.

    Raises:
        CheckpointError: nothing, or a checkpoint or model that is not there.
    """
    settings = context.config.evaluate
    found: list[Subject] = []
    if settings.teacher:
        path = context.model_path("teacher")
        # Held for the comparisons, where there are any.
        keep = functools.partial(teacher, context)
        load = keep if settings.distribution else functools.partial(context.load, "teacher")
        found.append(Subject("teacher", path, teacher_weights(context), load))
    before, after = context.adapter("sft"), context.adapter("rl")
    distilled = context.distilled()
    if before is not None or context.made_here("student") or context.config.student.path:
        found.append(_student(context, "base", None))
    if before is not None:
        found.append(_student(context, "sft", before))
    if distilled is not None:
        found.append(_student(context, "distill", distilled))
    found += [_checkpoint(context, step) for step in checkpoint_steps(context)]
    if after is not None:
        found.append(_student(context, "rl", after))
    if settings.model:
        found.append(given(context))
    if not found:
        raise CheckpointError(
            f"nothing to evaluate in {context.workdir}",
            wanted="what stage sft, distill or rl makes, evaluate.model, or evaluate.teacher=True",
            fix=context.run_first("sft"),
        )
    return found


def teacher(context: Context) -> Loaded:
    """The teacher, loaded once a run: it is evaluated, and students are compared with it."""
    return context.once("teacher", lambda: context.load("teacher"))


def teacher_weights(context: Context) -> dict[str, str]:
    """The teacher's part of what a result is made from.

    Raises:
        CheckpointError: there is no teacher.
    """
    return {"teacher": inputs.whole_digest(context, context.model_path("teacher"))}


def checkpoint_steps(context: Context) -> list[int]:
    """The steps of stage rl that `evaluate.checkpoints` asks for.

    Raises:
        CheckpointError: one that is not kept; or all, and there is none.
    """
    asked = context.config.evaluate.checkpoints
    if asked == "none":
        return []
    directory = context.workdir / "rl" / "checkpoints"
    kept = checkpoint_reader.steps(directory)
    if not kept or (asked != "all" and int(asked) not in kept):
        raise CheckpointError(
            f"evaluate.checkpoints={asked} with {len(kept)} checkpoints in {directory}",
            wanted=f"all, or one of {', '.join(map(str, kept))}" if kept else "at least one",
            fix="checkpoint.keep says how many stage rl keeps, checkpoint.every how often",
        )
    return kept if asked == "all" else [int(asked)]


def _student(context: Context, name: str, adapter: Path | None) -> Subject:
    base = context.model_path("student")
    weights = {
        "student": inputs.whole_digest(context, base),
        "adapter": inputs.adapter_digest(adapter),
    }
    load = functools.partial(context.load, "student", adapter)
    return Subject(name, adapter or base, weights, load)


def _checkpoint(context: Context, step: int) -> Subject:
    directory = context.workdir / "rl" / "checkpoints"
    lora = checkpoint_reader.read(directory, step, _PART)
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(lora):
        digest.update(f"{jax.tree_util.keystr(path)}\0{leaf.dtype}{leaf.shape}\0".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())

    def load() -> Loaded:
        fresh = context.load("student")
        lora = checkpoint_reader.read(directory, step, _PART)
        shapes = [jax.tree.map(np.shape, tree) for tree in (lora, fresh.params["lora"])]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"checkpoint {directory / str(step)} holds an adapter of other shapes",
                wanted=f"{context.config.lora}",
                fix="set lora.rank and lora.targets to what stage rl was run with",
            )
        placed = sharding.place(lora, param_shardings({"lora": lora}, context.mesh)["lora"])
        return Loaded(fresh.model, {"base": fresh.params["base"], "lora": placed})

    weights = {
        "student": inputs.whole_digest(context, context.model_path("student")),
        "adapter": digest.hexdigest(),
    }
    return Subject(checkpoint_name("rl", step), directory / str(step), weights, load)


def given(context: Context) -> Subject:
    """The model of `evaluate.model`: a PEFT adapter of the student, or a whole model.

    A whole model may bring another tokenizer; then it reads its own prompts.

    Raises:
        CheckpointError: missing, damaged or of another architecture.
        ConfigError: a model with fewer rows than there are tokens.
    """
    path = hf_io.model_dir(context.config.evaluate.model)
    if (path / peft_io.CONFIG).is_file():
        base = context.model_path("student")
        weights = {
            "student": inputs.whole_digest(context, base),
            "adapter": inputs.adapter_digest(path),
        }
        # Unlike the run's own adapters its rank and alpha are not those of the settings.
        settings = (path / peft_io.CONFIG).read_bytes()
        weights["adapter settings"] = hashlib.blake2b(settings, digest_size=16).hexdigest()
        return Subject("model", path, weights, functools.partial(_load_adapter, context, path))
    own = own_tokenizer(context, path)
    weights = {"model": inputs.whole_digest(context, path)}
    return Subject("model", path, weights, functools.partial(_load_model, context, path, own), own)


def own_tokenizer(context: Context, path: Path) -> Any:
    """The model's tokenizer where it is not the run's."""
    if not (path / "tokenizer.json").is_file():
        return None
    found = tokenizers.load_tokenizer(path)
    try:
        tokenizers.check_same_tokenizer(context.tokenizer, found)
    except TokenizerMismatchError:
        return found
    return None


def _load_adapter(context: Context, path: Path) -> Loaded:
    """Beside the student's base, with whatever rank the adapter has."""
    base = context.load("student").params["base"]
    geometry = hf_io.load_config(context.model_path("student"))
    lora, settings = peft_io.load_adapter(path, geometry)
    host = jax.device_get(lora)
    placed = sharding.place(host, param_shardings({"lora": host}, context.mesh)["lora"])
    return Loaded(context.build("student", geometry, lora=settings), {"base": base, "lora": placed})


def _load_model(context: Context, path: Path, tokenizer: Any) -> Loaded:
    geometry, base = hf_io.load_hf(
        path,
        param_dtype=context.settings_of("student").param_dtype,
        shardings=context.base_shardings,
    )
    context.check_rows("model", geometry, tokenizer)
    return Loaded(context.build("student", geometry, lora=None), {"base": base, "lora": {}})
