"""The commands that docs/usage.md gives for GSM8K and Qwen directories of one's own."""

import re
from pathlib import Path

import pytest

from configs import reason
from distill_jax.core.errors import ConfigError
from distill_jax.run.config import RunConfig, build
from distill_jax.run.run import Run
from distill_jax.stages import dry_run
from tests.stages.hf import write_model, write_problems

USAGE = Path(__file__).resolve().parents[2] / "docs" / "usage.md"


def commands() -> dict[str, dict[str, str]]:
    """Preset -> overrides, of the commands for configs/reason.py with directories."""
    text = USAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    pattern = r"launch\.main --config=configs/reason\.py:(\w+) (.*--config\.teacher\.path=DIR.*)"
    return {
        preset: dict(re.findall(r"--config\.(\S+?)=(\S+)", rest))
        for preset, rest in re.findall(pattern, text)
    }


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one tokenizer with different embeddings, and enough problems."""
    root = tmp_path_factory.mktemp("own")
    shape = {"model_type": "qwen3", "qk_norm": True, "qkv_bias": False}
    for name, rows in (("teacher", 384), ("student", 320)):
        write_model(root / name, rows=rows, max_position_embeddings=2048, **shape)
    write_problems(root / "gsm8k", count=64)
    return root


def config_of(preset: str, own: Path, **changes: int) -> RunConfig:
    """The settings of a documented command, with the directories of this test."""
    paths = {
        "teacher.path": own / "teacher",
        "student.path": own / "student",
        "data.source": own / "gsm8k",
    }
    given = commands()[preset]
    assert set(given) == set(paths)
    config = reason.get_config(preset)
    for name, value in {**paths, **changes}.items():
        *groups, last = name.split(".")
        at = config
        for group in groups:
            at = at[group]
        at[last] = value if isinstance(value, int) else str(value)
    return build(config)


# GSM8K has 7,473 and 1,319 problems, this test 64 and 6.
FEWER = {"traces.problems": 64, "solve.problems": 6}


@pytest.mark.parametrize(("preset", "changes"), [("qwen_trial", {}), ("qwen_1_5b", FEWER)])
def test_a_dry_run_passes(
    preset: str,
    changes: dict[str, int],
    own: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Run(config_of(preset, own, **changes), tmp_path / "run") as run:
        dry_run.show(run)
    shown = capfd.readouterr().err
    stages = reason.get_config(preset).stages
    assert "labels" in stages and shown.count(" due ") == len(stages)


def test_fewer_steps_than_those_of_warming_up_are_refused(own: Path, tmp_path: Path) -> None:
    # What the text warns of.
    config = config_of("qwen_1_5b", own, **FEWER, **{"distill.steps": 4})
    with Run(config, tmp_path / "run") as run:
        with pytest.raises(ConfigError, match="warmup_steps=20 of 4 updates"):
            dry_run.show(run)
