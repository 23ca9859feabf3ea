"""Files that commands write for `--json`: whole or not at all."""

import json
from pathlib import Path
from typing import Any

from distill_jax.core.errors import DataError


def write_json(path: Path, content: Any) -> None:
    """Writes beside and renames.

    Raises:
        DataError: nothing can be written there.
    """
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
