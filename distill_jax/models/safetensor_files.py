"""Safetensors files read tensor by tensor, and directories written atomically."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from distill_jax.core.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = ("F64", "F32", "F16", "BF16")
# What a model or adapter directory may hold and still be replaced as a whole.
_OURS = {".json", ".safetensors", ".jinja", ".txt", ".model", ".md"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: no such file, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        fix = "point at the directory that save_pretrained (or a download) wrote"
        raise CheckpointError(f"no {path.name} in {path.parent}", fix=fix) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", wanted="a JSON file") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}", wanted="a JSON object")
    return value


class TensorReader(contextlib.AbstractContextManager["TensorReader"]):
    """The tensors of one or several safetensors files by name; a context manager.

    Only headers are read on opening; `read` maps one tensor into memory.
    """

    def __init__(self, files: list[Path]):
        self.where: dict[str, Path] = {}
        self._open: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()
        try:
            for path in files:
                handle = self._stack.enter_context(_open(path))
                for name in handle.keys():  # noqa: SIM118 - not a mapping
                    if name in self.where:
                        raise CheckpointError(f"tensor {name} is in {self.where[name]} and {path}")
                    self.where[name], self._open[name] = path, handle
        except CheckpointError:
            self._stack.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return tuple(self._open[name].get_slice(name).get_shape())

    def check(self, wanted: Mapping[str, tuple[int, ...]], where: Path) -> None:
        """Compare names, shapes and types with what the model needs, before reading any.

        Raises:
            CheckpointError: missing, extra, misshapen or not floating-point tensors.
        """
        missing = sorted(set(wanted) - set(self.where))
        extra = sorted(set(self.where) - set(wanted))
        if missing or extra:
            parts = [f"missing {_few(missing)}"] if missing else []
            parts += [f"unexpected {_few(extra)}"] if extra else []
            fix = "check that the configuration belongs to these weights"
            raise CheckpointError(f"tensors in {where}: {' and '.join(parts)}", fix=fix)
        for name, shape in wanted.items():
            if self.shape(name) != shape:
                got = f"{name} in {self.where[name]} has shape {list(self.shape(name))}"
                raise CheckpointError(got, wanted=str(list(shape)))
            dtype = self._open[name].get_slice(name).get_dtype()
            if dtype not in _FLOATS:
                got = f"{name} in {self.where[name]} is stored as {dtype}"
                raise CheckpointError(got, wanted=f"one of {', '.join(_FLOATS)}")

    def read(self, name: str) -> np.ndarray:
        """One tensor as stored."""
        try:
            return self._open[name].get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{name} in {self.where[name]}: {error}") from error


def _open(path: Path) -> Any:
    if not path.is_file():
        fix = "download or copy the directory again, with all its shards"
        raise CheckpointError(f"no {path.name} in {path.parent}", fix=fix)
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        fix = "the file is cut short or damaged: download or copy it again"
        raise CheckpointError(f"cannot read {path}: {error}", fix=fix) from error


def _few(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def model_files(directory: Path) -> list[Path]:
    """The weight files of a model directory, single or sharded.

    Raises:
        CheckpointError: none there, or an index that cannot be used.
    """
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    if not (directory / INDEX).is_file():
        torch_files = sorted(p.name for p in directory.glob("*.bin"))
        fix = "save the model again with safe_serialization=True" if torch_files else ""
        wanted = f"{SINGLE} or {INDEX}" + (f", not {_few(torch_files)}" if torch_files else "")
        raise CheckpointError(f"no weights in {directory}", wanted=wanted, fix=fix)
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"no weight_map in {directory / INDEX}")
    shards = sorted({str(shard) for shard in weight_map.values()})
    for shard in shards:
        if Path(shard).name != shard:
            got = f"{directory / INDEX} names the shard {shard!r}"
            raise CheckpointError(got, wanted="a file name without folders")
    return [directory / shard for shard in shards]


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write one safetensors file that transformers, peft and torch accept."""
    # safetensors 0.8.0 writes the bytes of a transposed view in the order of its base array.
    dense = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(dense, path, metadata={"format": "pt"})
    # safetensors writes for the owner alone; like other files, ours follow the umask, which the
    # directory's own mode shows.
    path.chmod(path.parent.stat().st_mode & 0o666)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, keys in order."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_texts(directory: Path, texts: Mapping[str, str | Mapping[str, Any]]) -> None:
    """Write files by name: a text as it is, a mapping as JSON."""
    for name, content in texts.items():
        if isinstance(content, str):
            (directory / name).write_text(content, encoding="utf-8")
        else:
            write_json(directory / name, content)


@contextlib.contextmanager
def replaced_directory(target: Path) -> Iterator[Path]:
    """A fresh directory next to `target` that takes its name when the block ends well.

    A block that raises leaves what stood at `target` untouched. Readers see the old directory,
    none for the instant between two renames, or the whole new one.

    Raises:
        CheckpointError: `target` holds something that is not a model or adapter directory.
    """
    target = target.absolute()
    if target.exists():
        alien = not target.is_dir() or [
            p.name for p in target.iterdir() if p.is_dir() or p.suffix not in _OURS
        ]
        if alien:
            got = f"{target} holds " + (_few(sorted(alien)) if alien is not True else "a file")
            raise CheckpointError(got, wanted="an absent, empty or model directory to replace")
    target.parent.mkdir(parents=True, exist_ok=True)
    tag = uuid.uuid4().hex[:8]
    fresh, old = target.with_name(f".{target.name}.new-{tag}"), None
    fresh.mkdir()
    try:
        yield fresh
        for path in fresh.iterdir():
            with path.open("rb") as file:  # the rename must not overtake the bytes
                os.fsync(file.fileno())
        if target.exists():
            old = target.with_name(f".{target.name}.old-{tag}")
            target.rename(old)
        fresh.rename(target)
    finally:
        if old is not None and not target.exists():
            old.rename(target)
        elif old is not None:
            shutil.rmtree(old)
        shutil.rmtree(fresh, ignore_errors=True)
