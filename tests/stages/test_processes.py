"""Two processes on loopback, two devices each, against one process of four devices."""

import socket
from pathlib import Path

import numpy as np
import pytest

from distill_jax.models import hf_io, peft_io
from tests.stages import forks
from tests.stages.forks import Job
from tests.stages.small import rows, weights

pytestmark = pytest.mark.slow

STAGES = ("pretrain/student", "rl")
HOW = {
    "stages": ("pretrain", "rl"),
    "rl.start": "base",
    "mesh.fsdp": 2,
    "rl.minibatches": 2,
    "rl.eval_every": 2,
    # Its draw is random by rejection: processes take that of one.
    "rl.curriculum.method": "posterior",
    # Verdicts compared in their groups, and a reward of each token next to them.
    "rl.rewards.credit": "token",
    "rl.rewards.student_weight": 1.0,
    "rl.rewards.discount": 0.9,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    root = tmp_path_factory.mktemp("processes")
    address = f"127.0.0.1:{free_port()}"
    two = [Job(str(root / "two"), HOW, devices=2, process=(address, 2, i)) for i in range(2)]
    errors = forks.run(two, [Job(str(root / "one"), HOW, devices=4)])
    return root / "one", root / "two", errors


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_are_those_of_one_process(both: tuple[Path, Path, list[str]], stage: str) -> None:
    one, two = (rows(workdir, stage) for workdir in both[:2])
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            np.testing.assert_allclose(right[name], value, rtol=2e-3, atol=1e-4, err_msg=name)


def test_files_are_whole_and_written_once(both: tuple[Path, Path, list[str]]) -> None:
    one, two, errors = both

    def names(workdir: Path) -> set[Path]:
        found = (p.relative_to(workdir) for p in workdir.rglob("*") if p.is_file())
        return {p for p in found if "checkpoints" not in p.parts}

    assert names(one) == names(two)
    geometry, base = hf_io.load_hf(two / "pretrain" / "student" / "model")
    alone = hf_io.load_hf(one / "pretrain" / "student" / "model")[1]
    np.testing.assert_allclose(base["norm"]["scale"], alone["norm"]["scale"], rtol=1e-4)
    peft_io.load_adapter(two / "rl" / "adapter", geometry)
    assert len(weights(one, "rl")) == len(weights(two, "rl"))
    texts = [
        [row["completion"] for row in rows(workdir, "rl", "completions.jsonl")]
        for workdir in (one, two)
    ]
    assert texts[0] == texts[1] and texts[0]
    # Process 0 alone speaks.
    assert "rl: complete in" in errors[0] and "rl: complete in" not in errors[1]
