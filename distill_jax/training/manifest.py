"""run.json: what a run was made of — resolved config, versions, devices, git commit, starts."""

import contextlib
import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from distill_jax.core import files

RUN_FILE = "run.json"
PACKAGES = (
    "distill_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "safetensors",
    "datasets",
    "numpy",
)


def write_manifest(directory: Path, config: Mapping[str, Any]) -> None:
    """Writes `run.json` in a directory (made when missing), adding this start to earlier ones.

    Each start names the settings that differ from the start before. Call it on every process;
    process 0 writes, atomically.
    """
    if jax.process_index() != 0:
        return
    before, plain = read_manifest(directory), json.loads(json.dumps(config))
    changed = changes(before.get("config", plain), plain)
    directory.mkdir(parents=True, exist_ok=True)
    starts = [*before.get("starts", []), {**describe_run(), "changed_settings": changed}]
    text = json.dumps({"config": plain, "starts": starts}, indent=2, ensure_ascii=False)
    files.write_text(directory / RUN_FILE, text + "\n")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a directory, {} when there is none or it cannot be read."""
    try:
        record = files.read_json(directory / RUN_FILE)
    except ValueError:  # a note about the run must not keep it from going on
        return {}
    return record if isinstance(record, dict) else {}


def changes(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[str]:
    """Dotted names whose values differ between two nested mappings."""
    out: list[str] = []
    for key in [*before, *(k for k in after if k not in before)]:
        old, new, name = before.get(key), after.get(key), f"{path}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            out += changes(old, new, f"{name}.")
        elif old != new:
            out.append(name)
    return out


def describe_run() -> dict[str, Any]:
    """Time, command, versions, devices and code of the running process."""
    device = jax.devices()[0]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "devices": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "git": git_state(Path(__file__).parent),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that can change a result; missing ones are skipped."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the code and whether the tree differs from it; None outside a repository."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed_files": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    )
    return done.stdout.strip()
