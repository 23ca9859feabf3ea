"""Directories of an experiment's runs."""

from pathlib import Path

SHARED = "shared"


def run_directory(workdir: Path, arm: str, seed: int) -> Path:
    """workdir/ARM/seed_N: an ordinary work directory."""
    return workdir / arm / f"seed_{seed}"
