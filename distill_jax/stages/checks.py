"""What can be known to be impossible before any work, in the order of its cost."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_jax.core import sharding
from distill_jax.core.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from distill_jax.models import hf_io, hf_layout, peft_io, quantised
from distill_jax.models import safetensor_files as files
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.stages import curricula, pretrain, subjects, supervised
from distill_jax.stages.context import Context
from distill_jax.training import optimizer


def check(context: Context, stages: Sequence[str], due: Sequence[str]) -> None:
    """Everything that these stages will need and that can be looked at now.

    Args:
        context: run-wide things.
        stages: of the config.
        due: those of them that are not complete.

    Raises:
        ConfigError: settings that cannot work together, or with the models.
        MeshError: a batch that the mesh has no room for.
        MissingExtraError: a package that the records need.
        CheckpointError: models or adapters that are missing, damaged or of another architecture.
        TokenizerMismatchError: teacher and student have different tokenizers.
        DataError: data that cannot be read or used.
    """
    check_settings(context, stages)
    check_batches(context, due)
    check_schedules(context, due)
    _check_order(context, due)
    _check_models(context, due)
    _check_subjects(context, due)
    _check_data(context, due)


def check_settings(context: Context, stages: Sequence[str]) -> None:
    """Settings alone."""
    config = context.config
    if tuple(stages) == ("pretrain",) and config.teacher.path and config.student.path:
        raise ConfigError(
            "stage pretrain with teacher.path and student.path set",
            wanted="an empty path: it trains the models that have none",
            fix="start with configs/sft.py",
        )
    if config.teacher.quantise != "none":
        quantised.library()
    for setting, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        if getattr(config.records, setting) and importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"records.{setting}=True without {package}",
                fix=f"pip install -e '.[{setting}]' or set records.{setting}=False",
            )


def check_batches(context: Context, due: Sequence[str]) -> None:
    """The mesh has room for every batch."""
    config, mesh = context.config, context.mesh
    for name in ("pretrain", "sft", "distill"):
        if name in due:
            settings = getattr(config, name)
            _check_microbatch(f"{name}.batch_size", settings.batch_size, settings.accumulate, mesh)
    if "rl" in due:
        rl = config.rl
        rows, parts = rl.prompts_per_step * rl.samples_per_prompt, rl.minibatches * rl.accumulate
        name = "rl.prompts_per_step×rl.samples_per_prompt / (rl.minibatches×rl.accumulate)"
        sharding.check_batch(name if parts > 1 else name.split(" /")[0], rows // parts, mesh)


def _check_microbatch(name: str, size: int, accumulate: int, mesh: Any) -> None:
    if size % accumulate:
        raise ConfigError(
            f"{name}={size} in accumulate={accumulate} microbatches", wanted="a multiple"
        )
    label = name if accumulate == 1 else f"{name}/{accumulate}"
    sharding.check_batch(label, size // accumulate, mesh)


def check_schedules(context: Context, due: Sequence[str]) -> None:
    """Every warm-up is shorter than its run."""
    config, rl = context.config, context.config.rl
    updates: dict[str, tuple[optimizer.OptimizerSettings, int]] = {
        "sft": (config.sft.optimizer, config.sft.steps),
        "distill": (config.distill.optimizer, config.distill.steps),
        "rl": (rl.optimizer, rl.steps * rl.num_iterations * rl.minibatches),
    }
    for role in ("teacher", "student"):
        if not context.settings_of(role).path and "pretrain" in due:
            updates[f"pretrain {role}"] = (
                config.pretrain.optimizer,
                context.settings_of(role).steps,
            )
    for name, (settings, count) in updates.items():
        stage = name.split()[0]
        if stage in due:
            try:
                optimizer.learning_rate(settings, count)
            except ConfigError as error:
                raise ConfigError(
                    f"{stage}.optimizer.{error.message}", wanted=error.wanted, fix=error.fix
                ) from error


def _check_order(context: Context, due: Sequence[str]) -> None:
    """Every stage finds what an earlier one leaves behind."""
    if "pretrain" not in due:
        for role in _roles(context, due):
            context.model_path(role)
    if "sft" not in due:
        starts = {"distill": context.distill_adapter, "rl": context.start_adapter}
        for adapter in (find() for stage, find in starts.items() if stage in due):
            if adapter is not None:
                peft_io.load_adapter(adapter, hf_io.load_config(context.model_path("student")))


def _roles(context: Context, due: Sequence[str]) -> list[str]:
    """The models that the stages load."""
    settings = context.config.evaluate
    teacher = ("rl" in due and context.config.rl.rewards.intrinsic_weight > 0) or (
        "evaluate" in due and (settings.teacher or settings.distribution)
    )
    teacher = teacher or "distill" in due
    # A whole model that is given may be all there is.
    students = not settings.model or _has_student(context, due)
    student = {"sft", "distill", "rl"} & set(due) or ("evaluate" in due and students)
    return ["teacher"] * bool(teacher) + ["student"] * bool(student)


def _has_student(context: Context, due: Sequence[str]) -> bool:
    made = context.workdir / "pretrain" / "student" / "model" / "config.json"
    return bool(context.config.student.path) or "pretrain" in due or made.is_file()


def _check_subjects(context: Context, due: Sequence[str]) -> None:
    """What the settings of evaluate name beside what the stages make."""
    if "evaluate" not in due:
        return
    if "rl" not in due:
        subjects.checkpoint_steps(context)
    if not context.config.evaluate.model:
        return
    path = hf_io.model_dir(context.config.evaluate.model)
    if (path / peft_io.CONFIG).is_file():
        if "pretrain" not in due:
            peft_io.load_adapter(path, hf_io.load_config(context.model_path("student")))
    else:
        geometry = check_model_files(path)
        context.check_rows("model", geometry, subjects.own_tokenizer(context, path))
        _check_positions(context, "model", geometry)


def _check_models(context: Context, due: Sequence[str]) -> None:
    for role in _roles(context, due):
        made_here = "pretrain" in due and not context.settings_of(role).path
        if made_here:
            geometry = pretrain.geometry(context.settings_of(role), context)
        else:
            geometry = check_model_files(context.model_path(role))
        context.check_rows(role, geometry)
        context.build(role, geometry, lora=context.lora_of(role))
        _check_positions(context, role, geometry)


def _check_positions(context: Context, role: str, geometry: QwenConfig) -> None:
    sampling, longest = context.config.sampling, context.config.data.max_prompt_tokens
    limit = geometry.max_position_embeddings
    if longest + sampling.max_new_tokens > limit:
        raise ConfigError(
            f"data.max_prompt_tokens={longest} and sampling.max_new_tokens="
            f"{sampling.max_new_tokens} take {longest + sampling.max_new_tokens} positions",
            wanted=f"at most the {role}'s {limit}",
            fix="lower them",
        )


def check_model_files(directory: Path) -> QwenConfig:
    """Architecture, and the weight files by their headers: nothing of any size is read.

    Raises:
        CheckpointError: missing, cut short, of another architecture, or without some tensor.
    """
    config = hf_io.load_config(directory)
    shapes = {name: leaf.shape for leaf in hf_layout.leaves(config) for name in leaf.names}
    with files.TensorReader(files.model_files(directory)) as reader:
        wrong = [
            name
            for name, shape in shapes.items()
            if name not in reader.where or reader.shape(name) != shape
        ]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors in {directory} are missing or of another shape, "
            f"first {wrong[0]}",
            wanted=f"{wrong[0]} of shape {list(shapes[wrong[0]])}, as config.json says",
            fix="download or copy the directory again",
        )
    return config


def _check_data(context: Context, due: Sequence[str]) -> None:
    config = context.config
    if {"pretrain", "sft", "distill", "rl"} & set(due):
        count = len(context.problems("train").problems)
        if "rl" in due and count < config.rl.prompts_per_step:
            raise DataError(
                f"{count} training problems for rl.prompts_per_step={config.rl.prompts_per_step}",
                wanted="as many problems: a step draws each of its prompts once",
                fix="lower rl.prompts_per_step, or check data.limit and data.max_prompt_tokens",
            )
        if "rl" in due:
            curricula.of_rl(context)
    if "pretrain" in due and not (config.teacher.path and config.student.path):
        supervised.rows(context, answer_only=0.0)
    if "sft" in due:
        supervised.rows(context, answer_only=config.sft.answer_only)
    if "distill" in due:
        _check_distill(context)
    for name in ("distill", "rl"):
        if name in due and getattr(config, name).eval_every:
            context.problems("validation")
    if "evaluate" in due:
        context.problems("test")


def _check_distill(context: Context) -> None:
    """The stage's rows, as far as they are known before the teacher has written any."""
    settings, vocab = context.config.distill, context.vocab
    if settings.loss.top_k > vocab:
        raise ConfigError(
            f"distill.loss.top_k={settings.loss.top_k}", wanted=f"at most {vocab}, all tokens"
        )
    if settings.data == "solutions":
        supervised.rows(context, answer_only=0.0)
    count = len(context.problems("train").problems)
    if settings.data == "teacher_samples" and settings.teacher_samples.problems > count:
        raise DataError(
            f"distill.teacher_samples.problems={settings.teacher_samples.problems}",
            wanted=f"at most the {count} training problems",
        )
    curricula.of_distill(context, context.problems("train").problems)
