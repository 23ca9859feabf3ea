"""Processes on loopback against one process with their devices: all stages, kill -9, resuming.

Several processes add up over gloo, and so does a single one that names a coordinator; any other
single process adds up inside XLA, in another order. So the bits do not depend on the number of
processes, but a process that is alone without a coordinator has other last bits.
"""

import re
import shutil
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from distill_jax.models import hf_io, peft_io
from tests.profile import NIGHTLY
from tests.stages import forks
from tests.stages.forks import Job, Kill, Stop
from tests.stages.small import copy_stages, rows, weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 4
MESHES = {"fsdp": {"mesh.fsdp": 2}}
if NIGHTLY:
    MESHES |= {
        "data": {},
        "tensor": {"mesh.tensor": 2},
        "one axis": {"mesh.data": 1, "mesh.fsdp": -1},
    }
HOW: dict[str, Any] = {
    "stages": ("pretrain", "sft", "rl", "evaluate"),
    "rl.minibatches": 2,
    "rl.steps": STEPS,
    "rl.eval_every": 2,
    "checkpoint.every": 1,
    # Its draw is random by rejection: processes take that of one.
    "rl.curriculum.method": "posterior",
    # Verdicts compared in their groups, and a reward of each token next to them.
    "rl.rewards.credit": "token",
    "rl.rewards.student_weight": 1.0,
    "rl.rewards.discount": 0.9,
    "rl.buckets.lengths": 2,
    "rl.buckets.packed": True,
}
TRAINED = ("pretrain/student", "sft", "rl")
SUBJECTS = ("teacher", "base", "sft", "rl")
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def job(
    workdir: Path,
    processes: int,
    devices: int = 4,
    kill: Kill | None = None,
    stop: Stop | None = None,
    **changes: Any,
) -> list[Job]:
    """The processes of a run over so many devices; 0: one without a coordinator."""
    how, address = {**HOW, **changes}, f"127.0.0.1:{free_port()}"
    if not processes:
        return [Job(str(workdir), how, devices)]
    own = devices // processes
    ends: dict[str, Any] = {"kill": kill and tuple(kill), "stop": stop and tuple(stop)}
    return [Job(str(workdir), how, own, (address, processes, n), **ends) for n in range(processes)]


class Runs(NamedTuple):
    """Work directories, and standard error of the jobs by directory."""

    root: Path
    errors: dict[str, list[str]]

    def __getitem__(self, name: str) -> Path:
        return self.root / name


@pytest.fixture(scope="module", params=MESHES)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root, mesh = tmp_path_factory.mktemp("processes"), MESHES[request.param]
    errors: dict[str, list[str]] = {}

    def run(*groups: list[Job]) -> None:
        found = iter(forks.run(*groups))
        for one in (one for group in groups for one in group):
            errors.setdefault(Path(one.workdir).name, []).append(next(found))

    run(job(root / "two", 2, **mesh), job(root / "one", 0, **mesh))
    copy_stages(root / "two", root / "killed", "pretrain")
    # One row is that of step 0.
    kill = Kill("rl/metrics.jsonl", 1 + 2, 3, "rl/checkpoints/1/commit_success.txt")
    run(job(root / "killed", 4, kill=kill, **mesh))
    for name in ("four", "alone", "fewer"):
        shutil.copytree(root / "killed", root / name)
    copy_stages(root / "killed", root / "stopped", "pretrain", "sft")
    run(job(root / "stopped", 2, stop=Stop("rl", 2, 1), stages=("rl",), **mesh))
    run(job(root / "stopped", 2, stages=("rl",), **mesh))
    run(
        job(root / "four", 4, **mesh),
        job(root / "alone", 1, stages=("rl",), **mesh),
        job(root / "fewer", 0, 2, stages=("rl",), **mesh),
    )
    return Runs(root, errors)


def same_bits(one: Path, other: Path, stage: str) -> None:
    assert weights(one, stage) == weights(other, stage)
    assert rows(one, stage) == rows(other, stage)


def close(one: Path, other: Path, stage: str) -> None:
    left_rows, right_rows = rows(one, stage), rows(other, stage)
    assert [row["step"] for row in left_rows] == [row["step"] for row in right_rows]
    for left, right in zip(left_rows, right_rows, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            np.testing.assert_allclose(right[name], value, err_msg=name, **ROUNDING)


def texts(workdir: Path) -> list[str]:
    return [row["completion"] for row in rows(workdir, "rl", "completions.jsonl")]


@pytest.mark.parametrize("stage", TRAINED)
def test_metrics_are_those_of_one_process(runs: Runs, stage: str) -> None:
    close(runs["one"], runs["two"], stage)


def test_files_are_whole_and_written_once(runs: Runs) -> None:
    one, two = runs["one"], runs["two"]

    def names(workdir: Path) -> set[Path]:
        found = (p.relative_to(workdir) for p in workdir.rglob("*") if p.is_file())
        return {p for p in found if "checkpoints" not in p.parts}

    assert names(one) == names(two)
    geometry, base = hf_io.load_hf(two / "pretrain" / "student" / "model")
    alone = hf_io.load_hf(one / "pretrain" / "student" / "model")[1]
    np.testing.assert_allclose(base["norm"]["scale"], alone["norm"]["scale"], rtol=1e-4)
    peft_io.load_adapter(two / "rl" / "adapter", geometry)
    assert len(weights(one, "rl")) == len(weights(two, "rl"))
    assert texts(one) == texts(two) and texts(one)
    # Process 0 alone speaks.
    first, second = runs.errors["two"]
    assert "rl: complete in" in first and "rl: complete in" not in second


def test_all_were_killed_after_a_checkpoint_of_four_processes(runs: Runs) -> None:
    assert not (runs["killed"] / "rl" / "done.json").exists()
    for name in ("four", "alone", "fewer"):
        (begun,) = re.findall(rf"rl: resuming after step (\d) of {STEPS}", runs.errors[name][0])
        assert 0 < int(begun) < STEPS


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_four_processes_killed_and_resumed_have_the_bits_of_two(runs: Runs, stage: str) -> None:
    same_bits(runs["two"], runs["four"], stage)


def test_sigterm_to_one_process_stops_all_at_one_step_and_they_go_on(runs: Runs) -> None:
    first, second, resumed, _ = runs.errors["stopped"]
    assert "stopping after this step" in second and "stopping after this step" not in first
    for said in (first, second):
        assert f"rl was asked to stop and is saved at step 2 of {STEPS}" in said
    assert f"rl: resuming after step 2 of {STEPS}" in resumed
    same_bits(runs["two"], runs["stopped"], "rl")


@pytest.mark.parametrize("name", ["four", "alone"])
def test_completions_and_their_rewards_have_the_bits_of_two(runs: Runs, name: str) -> None:
    drawn = [(runs[one] / "rl" / "completions.jsonl").read_bytes() for one in ("two", name)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_four_processes_evaluate_as_two_and_one(runs: Runs, subject: str) -> None:
    result, answers = f"evaluate/{subject}.json", f"evaluate/{subject}.checkpoint.jsonl"
    for file in (result, answers):
        assert (runs["two"] / file).read_bytes() == (runs["four"] / file).read_bytes()
    # The first line names the weights, which differ in their last bits.
    one, two = ((runs[name] / answers).read_text().splitlines() for name in ("one", "two"))
    assert one[1:] == two[1:] and len(one) > 2


def test_one_process_goes_on_from_four_with_their_bits(runs: Runs) -> None:
    same_bits(runs["two"], runs["alone"], "rl")


def test_two_devices_go_on_from_four_processes(runs: Runs) -> None:
    close(runs["two"], runs["fewer"], "rl")
    assert texts(runs["two"]) == texts(runs["fewer"])
