"""Refuses settings that a user gave and that nothing reads; see `core.unread`."""

from collections.abc import Collection
from pathlib import Path

from distill_jax.core import unread
from distill_jax.core.unread import Found
from distill_jax.run.config import RunConfig, shared_of
from distill_jax.run.run import SETTINGS_FILE


def ignored(config: RunConfig, workdir: Path) -> list[Found]:
    """The settings of stages to run that nothing reads.

    Not those of a stage that has begun in `workdir`, which has to keep them, nor shared ones once
    some stage has.
    """
    new = [name for name in config.stages if not (workdir / name / SETTINGS_FILE).is_file()]
    shared = unread.find(shared_of(config)) if len(new) == len(config.stages) else []
    if any(getattr(config.plan[name], "task", "") == "program" for name in config.stages):
        shared = [one for one in shared if not one.name.startswith("programs.")]
    own = [one for name in new for one in unread.find(config.plan[name], f"{name}.")]
    return [*shared, *own]


def refuse_ignored(config: RunConfig, workdir: Path, given: Collection[str]) -> None:
    """Raises ConfigError where one of the settings `given`, by dotted names, is ignored.

    What a preset brings is not refused: `--config.rl.rewards.intrinsic_weight=0` alone is right
    whatever momentum the preset has. Each stage names those when it begins.
    """
    unread.refuse(ignored(config, workdir), given)
