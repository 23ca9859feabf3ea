"""The results of a run: one JSON line each, on disk before the next is measured."""

import json
import os
from pathlib import Path
from typing import Any


def note(**row: Any) -> None:
    """Appends a line to gpu.jsonl in the directory $OUT (default: the current one)."""
    line = json.dumps(row)
    print(line, flush=True)
    with (Path(os.environ.get("OUT", ".")) / "gpu.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
