"""Rows of a stage: a JSON object a line, the file whole or not there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_jax.run.console import write_rows


def test_rows_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.jsonl", [{"a": "é\u2028\ud800"}, {"a": None}]
    write_rows(path, iter(rows))
    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == rows and lines[-1] == b""

    def failing() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, failing())
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_rows(path, [{"a": float("nan")}])
    assert path.read_bytes().split(b"\n") == lines
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
