"""Files of a run that process 0 alone writes."""

from pathlib import Path
from typing import Any

import jax

from distill_jax.core import files


def write_json(path: Path, value: Any) -> None:
    """`files.write_json` on process 0."""
    if jax.process_index() == 0:
        files.write_json(path, value)
