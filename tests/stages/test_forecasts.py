"""The memory forecasts that a run shows: of stages that load a reward model and no other."""

from pathlib import Path
from typing import Any

import pytest

from distill_jax.forecast.memory import Job
from distill_jax.inference import process_scorer
from distill_jax.run import geometry
from distill_jax.run.run import Run, Stage
from distill_jax.stages import forecasts
from distill_jax.stages.concise import ConciseSettings
from distill_jax.stages.step_bench import StepBenchSettings
from tests.stages.small import small


@pytest.mark.parametrize("kind", [ConciseSettings, StepBenchSettings])
def test_a_reward_model_alone_is_forecast_and_shown(
    kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(small(), tmp_path)  # it has not made its student
    settings = kind(data="x", reward_model="./prm")
    stage = Stage("scored", settings)
    found = forecasts.of_stage(run, stage)
    assert found is not None
    rows = process_scorer.BATCH
    assert getattr(settings, "batch", rows) >= rows
    shape = geometry.to_train(run, "student")
    assert list(found.parts) == Job(run.config, shape, shape, run.mesh).scoring_steps(rows)
    capsys.readouterr()
    forecasts.show(run, stage)
    assert "scored: memory forecast" in capsys.readouterr().err


def test_without_a_reward_model_stage_concise_has_none(tmp_path: Path) -> None:
    run = Run(small(), tmp_path)
    assert forecasts.of_stage(run, Stage("concise", ConciseSettings(data="x"))) is None
