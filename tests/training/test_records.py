"""Records: rows on disk, resumed files equal uninterrupted ones, what is refused."""

import io
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from distill_jax.core.errors import DataError, MissingExtraError
from distill_jax.training.records import (
    Recorder,
    RecordSettings,
    completions_table,
    is_timing,
    read_rows,
)

QUIET = RecordSettings(console_completions=0)


def figures(step: int) -> dict:
    # A function of the step, as in a run that resumes exactly; step_time is not.
    return {"reward": jnp.float32(step / 3), "num_tokens": 10 * step, "step_time": np.random.rand()}


def rows_at(step: int) -> list[dict]:
    return [{"prompt": f"p{step}", "completion": "é\n[x]", "rewards/a": 1.0, "advantage": None}]


def record(workdir: Path, first: int, last: int, resume_step: int = 0) -> None:
    with Recorder(workdir, QUIET, resume_step=resume_step) as recorder:
        for step in range(first, last + 1):
            recorder.metrics(step, figures(step))
            recorder.completions(step, rows_at(step))


def test_rows_are_plain_json_with_step_first(tmp_path: Path) -> None:
    with Recorder(tmp_path, QUIET) as recorder:
        recorder.metrics(
            np.int64(2),
            {"a": jnp.float32(0.5), "b": np.int32(3), "c": float("nan"), "d": jnp.inf, "e": True},
        )
        # Flushed at once: a kill -9 loses nothing that was recorded.
        text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 2, "a": 0.5, "b": 3, "c": null, "d": null, "e": 1}\n'


def test_resumed_files_equal_uninterrupted_ones(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    record(whole, 1, 9)
    # Killed after step 7 in the middle of writing row 8; the newest checkpoint is step 4.
    record(stopped, 1, 7)
    with (stopped / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 8, "rew')
    record(stopped, 5, 9, resume_step=4)
    a, b = (read_rows(d / "metrics.jsonl") for d in (whole, stopped))
    for row in a + b:
        del row["step_time"]  # of `is_timing`
    assert a == b and [row["step"] for row in b] == list(range(1, 10))
    assert (whole / "completions.jsonl").read_bytes() == (
        stopped / "completions.jsonl"
    ).read_bytes()
    assert sorted(p.name for p in stopped.iterdir()) == ["completions.jsonl", "metrics.jsonl"]


def test_kept_rows_are_kept_byte_for_byte(tmp_path: Path) -> None:
    record(tmp_path, 1, 3)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    Recorder(tmp_path, QUIET, resume_step=3).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_fresh_start_empties_the_files(tmp_path: Path) -> None:
    record(tmp_path, 0, 3)  # killed before its first checkpoint
    record(tmp_path, 0, 1)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [0, 1]
    assert [row["step"] for row in read_rows(tmp_path / "completions.jsonl")] == [0, 1]


def test_a_damaged_middle_line_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    record(tmp_path, 1, 1)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + "{oops\n" + '{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl line 2"):
        Recorder(tmp_path, QUIET, resume_step=1)
    path.write_text('[1]\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl line 1"):
        read_rows(path)


def test_completions_are_limited_on_disk_and_console(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    settings = RecordSettings(completions=3, console_completions=1)
    rows = [
        {"prompt": f"p{i}", "completion": "c", "reward": 0.25, "advantage": i} for i in range(5)
    ]
    with Recorder(tmp_path, settings, console=console) as recorder:
        recorder.completions(7, rows)
    stored = read_rows(tmp_path / "completions.jsonl")
    assert [row["prompt"] for row in stored] == ["p0", "p1", "p2"]
    assert stored[0] == {
        "step": 7,
        "prompt": "p0",
        "completion": "c",
        "reward": 0.25,
        "advantage": 0,
    }
    shown = console.file.getvalue()
    assert "step 7" in shown and "p0" in shown and "0.250" in shown and "p1" not in shown


def test_half_a_surrogate_pair_is_written_and_read_again(tmp_path: Path) -> None:
    row = {"prompt": "é", "completion": "\ud800 and \U0001f600", "advantage": 1.0}
    loud = RecordSettings(console_completions=1)
    console = Console(file=(tmp_path / "console").open("w", encoding="utf-8"))
    with Recorder(tmp_path, loud, console=console) as recorder:
        recorder.completions(1, [row])
    (found,) = read_rows(tmp_path / "completions.jsonl")
    assert found == {"step": 1, **row}


def test_a_model_s_brackets_are_text_not_markup() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(completions_table(1, [{"completion": "[bold]x[/bold] [/y]", "reward": None}]))
    assert "[bold]x[/bold] [/y]" in console.file.getvalue()


@pytest.mark.parametrize(
    ("settings", "logged", "tables"),
    [
        (RecordSettings(every=2, completions_every=3), [1, 2, 4, 6], [1, 3, 6]),
        (RecordSettings(every=1, completions_every=0), [1, 2, 3, 4, 5, 6], []),
    ],
)
def test_which_steps_are_due(settings: RecordSettings, logged: list, tables: list) -> None:
    assert [s for s in range(1, 7) if settings.metrics_due(s)] == logged
    assert [s for s in range(1, 7) if settings.completions_due(s)] == tables


def test_timing_names() -> None:
    assert is_timing("step_time") and is_timing("rollout/tokens_per_second") and is_timing("time/x")
    assert not is_timing("reward") and not is_timing("completions/mean_length")


def test_tensorboard_holds_the_scalars(tmp_path: Path) -> None:
    with Recorder(tmp_path, RecordSettings(tensorboard=True)) as recorder:
        recorder.metrics(3, {"reward": 0.5, "bad": float("nan")})
    (path,) = (tmp_path / "tensorboard").iterdir()
    raw, found = path.read_bytes(), []
    while raw:  # a record: length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(raw[:8], "little")
        event = Event.FromString(raw[12 : 12 + length])
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        raw = raw[16 + length :]
    assert found == [(3, "reward", 0.5)]


@pytest.mark.parametrize(
    ("settings", "module", "extra"),
    [
        (RecordSettings(tensorboard=True), "tensorboardX", "'.[tensorboard]'"),
        (RecordSettings(wandb=True), "wandb", "'.[wandb]'"),
    ],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as error:
        Recorder(tmp_path, settings)
    assert f"pip install -e {extra}" in str(error.value)


class FakeWandb:
    """Stands for the wandb module: it is 76 MB and wants an account."""

    def __init__(self) -> None:
        self.started: list[dict] = []
        self.logged: list[tuple] = []
        self.finished, self.id = 0, "abc123"

    def init(self, **arguments) -> "FakeWandb":
        self.started.append(arguments)
        return self

    def log(self, values: dict, step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def test_wandb_gets_the_numbers_and_a_resumed_run_goes_on_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = RecordSettings(wandb=True, wandb_project="p", wandb_mode="offline")
    for resume in (0, 3):
        with Recorder(tmp_path, settings, resume_step=resume, name="rl", config={"seed": 1}) as r:
            r.metrics(resume + 1, {"reward": 0.5, "bad": float("nan")})
    assert fake.logged == [(1, {"reward": 0.5}), (4, {"reward": 0.5})] and fake.finished == 2
    assert [start["id"] for start in fake.started] == [None, "abc123"]
    first = fake.started[0]
    assert (first["project"], first["mode"], first["name"], first["config"]) == (
        "p", "offline", "rl", {"seed": 1},
    )  # fmt: skip


def test_only_process_zero_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with Recorder(tmp_path / "x", RecordSettings(tensorboard=True)) as recorder:
        recorder.metrics(1, {"a": 1.0})
        recorder.completions(1, rows_at(1))
    assert not (tmp_path / "x").exists()


def test_read_rows_of_nothing(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.jsonl") == []
