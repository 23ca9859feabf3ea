"""GGUF files: their values, and their tensors dequantised, by the package gguf (extra `gguf`)."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from distill_jax.core.errors import CheckpointError, MissingExtraError


def library() -> ModuleType:
    """The package gguf; MissingExtraError if it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError(
            f"a GGUF file without the package gguf ({error})", fix="pip install -e '.[gguf]'"
        ) from error
    return gguf


class GgufFile:
    """A GGUF file, mapped into memory.

    Args:
        path: of the file; one of a split model is refused.

    Attributes:
        path: of the file.
        values: its key-value pairs as plain values: numbers, texts, lists.
        shapes: tensor name -> shape, [out, in] for projections.

    Raises:
        MissingExtraError: the package gguf is not installed.
        CheckpointError: not a whole GGUF file.
    """

    def __init__(self, path: Path):
        self.path, self._gguf = path, library()
        if not path.is_file():
            raise CheckpointError(f"no file {path}", wanted="a GGUF file")
        try:
            reader = self._gguf.GGUFReader(path)
            self.values: dict[str, Any] = {n: f.contents() for n, f in reader.fields.items()}
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        except (OSError, ValueError, KeyError, IndexError) as error:
            fix = "the file is cut short, damaged or not GGUF: download or copy it again"
            raise CheckpointError(f"cannot read {path}: {error}", fix=fix) from error
        if (parts := self.values.get("split.count", 0)) not in (0, 1):
            fix = "join them first: llama-gguf-split --merge"
            raise CheckpointError(f"{path} is one of {parts} parts of a model", fix=fix)
        self.shapes = {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> np.ndarray:
        """A tensor dequantised: float32, of `shapes[name]`.

        Raises:
            CheckpointError: a type of quantisation that the package gguf does not read.
        """
        tensor = self._tensors[name]
        try:
            found = self._gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            got = f"{name} in {self.path} is stored as {tensor.tensor_type.name}"
            fix = "use a file of another quantisation, e.g. Q8_0 or F16"
            raise CheckpointError(got, wanted="a type that gguf dequantises", fix=fix) from error
        return found.reshape(self.shapes[name]).astype(np.float32)
