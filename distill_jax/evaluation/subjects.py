"""The models that an evaluation looks at: what each is made of, and how it is loaded."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import digest, sharding
from distill_jax.core.errors import CheckpointError, TokenizerMismatchError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.models import hf_io, peft_io
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Student
from distill_jax.run.settings import BASE
from distill_jax.training import checkpoint_reader

TEACHER, MODEL = "teacher", "model"
# A checkpoint of a stage is the subject STAGE_step_N.
CHECKPOINT = "_step_"
# What a stage trains, of its state: the adapter, or all parameters.
_ADAPTER, _WHOLE = "trainable.lora", "trainable.base"


@dataclass(frozen=True)
class Subject:
    """A model to evaluate.

    Attributes:
        name: of its files: teacher, base, a stage, STAGE_step_N, or model.
        path: where its weights are.
        weights: names of their parts with digests.
        load: puts it on the mesh.
        stage: that made it; "" for teacher, base and model.
        tokenizer: its own; None is the run's.
    """

    name: str
    path: Path
    weights: dict[str, str]
    load: Callable[[], Loaded] = field(repr=False)
    stage: str = ""
    tokenizer: Any = field(default=None, repr=False)


def find(run: Run, settings: EvaluateSettings) -> list[Subject]:
    """The subjects of this work directory, and those that the settings name.

    The base student is one of them: SFT can make the student worse, and RL that only recovers that
    loss is not progress.

    Raises:
        CheckpointError: nothing, or a checkpoint or model that is missing.
    """
    found: list[Subject] = []
    if settings.teacher:
        found.append(teacher(run))
    if run.config.student.path or run.models.made_here("student"):
        found.append(student(run, BASE))
    steps = checkpoint_steps(run, settings)
    for stage in run.students():
        if stage == checkpointed_stage(run):
            found += [_checkpoint(run, stage, step) for step in steps]
        found.append(student(run, stage))
    if settings.model:
        found.append(given(run, settings.model))
    if not found:
        makers = [name for name in run.config.plan if run.config.plan[name].makes == "student"]
        raise CheckpointError(
            f"nothing to evaluate in {run.workdir}",
            wanted=f"what stage {' or '.join(makers)} makes, evaluate.model, or "
            "evaluate.teacher=True",
            fix=run.run_first(makers[0]) if makers else "",
        )
    return found


def named(run: Run, name: str) -> Subject:
    """The subject of a name, else the model of a directory or hub id; CheckpointError for none."""
    if name == TEACHER:
        return teacher(run)
    if name == BASE or name in run.config.plan:
        return student(run, name)
    stage, _, step = name.rpartition(CHECKPOINT)
    if stage in run.config.plan and step.isdecimal():
        return _checkpoint(run, stage, int(step))
    found = run.student(name)
    return given(run, str(found.adapter or found.base))


def teacher(run: Run) -> Subject:
    """The teacher, loaded once a run; CheckpointError where there is none."""
    path = run.models.path(TEACHER)
    return Subject(TEACHER, path, {TEACHER: run.digest(path)}, lambda: run.models.teacher)


def student(run: Run, reference: str) -> Subject:
    """The student that a reference names: base, a stage, or a directory."""
    found = run.student(reference)
    load = functools.partial(run.load_student, reference)
    path = found.adapter or found.base or run.models.path("student")
    stage = reference if reference in run.config.plan else ""
    return Subject(found.name, path, run.student_digests(found), load, stage)


def checkpointed_stage(run: Run) -> str | None:
    """The last stage of the plan that makes a student and has checkpoints here."""
    made = [name for name in run.config.order if run.config.plan[name].makes == "student"]
    return next((name for name in reversed(made) if _checkpoints(run, name).is_dir()), None)


def _checkpoints(run: Run, stage: str) -> Path:
    return run.workdir / stage / "checkpoints"


def checkpoint_steps(run: Run, settings: EvaluateSettings) -> list[int]:
    """The steps of the last student stage that `evaluate.checkpoints` asks for.

    Raises:
        CheckpointError: one that is not kept; or all, and there is none.
    """
    asked, stage = settings.checkpoints, checkpointed_stage(run)
    if asked == "none":
        return []
    kept = checkpoint_reader.steps(_checkpoints(run, stage)) if stage else []
    if not kept or (asked != "all" and int(asked) not in kept):
        raise CheckpointError(
            f"evaluate.checkpoints={asked} with {len(kept)} checkpoints in "
            f"{_checkpoints(run, stage) if stage else run.workdir}",
            wanted=f"all, or one of {', '.join(map(str, kept))}" if kept else "at least one",
            fix="checkpoint.keep says how many a stage keeps, checkpoint.every how often",
        )
    return kept if asked == "all" else [int(asked)]


def _checkpoint(run: Run, stage: str, step: int) -> Subject:
    directory, base = _checkpoints(run, stage), run.base_of(stage)
    whole = checkpoint_reader.has(directory, step, _WHOLE)
    part = _WHOLE if whole else _ADAPTER
    trained = tree_digest(checkpoint_reader.read(directory, step, part))
    of_base = run.student_digests(Student(stage, base=base))
    # Of a whole model nothing of the start is left.
    weights = {MODEL: trained} if whole else {**of_base, "adapter": trained}
    load = functools.partial(_load_whole if whole else _load_adapter, run, directory, step, base)
    return Subject(f"{stage}{CHECKPOINT}{step}", directory / str(step), weights, load, stage)


def _load_adapter(run: Run, directory: Path, step: int, base: Path | None) -> Loaded:
    fresh = run.models.load("student", base=base)
    lora = checkpoint_reader.read(directory, step, _ADAPTER)
    _check_shapes(
        f"checkpoint {directory / str(step)} holds an adapter of other shapes",
        (lora, fresh.params["lora"]),
        wanted=f"{run.config.lora}",
        fix="set lora.rank and lora.targets to what the stage was run with",
    )
    placed = {"base": fresh.params["base"], "lora": run.models.place_lora(lora)}
    return Loaded(fresh.model, placed)


def _load_whole(run: Run, directory: Path, step: int, base: Path | None) -> Loaded:
    fresh = run.models.load_whole(base or run.models.path("student"))
    weights = checkpoint_reader.read(directory, step, _WHOLE)
    _check_shapes(
        f"checkpoint {directory / str(step)} holds a model of other shapes",
        (weights, fresh.params["base"]),
        wanted=f"those of {base or run.models.path('student')}",
        fix="set student.path to what the stage was run with",
    )
    where = jax.tree.map(lambda leaf: leaf.sharding, fresh.params["base"])
    return Loaded(fresh.model, {"base": sharding.place(weights, where), "lora": {}})


def _check_shapes(got: str, trees: tuple[Any, Any], *, wanted: str, fix: str) -> None:
    found, expected = (jax.tree.map(np.shape, tree) for tree in trees)
    if found != expected:
        raise CheckpointError(got, wanted=wanted, fix=fix)


def tree_digest(tree: Any) -> str:
    """Digest of the arrays of a tree in host memory, with their names."""

    def parts() -> Any:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            yield f"{jax.tree_util.keystr(path)}\0{leaf.dtype}{leaf.shape}\0"
            yield np.ascontiguousarray(leaf).tobytes()

    return digest.of_all(parts())


def given(run: Run, model: str) -> Subject:
    """The model of `evaluate.model`: a PEFT adapter of the student, or a whole model.

    A whole model may have another tokenizer; then it reads its own prompts.

    Raises:
        CheckpointError: missing, damaged or of another architecture.
        ConfigError: a model with fewer rows than there are tokens.
    """
    path = hf_io.model_dir(model)
    if (path / peft_io.CONFIG).is_file():
        # Its rank and alpha are not those of the settings; its digest covers them.
        weights = run.student_digests(Student(MODEL, adapter=path))
        return Subject(MODEL, path, weights, functools.partial(run.models.load_adapter, path))
    hf_io.load_config(path)  # raises where there is no model
    own = own_tokenizer(run, path)
    if own is not None and (note := tokenizers.note_of_chatml(own, model)):
        run.say(note)
    load = functools.partial(run.models.load_whole, path, own)
    return Subject(MODEL, path, {MODEL: run.digest(path)}, load, tokenizer=own)


def own_tokenizer(run: Run, path: Path) -> Any:
    """The model's tokenizer where it is not the run's."""
    if not (path / "tokenizer.json").is_file():
        return None
    found = tokenizers.load_tokenizer(path)
    try:
        tokenizers.check_same_tokenizer(run.data.tokenizer, found)
    except TokenizerMismatchError:
        return found
    return None
