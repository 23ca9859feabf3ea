"""The smallest runs that take every path: settings, subprocesses, comparisons."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs import presets
from distill_jax.run.config import RunConfig, build, to_config_dict
from distill_jax.stages import runner
from distill_jax.stages.kinds import KINDS
from distill_jax.training.records import is_timing, read_rows

ROOT = Path(__file__).resolve().parents[2]

# On top of the preset smoke.
SMALL: dict[str, Any] = {
    "teacher.hidden_size": 16,
    "teacher.num_layers": 1,
    "teacher.num_heads": 2,
    "teacher.steps": 2,
    "student.hidden_size": 16,
    "student.num_layers": 1,
    "student.num_heads": 2,
    "student.steps": 2,
    # Fewer compile faster. Adapters on all seven are tested with the models and by preset smoke.
    "lora.targets": ("q_proj", "o_proj", "down_proj"),
    "sft.steps": 2,
    "rl.steps": 2,
    "rl.prompts_per_step": 4,
    "rl.samples_per_prompt": 4,
    "rl.eval_every": 1,
    "rl.eval_problems": 4,
    "sampling.max_new_tokens": 24,
    "data.problems.max_operand": 3,
    "evaluate.problems": 4,
    "checkpoint.every": 100,
    "records.completions": 16,
    "records.console_completions": 0,
}


def small(**changes: Any) -> RunConfig:
    """The preset smoke made smaller; names with `__` for dots, e.g. rl__steps=3."""
    config = to_config_dict(presets.smoke())
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    for name, value in {**SMALL, **dotted}.items():
        *groups, last = name.split(".")
        at = config
        for group in groups:
            at = at[group]
        at[last] = value
    return build(config)


def run_here(workdir: Path, **changes: Any) -> None:
    """A run in this process: the reference for one that is killed, and what goes on after it."""
    runner.run(small(**changes), workdir)


def command(workdir: Path, *arguments: str, config: str = "rl", **changes: Any) -> list[str]:
    """The command line of such a run."""
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    flags = [f"--config.{name}={value}" for name, value in {**SMALL, **dotted}.items()]
    return [
        sys.executable, "-m", "launch.main", f"--config=configs/{config}.py:smoke",
        f"--workdir={workdir}", "--compilation_cache=" + os.environ["JAX_COMPILATION_CACHE_DIR"],
        *flags, *arguments,
    ]  # fmt: skip


def environment(devices: int = 1) -> dict[str, str]:
    compiling = os.environ.get("XLA_FLAGS", "")
    flags = f"{compiling} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def start(arguments: list[str], *, devices: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], *, code: int = 0) -> str:
    """Waits for the process, checks its exit code, returns standard error."""
    try:
        _, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == code, errors[-3000:]
    return errors


def run_instead(monkeypatch: pytest.MonkeyPatch, kind: str, run: Callable[..., Any]) -> None:
    """Stages of this kind call `run` in place of their own function."""
    monkeypatch.setitem(KINDS, kind, dataclasses.replace(KINDS[kind], run=run))


def weights(workdir: Path, stage: str) -> bytes:
    return (workdir / stage / "adapter" / "adapter_model.safetensors").read_bytes()


def rows(workdir: Path, stage: str, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    found = read_rows(workdir / stage / file)
    return [{k: v for k, v in row.items() if not is_timing(k)} for row in found]


def copy_stages(source: Path, target: Path, *names: str) -> Path:
    """A work directory that begins with these parts of another."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer", *names):
        shutil.copytree(source / name, target / name)
    for name in ("config.json", "view.json"):
        shutil.copy(source / name, target)
    return target
