"""Writes a student of a run: a whole model or a PEFT adapter as a directory, or a GGUF file."""

import errno
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distill_jax.core.errors import CheckpointError, ConfigError, DataError
from distill_jax.data import gguf_tokenizer
from distill_jax.data import tokenizer as tokenizers
from distill_jax.evaluation import subjects
from distill_jax.evaluation.subjects import Subject
from distill_jax.handover import card
from distill_jax.models import gguf_file, gguf_write, hf_io, peft_io
from distill_jax.models.lora import merge
from distill_jax.report import view as views
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run
from distill_jax.run.settings import BASE

MERGED, ADAPTER, GGUF = "merged", "adapter", "gguf"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Request(NamedTuple):
    """What to write: MERGED, ADAPTER or GGUF; the dtype of a merged model's weights, a key of
    DTYPES; bytes of its largest file."""

    form: str
    dtype: str = "float32"
    max_shard_bytes: int = 5_000_000_000


def check_target(target: Path, form: str) -> None:
    """Raises DataError where something is at `target` already, other than an empty directory.

    Of the form GGUF: where anything is there. MissingExtraError if that form's package is not.
    Also for a path that is no UTF-8, which the tokenizers library and GGUF files need.
    """
    try:
        str(target.absolute()).encode()
    except UnicodeEncodeError as error:
        fix = "name another directory"
        raise DataError(f"{target!r} is no text", wanted="a path in UTF-8", fix=fix) from error
    if form == GGUF:
        gguf_file.library()
        if target.is_symlink() or target.exists():
            got = f"there is something at {target}"
            raise DataError(got, wanted="a new file", fix="name another, or remove it")
        return
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise DataError(f"{target} is a file or a link", wanted="a directory that is new or empty")
    if target.is_dir() and any(target.iterdir()):
        raise DataError(
            f"{target} is not empty",
            wanted="a directory that is new or empty",
            fix="name another, or remove it",
        )


def export(run: Run, name: str, request: Request, target: Path) -> Path:
    """Writes the model that a name means, whole or not at all; returns the target.

    Args:
        run: of a work directory in which a stage has begun.
        name: base, a stage that makes a student, STAGE_step_N, or a directory.
        request: form and dtype.
        target: a directory that is new or empty; of the form GGUF a new file.

    Raises:
        CheckpointError: no such model, or one that cannot be loaded.
        ConfigError: the teacher; an adapter of what has none; quantised weights; a model or
            tokenizer that a GGUF file does not hold.
        DataError: the target is not empty or cannot be written; the run has no records.
        MissingExtraError: a GGUF file without the package gguf.
    """
    check_target(target, request.form)
    subject = _subject(run, name)
    loaded = subject.load()
    if request.form == ADAPTER and (subject.name == BASE or not loaded.params["lora"]):
        raise ConfigError(
            f"{subject.name} has no adapter", wanted="a stage that trained one", fix="use --merged"
        )
    tokenizer = subject.tokenizer or run.data.tokenizer
    about = ""
    if request.form != GGUF:  # which has no room for one
        described = _described(run, subject, loaded, request, target.absolute().name)
        about = card.write(described, run.workdir)
    try:
        if request.form == GGUF:
            _save_gguf(loaded, target, tokenizer, _base(run, subject))
        elif request.form == ADAPTER:
            _save_adapter(run, subject, loaded, target, about, tokenizer)
        else:
            _save_merged(run, loaded, request, target, about, tokenizer)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # the command says how much is free
        raise DataError(
            f"cannot write {target}: {error.strerror or error}",
            wanted="a place in which it can be made and renamed",
            fix="name another place",
        ) from error
    return target


def _subject(run: Run, name: str) -> Subject:
    if name == subjects.TEACHER:
        path = run.models.path(subjects.TEACHER)
        raise ConfigError(
            "the teacher is no result of this run",
            wanted=f"base, or a stage that makes a student: {', '.join(run.students())}",
            fix=f"its Hugging Face directory is {path}",
        )
    if run.models.settings_of("student").int8:
        raise ConfigError(
            "student.quantise=int8", wanted="student.quantise=none: int8 weights have lost digits"
        )
    return subjects.named(run, name)


def _described(
    run: Run, subject: Subject, loaded: Loaded, request: Request, name: str
) -> card.Exported:
    tokenizer = subject.tokenizer or run.data.tokenizer
    settings, lora = loaded.model.config, loaded.model.lora
    kind = f"{settings.model_type}, {settings.num_layers} layers of width {settings.hidden_size}"
    form = f"Whole model in {request.dtype} ({kind})"
    if request.form == ADAPTER and lora is not None:
        form = f"LoRA adapter of rank {lora.rank} ({kind}); its base model is loaded with it"
    elif loaded.params["lora"] and lora is not None and subject.name != BASE:
        form += f", its LoRA adapter of rank {lora.rank} merged"
    return card.Exported(
        name=name,
        subject=subject.name,
        weights=subject.weights,
        form=f"{form}.",
        adapter=request.form == ADAPTER,
        base=_base(run, subject),
        chat=run.data.task.chat,
        end=tokenizer.convert_ids_to_tokens(tokenizers.eos_id(tokenizer)),
        max_new_tokens=run.config.sampling.response_tokens,
    )


def _base(run: Run, subject: Subject) -> str:
    """Hub id or directory of the pretrained model below a subject; "" where the run made it."""
    if subject.name == subjects.MODEL and not (subject.path / peft_io.CONFIG).is_file():
        return str(subject.path)
    view = views.load(run.workdir)
    chain = view.chain(subject.stage)
    start = chain[0].start if chain else BASE
    return run.config.student.path if start == BASE else start


def _save_merged(
    run: Run, loaded: Loaded, request: Request, target: Path, about: str, tokenizer: Any
) -> None:
    base = _whole(loaded, DTYPES[request.dtype])
    # The sampler waits for one token; the base model's own files may name another.
    ends = {
        "eos_token_id": tokenizers.eos_id(tokenizer),
        "pad_token_id": tokenizers.pad_id(tokenizer),
    }
    generation: dict[str, Any] = {
        **ends,
        "do_sample": False,
        "max_new_tokens": run.config.sampling.response_tokens,
    }
    if loaded.model.config.bos_token_id is not None:
        generation["bos_token_id"] = loaded.model.config.bos_token_id
    hf_io.save_hf(
        target,
        loaded.model.config,
        base,
        tokenizer=tokenizer,
        max_shard_bytes=request.max_shard_bytes,
        about=ends,
        texts={card.FILE: about, "generation_config.json": generation},
    )


def _whole(loaded: Loaded, dtype: Any) -> Any:
    """The base tree with the adapter in it, rounded once."""
    lora = loaded.model.lora
    scale = lora.scale if lora is not None else 1.0
    base = merge(loaded.params["base"], loaded.params["lora"], scale, dtype)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), base)


def _save_gguf(loaded: Loaded, target: Path, tokenizer: Any, base: str) -> None:
    config = loaded.model.config
    gguf_write.check_config(config)  # before a model is merged
    values = gguf_tokenizer.values_of(tokenizer, config.vocab_size)
    licence, _ = card.licence(base)
    about = {"general.name": target.stem, **({"general.license": licence} if licence else {})}
    target.parent.mkdir(parents=True, exist_ok=True)
    gguf_write.save_gguf(target, config, _whole(loaded, jnp.float32), values, about)


def _save_adapter(
    run: Run, subject: Subject, loaded: Loaded, target: Path, about: str, tokenizer: Any
) -> None:
    lora = loaded.model.lora
    if lora is None:  # a whole model has no adapter tree either
        raise CheckpointError(f"{subject.name} has no adapter")
    made = run.base_of(subject.stage) if subject.stage else None
    given = run.config.student.path
    # A hub id as given, so that it is found on other machines.
    base = given if made is None and hf_io.is_hub_id(given) else made or run.models.path("student")
    peft_io.save_adapter(
        target,
        loaded.model.config,
        lora,
        loaded.params["lora"],
        base if isinstance(base, str) else base.absolute(),
        tokenizer=tokenizer,
        texts={card.FILE: about},
    )
