"""A file is there whole or as it was before."""

import json
import os
from pathlib import Path

import pytest

from distill_jax.core import files
from distill_jax.core.errors import CheckpointError


def test_what_breaks_off_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "όλον")
    with pytest.raises(RuntimeError, match="broke"), files.whole(path) as beside:
        beside.write_text("half")
        assert path.read_text(encoding="utf-8") == "όλον"
        raise RuntimeError("broke")
    assert path.read_text(encoding="utf-8") == "όλον" and list(tmp_path.iterdir()) == [path]
    files.write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new" and list(tmp_path.iterdir()) == [path]


def test_two_processes_do_not_share_the_file_that_they_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    with files.whole(path) as first:
        first.write_text("first, whole")
        monkeypatch.setattr(os, "getpid", lambda: 7)
        with pytest.raises(RuntimeError, match="broke"), files.whole(path) as second:
            second.write_text("half")
            raise RuntimeError("broke")
    assert path.read_text() == "first, whole" and list(tmp_path.iterdir()) == [path]


def test_json_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    assert files.read_json(path) is None
    files.write_json(path, {"a": [1, 0.1]})
    assert files.read_json(path) == {"a": [1, 0.1]}
    with pytest.raises(ValueError, match="not JSON compliant"):  # NaN would be no JSON
        files.write_json(path, float("nan"))
    assert files.read_json(path) == {"a": [1, 0.1]}
    path.write_text(json.dumps([1])[:-1])
    with pytest.raises(CheckpointError, match=r"a\.json is not JSON: .*fix: delete it"):
        files.read_json(path)
