"""run.json: config, versions, device and commit of every start."""

import json
import subprocess
from pathlib import Path

import jax
import pytest

from distill_jax.training import manifest


def test_first_start(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path / "run", {"seed": 1, "sizes": (1, 2)})
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"] == {"seed": 1, "sizes": [1, 2]}
    (start,) = record["starts"]
    assert start["versions"]["jax"] == jax.__version__
    assert start["devices"] == {
        "platform": jax.devices()[0].platform,
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
        "processes": 1,
    }
    assert start["changed_settings"] == []


def test_later_starts_are_added_and_changes_named(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path, {"a": {"b": 1, "c": (1,)}, "d": 1})
    manifest.write_manifest(tmp_path, {"a": {"b": 1, "c": (1,)}, "d": 1})
    manifest.write_manifest(tmp_path, {"a": {"b": 2, "c": (1,)}, "e": 1})
    record = manifest.read_manifest(tmp_path)
    assert record["config"] == {"a": {"b": 2, "c": [1]}, "e": 1}
    assert [s["changed_settings"] for s in record["starts"]] == [[], [], ["a.b", "d", "e"]]
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_damaged_manifest_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"config": ')
    manifest.write_manifest(tmp_path, {"seed": 1})
    assert manifest.read_manifest(tmp_path)["config"] == {"seed": 1}


def test_git_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *arguments],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "x")
    assert manifest.git_state(tmp_path) == {
        "commit": git("rev-parse", "HEAD"),
        "changed_files": False,
    }
    (tmp_path / "a").write_text("2")
    state = manifest.git_state(tmp_path)
    assert state is not None and state["changed_files"] is True
    assert manifest.git_state(tmp_path / "missing") is None


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert manifest.git_state(tmp_path) is None


def test_only_process_zero_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_index", lambda: 1)
    manifest.write_manifest(tmp_path / "x", {})
    assert not (tmp_path / "x").exists()
