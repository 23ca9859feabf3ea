"""Records of a run: metrics.jsonl, completions.jsonl, TensorBoard and W&B when asked.

A resumed run first drops what was written after the checkpoint that it starts from, so its files
end up the same as those of a run that was never stopped (fields of `is_timing` aside).
"""

import contextlib
import importlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from distill_jax.core import files
from distill_jax.core.errors import DataError, MissingExtraError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off

METRICS_FILE = "metrics.jsonl"
COMPLETIONS_FILE = "completions.jsonl"
# Figures of step 0's completions, before any update.
FIRST_ROLLOUT_FILE = "first_rollout.json"


@dataclass(frozen=True)
class RecordSettings:
    """What is written down while a stage runs."""

    UNREAD: ClassVar = (
        Unread(("completions", "console_completions"), ("completions_every",), off),
        Unread(("console_completions",), ("completions",), off),
        Unread(("wandb_project", "wandb_mode"), ("wandb",), off),
    )

    every: int = setting(10, "Steps between rows of metrics.jsonl.", low=1)
    completions_every: int = setting(
        50, "Steps between tables of sampled completions; 0 writes none.", low=0
    )
    completions: int = setting(16, "Completions written to completions.jsonl each time.", low=0)
    console_completions: int = setting(4, "Completions of these shown on the console.", low=0)
    tensorboard: bool = setting(False, "Also write TensorBoard events (extra: tensorboard).")
    wandb: bool = setting(False, "Also log to Weights & Biases (extra: wandb).")
    wandb_project: str = setting("distill_jax", "Project on Weights & Biases.")
    wandb_mode: str = setting(
        "online", "Weights & Biases mode.", choices=("online", "offline", "disabled")
    )

    def metrics_due(self, step: int) -> bool:
        """Whether the step just completed is one that is logged; the first one always is."""
        return step == 1 or step % self.every == 0

    def completions_due(self, step: int) -> bool:
        """Whether the step just completed is one whose completions are written."""
        every = self.completions_every
        return every > 0 and (step == 1 or step % every == 0)


def is_timing(name: str) -> bool:
    """Whether a metric measures the machine rather than the run: it differs between reruns."""
    return name.endswith(("_time", "_per_second", "_bytes")) or name.startswith(
        ("time/", "perf/", "teacher_cache/")
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics or completions file; a missing one has none.

    A torn last line (the process was killed while writing it) is skipped.

    Raises:
        DataError: another line is not a JSON object with a step (file, line).
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row, problem = json.loads(line), ""
        except ValueError as error:
            row, problem = None, str(error)
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise DataError(
                f"{path} line {number}: {problem or 'no step'}",
                wanted="a JSON object with an integer step",
                fix="delete the line",
            )
        rows.append(row)
    return rows


class Recorder(contextlib.AbstractContextManager["Recorder"]):
    """Writes a stage's records; every process makes one, only process 0 writes.

    Call `metrics` for step s before the checkpoint of step s is saved: then a checkpoint on disk
    means that its rows are, too.

    Args:
        workdir: the stage's directory; made when missing.
        settings: what to write.
        resume_step: the step restored; later rows are dropped. 0 starts the files afresh.
        name: the stage's name for TensorBoard and W&B.
        config: the resolved config for W&B.
        console: where completion tables go; rich's standard console when None.

    Raises:
        MissingExtraError: TensorBoard or W&B is asked for and not installed.
    """

    def __init__(
        self,
        workdir: str | Path,
        settings: RecordSettings | None = None,
        *,
        resume_step: int = 0,
        name: str = "",
        config: Mapping[str, Any] | None = None,
        console: Console | None = None,
    ):
        self.workdir, self.settings = Path(workdir), settings or RecordSettings()
        self._console = console or Console()
        self._files: dict[str, TextIO] = {}
        self._tensorboard: Any = None
        self._wandb: Any = None
        self.active = jax.process_index() == 0
        if not self.active:
            return
        self.workdir.mkdir(parents=True, exist_ok=True)
        if self.settings.tensorboard:
            writer = extra("tensorboard", "tensorboardX").SummaryWriter
            purge = resume_step + 1 if resume_step else None
            self._tensorboard = writer(str(self.workdir / "tensorboard"), purge_step=purge)
        if self.settings.wandb:
            self._wandb = _open_wandb(self.workdir, self.settings, name, config or {})
        for file in (METRICS_FILE, COMPLETIONS_FILE):
            _drop_after(self.workdir / file, resume_step)

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one row {"step": updates done, **values} and flushes it.

        Values are scalars (Python, numpy or jax); one that is not finite is written as null.
        """
        if not self.active:
            return
        row = {name: _number(value) for name, value in values.items()}
        self._append(METRICS_FILE, {"step": int(step), **row})
        finite = {name: value for name, value in row.items() if value is not None}
        if self._tensorboard is not None:
            for name, value in finite.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(finite, step=step)

    def completions(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes sampled completions: all of `settings.completions` to disk, a few to the console.

        Each row has `prompt`, `completion`, one number per reward, `advantage`.
        """
        if not self.active:
            return
        kept = []
        for row in rows[: self.settings.completions]:
            values = {k: v if isinstance(v, str) else _number(v) for k, v in row.items()}
            kept.append({"step": int(step), **values})
            self._append(COMPLETIONS_FILE, kept[-1])
        if shown := kept[: self.settings.console_completions]:
            self._console.print(completions_table(step, shown))

    def _append(self, file: str, row: Mapping[str, Any]) -> None:
        if file not in self._files:
            # Half a surrogate pair, as a hostile text may hold, becomes an escape of JSON.
            self._files[file] = (self.workdir / file).open(
                "a", encoding="utf-8", errors="backslashreplace"
            )
        self._files[file].write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        self._files[file].flush()

    def close(self) -> None:
        """Closes the files and the services."""
        for handle in self._files.values():
            handle.close()
        self._files.clear()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __exit__(self, *_: object) -> None:
        self.close()


def completions_table(step: int, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The console's table of completions: texts, then one column per reward."""
    table = Table(title=f"completions of step {step}", show_lines=True)
    columns = [name for name in rows[0] if name != "step"]
    for name in columns:
        text = isinstance(rows[0][name], str)
        table.add_column(name, overflow="fold", justify="left" if text else "right")
    for row in rows:
        table.add_row(*[_cell(row.get(name)) for name in columns])
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    # Completions are text from a model: brackets in them are not rich markup, and a console has no
    # halves of surrogate pairs.
    return str(value).encode("utf-8", "backslashreplace").decode().replace("[", r"\[")


def _number(value: Any) -> float | int | None:
    """A JSON number from any scalar; None for None and for what is not finite."""
    if value is None:
        return None
    scalar = np.asarray(value).item()
    if isinstance(scalar, bool | int):
        return int(scalar)
    return float(scalar) if math.isfinite(scalar) else None


def _drop_after(path: Path, step: int) -> None:
    """Rewrites a JSONL file without rows past `step`, atomically and byte for byte."""
    if not path.exists():
        return
    read_rows(path)  # a damaged line is an error before anything is changed
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n") and json.loads(line)["step"] <= step and step > 0:
            kept.append(line)
    with files.whole(path) as partial, partial.open("wb") as handle:
        handle.writelines(kept)
        handle.flush()
        os.fsync(handle.fileno())


def extra(name: str, package: str) -> Any:
    """The optional package that the setting `name` needs."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"records.{name}=True without {package}",
            fix=f"pip install -e '.[{name}]' or set records.{name}=False",
        ) from error


def _open_wandb(
    workdir: Path, settings: RecordSettings, name: str, config: Mapping[str, Any]
) -> Any:
    id_file = workdir / "wandb_id"  # a resumed run goes on in the same W&B run
    known = id_file.read_text(encoding="utf-8").strip() if id_file.exists() else None
    run = extra("wandb", "wandb").init(
        project=settings.wandb_project,
        name=name or None,
        dir=str(workdir),
        config=dict(config),
        mode=settings.wandb_mode,
        id=known,
        resume="allow",
    )
    id_file.write_text(run.id, encoding="utf-8")
    return run
