"""The run on a GPU, rehearsed whole on CPU; what it does with steps that fail or hang."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from configs import bench as configs
from launch.bench import roofline

# 80 s of processor time; many times that on a machine that does other work.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[3]
DRIVER = ROOT / "launch" / "bench" / "gpu_run.sh"
STEPS = re.findall(r"^(?:measure|step) (\w+)", DRIVER.read_text(), re.MULTILINE)


def run(out: Path, *steps: str, **env: str) -> list[dict]:
    """The lines that the driver writes."""
    done = subprocess.run(
        ["bash", str(DRIVER), *steps],
        env={**os.environ, "OUT": str(out), **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"results: {out}" in done.stdout
    return [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return run(tmp_path_factory.mktemp("gpu"), GPU_SCALE="smoke")


def test_every_step_runs_and_writes_its_line(rehearsal: list[dict]) -> None:
    assert len(STEPS) == 15
    assert {x["step"]: x["rc"] for x in rehearsal if "step" in x} == dict.fromkeys(STEPS, 0)
    assert not [x for x in rehearsal if "error" in x]
    parity = [x["agrees"] for x in rehearsal if x.get("arm") == "parity"]
    assert len(parity) == 3 and all(parity)


def test_speeds_come_with_their_share_of_the_roofline(rehearsal: list[dict]) -> None:
    figures = [x for x in rehearsal if "figure" in x]
    arms = {x["arm"].partition(":")[0] for x in figures}
    wanted = {x for x in STEPS if x not in ("env", "parity", "transformers", "profile", "rl")}
    assert wanted <= arms
    for x in figures:
        assert 0 < x["min"] <= x["median"] <= x["max"]
        if x["arm"] == "grpo":  # parts of a step, which are seconds alone
            continue
        assert x["tokens_per_s"] > 0
        assert x.get("mfu", x.get("roofline_fraction", 0)) > 0, x
    assert len([x for x in figures if x["arm"].startswith("update")]) == 6


def test_transformers_is_measured_or_says_what_is_missing(rehearsal: list[dict]) -> None:
    found = [x for x in rehearsal if x.get("arm") == "transformers"]
    if missing := found[0].get("missing"):
        assert set(missing) <= {"torch", "transformers", "peft"}
    else:
        names = ["generate_4, dynamic cache", "lora_step, 4 parts", "generate_4, static cache"]
        assert [x["figure"] for x in found] == names


# In the place of python3: one step fails, one hangs.
PYTHON = """#!/bin/bash
case "$*" in *--step=forward*) exit 3 ;; *--step=generate*) exec sleep 600 ;; esac
"""


def test_a_step_that_fails_or_hangs_costs_itself_alone(tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text(PYTHON)
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    lines = run(tmp_path, "parity", "forward", "generate", "update", PATH=path, GPU_SECONDS="24")
    assert [(x["step"], x["rc"]) for x in lines] == [
        ("parity", 0), ("forward", 3), ("generate", 124), ("update", "no time left"),
    ]  # fmt: skip


def test_limits_and_peaks() -> None:
    text = DRIVER.read_text()
    limits = [int(x) for x in re.findall(r"^(?:measure|step) \w+ (\d+)", text, re.MULTILINE)]
    # The figures that matter most fit a run even if each takes all it may.
    assert sum(limits[:6]) <= 530 and STEPS[:6][-1] == "transformers"
    assert roofline.peaks("NVIDIA H100 80GB HBM3") == (790e12, 3.0e12)
    assert roofline.peaks("cpu") is None
    assert configs.PRESETS["gpu_run"].model == "qwen2_5_1_5b"
