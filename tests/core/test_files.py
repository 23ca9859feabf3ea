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


def test_what_killed_processes_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(process: int, _: int) -> None:
        if process != 7:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    below = tmp_path / "rl" / "deep"
    below.mkdir(parents=True)
    old = [below / "a.json.8.partial", tmp_path / "b.9.partial"]
    # Of a process that runs, not ours, of a stage; and one that was written just now.
    kept = [below / "a.json.7.partial", below / "mine.partial", below / "a.json"]
    for path in (*old, *kept):
        path.write_text("half")
        os.utime(path, (1.0, 1.0))
    kept.append(tmp_path / "now.8.partial")
    kept[-1].write_text("half")
    for folder in (tmp_path / "sft.partial", below / "sft.partial"):
        folder.mkdir()
        (folder / "x").write_text("half")
    files.remove_stale(tmp_path)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in old)
    assert not (tmp_path / "sft.partial").exists() and (below / "sft.partial" / "x").exists()


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
