"""Some arrays of a stage's checkpoints, read while a run may still be writing more."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from distill_jax.core.errors import CheckpointError
from distill_jax.training.checkpoint import damage


def steps(directory: str | Path) -> list[int]:
    """The steps whose checkpoints are complete, oldest first; none without such a directory.

    Unlike `Checkpointer` this removes nothing: a half-written step may belong to another process.
    """
    directory = Path(directory)
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.is_dir() else []


def has(directory: str | Path, step: int, prefix: str) -> bool:
    """Whether a checkpoint's state has anything below a dotted path; see `read`.

    Raises:
        CheckpointError: no such step, or damaged files.
    """
    return bool(_below(directory, step, prefix))


def read(directory: str | Path, step: int, prefix: str) -> dict[str, Any]:
    """The part of a checkpoint's state below a dotted path.

    Args:
        directory: as given to `Checkpointer`.
        step: one of `steps(directory)`.
        prefix: e.g. "trainable.lora"; taken off the names of the nested dict.

    Raises:
        CheckpointError: no such step, damaged files, or nothing below that path.
    """
    where, index = Path(directory).absolute() / str(step), _below(directory, step, prefix)
    if not index:
        raise CheckpointError(f"checkpoint {where} has nothing below {prefix}")
    try:
        arrays = _arrays(where, index)
    except Exception as error:  # `damage` raises again what no file causes
        raise _damaged(where, error) from error
    return unflatten_dict({n.removeprefix(f"{prefix}."): arrays[n] for n in index}, sep=".")


def _below(directory: str | Path, step: int, prefix: str) -> dict[str, Any]:
    """What a checkpoint says of its arrays below a dotted path, by name."""
    where = Path(directory).absolute() / str(step)
    if step not in steps(directory):
        known = ", ".join(map(str, steps(directory))) or "none is there"
        raise CheckpointError(f"no checkpoint of step {step} in {directory}", wanted=known)
    try:
        index = json.loads((where / "meta" / "metadata").read_text(encoding="utf-8"))["index"]
    except Exception as error:  # `damage` raises again what no file causes
        raise _damaged(where, error) from error
    return {name: one for name, one in index.items() if name.startswith(f"{prefix}.")}


def _damaged(where: Path, error: Exception) -> CheckpointError:
    got = f"checkpoint {where} is damaged: {damage(error)}"
    return CheckpointError(got, fix="take another step")


def _arrays(where: Path, index: dict[str, Any]) -> dict[str, np.ndarray]:
    wanted = {name: np.zeros(one["shape"], one["dtype"]) for name, one in index.items()}
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        args = ocp.args.PyTreeRestore(item=wanted, restore_args=how, partial_restore=True)
        return reader.restore(where / "state", args=args)
