"""Files that are written whole or not at all, and JSON in them."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill_jax.core.errors import CheckpointError


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to: takes its name when the block ends, goes if it fails."""
    beside = path.with_name(path.name + ".partial")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole, in UTF-8."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a file of ours whole, with the folders it needs; starts no JAX."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file of ours holds; None when it is missing.

    Raises:
        CheckpointError: it is not JSON.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}", fix="delete it") from error
