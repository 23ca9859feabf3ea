"""Checkpoints: the whole state of a run in one atomic step, over orbax's CheckpointManager.

The state's leaves are stored flat, each under its path in the tree, with an index of their
shapes and dtypes. Reading compares that index with what the program expects before any array is
read, since orbax by itself casts dtypes silently and returns optimiser state as bare dicts.
"""

import contextlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from distill_jax.core.errors import CheckpointError
from distill_jax.core.settings import setting
from distill_jax.core.sharding import barrier
from distill_jax.core.unread import Unread, off

# What orbax, tensorstore and json raise for files that are gone, cut short or altered.
_DAMAGE = (ValueError, OSError, KeyError, TypeError, RuntimeError, EOFError)


class _Damaged(Exception):
    """The files of one step cannot be read; the message is orbax's reason."""


class _NewestAndBest:
    """orbax's PreservationPolicy: the newest N steps, and the one with the best score."""

    def __init__(self, newest: int, scores: Mapping[int, float]):
        self.newest, self.scores = newest, scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One flag for each of `checkpoints`, which come oldest first."""
        del context
        steps = [info.step for info in checkpoints]
        keep = set(steps[-self.newest :])
        scored = [step for step in steps if step in self.scores]
        if scored:
            keep.add(max(scored, key=lambda step: (self.scores[step], step)))
        return [step in keep for step in steps]


@dataclass(frozen=True)
class CheckpointSettings:
    """When checkpoints are written and which are kept."""

    UNREAD: ClassVar = (Unread(("best_mode",), ("keep_best",), off),)

    every: int = setting(100, "Steps between checkpoints; the last step is always saved.", low=1)
    keep: int = setting(2, "How many of the newest checkpoints are kept.", low=1)
    keep_best: str | None = setting(
        None,
        "Metric whose best checkpoint is kept too, e.g. eval/accuracy; None keeps none. Stage "
        "pretrain evaluates nothing, and keeps the newest alone.",
    )
    best_mode: str = setting("max", "Whether larger or smaller is best.", choices=("max", "min"))
    background: bool = setting(True, "Write in the background while training goes on.")


class Restored(NamedTuple):
    """A checkpoint as read back: its step, the state on the example's shardings, the notes."""

    step: int
    state: Any
    meta: dict[str, Any]


class Checkpointer(contextlib.AbstractContextManager["Checkpointer"]):
    """Saves and restores (state, meta) by step in one directory; safe against kill -9.

    Every process of a multi-process run makes one and calls the same methods in the same order. The
    directory is made when missing.
    """

    def __init__(self, directory: str | Path, settings: CheckpointSettings | None = None):
        self.directory = Path(directory).absolute()  # orbax fails late on relative paths
        self.settings = settings or CheckpointSettings()
        self._scores: dict[int, float] = {}
        options = ocp.CheckpointManagerOptions(
            cleanup_tmp_directories=True,
            enable_async_checkpointing=self.settings.background,
            preservation_policy=_NewestAndBest(self.settings.keep, self._scores),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        for step in self._manager.all_steps():
            self._recall_score(step)

    def save(
        self,
        step: int,
        state: Any,
        meta: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Writes one step; returns when the arrays are copied, the writing may go on behind.

        The state's buffers may be donated as soon as this returns.

        Args:
            step: must be greater than every step saved before.
            state: pytree of jax or numpy arrays; typed random keys are allowed.
            meta: JSON-able notes that come back with the state.
            metrics: evaluation figures; only `settings.keep_best` is looked at.

        Raises:
            CheckpointError: an old step, notes that are not JSON, or a failed earlier write.
        """
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise CheckpointError(
                f"save of step {step} after step {latest} in {self.directory}",
                wanted=f"a step above {latest}",
                fix="resume from the newest checkpoint, or use another work directory",
            )
        leaves = _flatten(state)
        try:
            notes = json.loads(json.dumps(dict(meta or {})))
        except TypeError as error:
            raise CheckpointError(f"meta of step {step}: {error}", wanted="JSON values") from error
        index = {name: _describe(leaf) for name, leaf in leaves.items()}
        arrays = {name: _to_storable(leaf) for name, leaf in leaves.items()}
        score = self._score(metrics or {})
        if score is not None:
            self._scores[step] = score
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays),
                meta=ocp.args.JsonSave({"notes": notes, "index": index, "score": score}),
            ),
            force=True,
        )
        if not self.settings.background:
            self.wait()

    @property
    def scored(self) -> bool:
        """Whether a checkpoint was saved with the metric of `keep_best`."""
        return bool(self._scores)

    def _score(self, metrics: Mapping[str, float]) -> float | None:
        """The figure that `keep_best` asks for, turned so that larger is better."""
        value = metrics.get(self.settings.keep_best or "")
        if value is None or not math.isfinite(value):
            return None
        return float(value) if self.settings.best_mode == "max" else -float(value)

    def _recall_score(self, step: int) -> None:
        try:
            score = self._item(step, meta=ocp.args.JsonRestore())["score"]
        except _Damaged:  # restoring will say so; until then it is no candidate for the best
            return
        if score is not None:
            self._scores[step] = float(score)

    def restore_latest(self, example: Any) -> Restored | None:
        """The newest checkpoint that can be read, or None when the directory holds none.

        A damaged newest checkpoint (files missing or cut short) is reported on stderr and set
        aside as `damaged-STEP`, so that the run may write that step again; the one before it is
        taken.

        Args:
            example: the state's pytree, of arrays or ShapeDtypeStructs (with shardings).

        Raises:
            CheckpointError: checkpoints exist but all are damaged, or the newest readable one
                holds another structure, shape or dtype than the example.
        """
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored, problem = self._read(step, example), ""
            except _Damaged as error:
                restored, problem = None, str(error)
            if _everywhere(restored is not None):
                return restored
            self._set_aside(step, problem or "damaged for another process")
        if steps:
            raise CheckpointError(
                f"all {len(steps)} checkpoints in {self.directory} are damaged",
                fix="start again in a new work directory, or restore the files from a copy",
            )
        return None

    def _read(self, step: int, example: Any) -> Restored:
        record = self._item(step, meta=ocp.args.JsonRestore())
        if not isinstance(record, dict) or not {"notes", "index"} <= record.keys():
            raise _Damaged("its notes are incomplete")
        notes, index = record["notes"], record["index"]
        leaves = _flatten(example)
        _compare(str(self.directory / str(step)), index, leaves)
        targets = {name: _target(leaf) for name, leaf in leaves.items()}
        arrays = self._item(step, state=ocp.args.StandardRestore(targets))
        out = [_from_storable(arrays[name], index[name]) for name in leaves]
        return Restored(step, jax.tree.unflatten(jax.tree.structure(example), out), notes)

    def _item(self, step: int, **item: Any) -> Any:
        """Restores one item of a step; every way in which its files can be bad is _Damaged."""
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**item))[next(iter(item))]
        except Exception as error:  # `damage` raises again what no file causes
            raise _Damaged(damage(error)) from error

    def _set_aside(self, step: int, problem: str) -> None:
        if jax.process_index() == 0:
            path = self.directory / str(step)
            print(f"checkpoint {path} is damaged and set aside: {problem}", file=sys.stderr)
            target, serial = self.directory / f"damaged-{step}", 1
            while target.exists():
                serial += 1
                target = self.directory / f"damaged-{step}-{serial}"
            path.rename(target)
        barrier(f"set aside checkpoint {step}")
        self._manager.reload()

    def latest_step(self) -> int | None:
        """The newest step saved (its write may still be under way), or None."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Blocks until what was saved is on disk.

        Raises:
            CheckpointError: a write in the background failed.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except OSError as error:
            raise CheckpointError(
                f"writing a checkpoint to {self.directory} failed: {error}",
                fix="free disk space or make the directory writable, then run again",
            ) from error

    def close(self) -> None:
        """Waits for writes and releases the manager's threads."""
        self.wait()
        self._manager.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def damage(error: Exception) -> str:
    """Why files cannot be read; an error that has another cause is raised again."""
    # tensorstore's failures come out of orbax as bare Exception, besides the usual kinds.
    known = type(error) is Exception or isinstance(error, _DAMAGE)
    # A device's failure, such as too little memory, is a RuntimeError, but the files are whole.
    if not known or isinstance(error, jax.errors.JaxRuntimeError):
        raise error
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _everywhere(good: bool) -> bool:
    if jax.process_count() == 1:
        return good
    return bool(np.all(multihost_utils.process_allgather(np.asarray(good))))


def _flatten(tree: Any) -> dict[str, Any]:
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in pairs}
    if len(leaves) != len(pairs) or not pairs:
        raise CheckpointError("state with no leaves or two of one path", wanted="distinct paths")
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
            raise CheckpointError(f"leaf {name} of type {type(leaf).__name__}", wanted="an array")
    return leaves


def _is_key(leaf: Any) -> bool:
    return bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _describe(leaf: Any) -> dict[str, Any]:
    about: dict[str, Any] = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if _is_key(leaf):
        about["impl"] = str(jax.random.key_impl(leaf))
    return about


def _to_storable(leaf: Any) -> Any:
    array = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    # Of equal copies one: orbax would cut a part out of each, by a program for every shape.
    copies = array.is_fully_addressable and array.is_fully_replicated
    return array.addressable_data(0) if copies else array


def _from_storable(array: Any, about: Mapping[str, Any]) -> Any:
    return jax.random.wrap_key_data(array, impl=about["impl"]) if "impl" in about else array


def _target(leaf: Any) -> Any:
    """What StandardRestore is asked for: numpy for numpy, else the leaf's own sharding."""
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return np.zeros(leaf.shape, leaf.dtype)
    data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)


def _compare(where: str, index: Mapping[str, Any], leaves: Mapping[str, Any]) -> None:
    missing, extra = sorted(leaves.keys() - index.keys()), sorted(index.keys() - leaves.keys())
    fix = "run with the settings that wrote it, or use another work directory"
    if missing or extra:
        got = [f"lacks {name}" for name in missing[:3]] + [f"has {name}" for name in extra[:3]]
        count = f"{len(missing)} leaves missing, {len(extra)} not wanted"
        raise CheckpointError(f"checkpoint {where} {', '.join(got)} ({count})", fix=fix)
    for name, leaf in leaves.items():
        got_shape, got_dtype = tuple(index[name]["shape"]), index[name]["dtype"]
        if got_shape != tuple(leaf.shape) or got_dtype != str(leaf.dtype):
            raise CheckpointError(
                f"checkpoint {where}: {name} is {got_dtype}{list(got_shape)}",
                wanted=f"{leaf.dtype}{list(leaf.shape)}",
                fix=fix,
            )
