"""Where the runs of an experiment lie, and what they begin with."""

import os
import shutil
from pathlib import Path

SHARED = "shared"


def run_directory(workdir: Path, arm: str, seed: int) -> Path:
    """workdir/ARM/seed_N: an ordinary work directory."""
    return workdir / arm / f"seed_{seed}"


def adopt(source: Path, target: Path, stages: tuple[str, ...]) -> None:
    """Gives a run the complete stages, tokenizer and evaluations of another, as hard links.

    A complete stage's files are never written again, so that links cost no space and harm
    nothing; where links cannot be made they are copied. What is there already stays.

    Args:
        source: the run that has them.
        target: the run that shall begin with them.
        stages: those whose results both have in common.
    """
    if not stages:
        return
    for name in ("tokenizer", *stages):
        if (source / name).is_dir() and not (target / name).exists():
            beside = target / f"{name}.partial"
            shutil.rmtree(beside, ignore_errors=True)
            target.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source / name, beside, copy_function=_link)
            beside.rename(target / name)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
