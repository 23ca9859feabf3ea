"""Files that are written whole or not at all, and JSON in them."""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill_jax.core.errors import CheckpointError, ConfigError

CONFIG_FILE = "config.json"  # in a work directory: the settings of its last run
_PARTIAL = re.compile(r".+\.(\d+)\.partial")
_OLD_S = 600.0
# Two letters at least: C:/ is a drive. One slash is what pathlib leaves of two.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_local(path: str | Path, name: str) -> None:
    """Refuses gs://bucket, s3://bucket and the like, which would become a local folder "gs:".

    `name` is that of the flag or setting. Raises ConfigError if the path has a scheme.
    """
    if _SCHEME.match(str(path)):
        raise ConfigError(
            f"{name}={path}: object stores are not supported",
            wanted="a directory of a mounted file system",
            fix="mount the bucket, or copy the results there afterwards",
        )


def store_path(rendered: Path) -> Path:
    """The answer store (inference/store.py) from which a file is rendered: FILE.store."""
    return rendered.with_name(rendered.name + ".store")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file of this process next to `path`: renamed to `path` at the end, removed on an error."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_stale(directory: Path) -> None:
    """Removes what killed processes left of `whole` below a directory, and of `run.adopt` in it.

    Call it with the directory's lock held. A file stays while its process runs on this host, and
    for ten minutes after its last change, since its process may run on another host.
    """
    for path in directory.rglob("*.partial"):
        found = _PARTIAL.fullmatch(path.name)
        if found and path.is_file() and not _runs(int(found[1])):
            if time.time() - path.stat().st_mtime > _OLD_S:
                path.unlink(missing_ok=True)
        elif path.is_dir() and path.parent == directory and path.stem.isidentifier():
            shutil.rmtree(path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no number of a process
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Writes a file whole, in UTF-8; halves of surrogate pairs, which that lacks, as escapes."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes a file of ours whole, with the folders it needs; starts no JAX."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file of ours holds, None without one; CheckpointError if it is not JSON."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}", fix="delete it") from error
