"""Files that commands write for `--json`: whole or not at all."""

import json
from pathlib import Path
from typing import Any

from distill_jax.core import files
from distill_jax.core.errors import DataError


def write_json(path: Path, content: Any) -> None:
    """Writes beside and renames.

    Raises:
        DataError: nothing can be written there.
    """
    try:
        files.write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
