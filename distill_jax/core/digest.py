"""Digests of contents: of bytes, of arrays, of a model's files."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from distill_jax.core import files

_ADAPTER_CONFIG, _BASE_NAME = "adapter_config.json", "base_model_name_or_path"


def of(*parts: bytes | str) -> str:
    """blake2b (128 bits, hex) of the parts, one after another."""
    return of_all(parts)


def of_all(parts: Iterable[bytes | str]) -> str:
    """blake2b (128 bits, hex) of an iterable of parts."""
    out = hashlib.blake2b(digest_size=16)
    for part in parts:
        out.update(part.encode() if isinstance(part, str) else part)
    return out.hexdigest()


def of_files(paths: Sequence[Path]) -> str:
    """Digest of files' names and whole contents, in the order given.

    The name of the base model in an adapter_config.json does not count.

    Whole: two checkpoints of one training agree in names, sizes and perhaps in the first tensor.
    About a second for each gigabyte and core.
    """

    def one(path: Path) -> bytes:
        if path.name == _ADAPTER_CONFIG:
            # Where the base model is does not change what an adapter does.
            values = {k: v for k, v in files.read_json(path).items() if k != _BASE_NAME}
            text = json.dumps(values, sort_keys=True)
            return hashlib.blake2b(text.encode(), digest_size=32).digest()
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=32)).digest()

    with ThreadPoolExecutor() as pool:
        digests = pool.map(one, paths)
        return of_all(
            f"{path.name}\0".encode() + part for path, part in zip(paths, digests, strict=True)
        )


def model_files(directory: Path) -> list[Path]:
    """What decides a model's or an adapter's function: its configuration and weight files.

    A file stands for itself.
    """
    if directory.is_file():
        return [directory]
    names = ("config.json", _ADAPTER_CONFIG, "prm_config.json")  # the last of a reward model
    configs = [directory / name for name in names]
    return [path for path in configs if path.is_file()] + sorted(directory.glob("*.safetensors"))


class Remembered:
    """Digests of model directories and single files, kept in a JSON file while they stay the same.

    Args:
        path: of the JSON file; None remembers in memory alone.
    """

    def __init__(self, path: Path | None):
        self.path = path
        known = files.read_json(path) if path is not None else None
        self._known: dict[str, Any] = known or {}

    def of_model(self, directory: Path) -> str:
        """Digest of a model's files, or of one file; read where a size or time changed."""
        paths = model_files(directory)
        states = [(path.name, path.stat()) for path in paths]
        key, now = str(directory.absolute()), [[n, s.st_size, s.st_mtime_ns] for n, s in states]
        found = self._known.get(key)
        if found is not None and found["files"] == now:
            return str(found["digest"])
        digest = of_files(paths)
        self._known[key] = {"files": now, "digest": digest}
        if self.path is not None:
            files.write_json(self.path, self._known)
        return digest
