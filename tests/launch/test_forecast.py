"""The forecast of a preset on devices that are not here, without weights or network."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

from configs import presets
from distill_jax.core.errors import CheckpointError, ConfigError, MeshError
from distill_jax.forecast import by_compiler, limits
from distill_jax.forecast.compiled import Compiled
from distill_jax.forecast.parts import Forecast, Part
from distill_jax.models.released import released
from distill_jax.run.config import build
from launch import forecast
from tests.configs.test_configs import FILES, load

# Configs whose stages have no forecast.
NO_FORECAST = ("pretrain", "evaluate")
# The model of preset smollm2, which names a directory.
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def parts(preset: str, devices: int) -> dict[str, int]:
    found = forecast.run(getattr(presets, preset)(), devices)
    assert [one.stage for one in found] == (["rl"] if preset == "tiny" else ["sft", "rl"])
    return forecast.as_dict(found[-1])["parts"]


def test_weights_of_the_presets_by_hand() -> None:
    # 32,763,876,352 parameters in bfloat16 over eight; norms alone are whole on each.
    teacher = parts("qwen_7b", 8)["teacher weights (bfloat16)"]
    assert teacher == pytest.approx(32_763_876_352 * 2 / 8, rel=1e-3)
    one = parts("qwen_1_5b", 1)
    assert one["teacher weights (bfloat16)"] == 7_615_616_512 * 2
    assert one["student weights (bfloat16)"] == 1_543_714_304 * 2


@pytest.mark.parametrize(
    ("preset", "devices", "most"),
    [("qwen_0_5b", 1, 20e9), ("qwen_1_5b", 1, 60e9), ("qwen_7b", 8, 60e9)],  # of 24, 80 and 80
)
def test_presets_fit_their_devices(preset: str, devices: int, most: float) -> None:
    for found in forecast.run(getattr(presets, preset)(), devices):
        assert found.devices == devices and 1e9 < found.peak < most


def test_a_directory_that_is_here_and_its_hub_id(tmp_path, monkeypatch) -> None:
    config = presets.smollm2()
    hub = dataclasses.replace(config.student, path=SMOLLM2)
    found = forecast.run(dataclasses.replace(config, student=hub), 1)
    for one in found:
        # Packed rows of 1,024 tokens, four at a time where all examples are as long as may be.
        assert one.peak < {"sft": 12e9, "rl": 8e9}[one.stage]
        # 134,515,008 parameters, as the file of get_model has.
        assert forecast.as_dict(one)["parts"]["student weights (float32)"] == 134_515_008 * 4
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no directory .*models/smollm2"):
        forecast.run(config, 1)
    (tmp_path / "models" / "smollm2").mkdir(parents=True)
    text = json.dumps(released(hub.path).to_hf())
    (tmp_path / "models" / "smollm2" / "config.json").write_text(text)
    assert forecast.run(config, 1) == found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_preset_of_every_config_has_a_forecast_that_can_be_shown(path: Path) -> None:
    module = load(path)
    for preset in module.PRESETS:
        config = build(module.get_config(preset))
        if preset == "smollm2":
            student = dataclasses.replace(config.student, path=SMOLLM2)
            config = dataclasses.replace(config, student=student)
        if path.stem in NO_FORECAST:
            with pytest.raises(ConfigError, match="no forecast for stages="):
                forecast.run(config, 1)
            continue
        for found in forecast.run(config, 1):
            assert found.peak >= found.resident >= 0
            limits.refuse(found, found.peak)
            assert limits.table(found, None).row_count == len(found.parts) + 3


def test_where_every_part_stays_the_peak_is_what_stays() -> None:
    found = Forecast("rl", 1, (Part("weights", 100, True), Part("state", 20, True)))
    assert found.peak == found.resident == 120 and found.phase.bytes == 0
    assert "at what stays" in limits.warning(found, 119)
    assert Forecast("concise", 1, ()).peak == 0


def test_models_made_here_have_a_geometry_too() -> None:
    assert parts("tiny", 1)["student weights (float32)"] > 0


def test_an_unknown_model_is_refused() -> None:
    config = presets.qwen_7b()
    settings = dataclasses.replace(config.teacher, path="somebody/model")
    with pytest.raises(CheckpointError, match="somebody/model"):
        forecast.run(dataclasses.replace(config, teacher=settings), 8)


def test_a_mesh_that_does_not_fit_is_told() -> None:
    config = presets.qwen_7b()
    mesh = dataclasses.replace(config.mesh, fsdp=3)
    with pytest.raises(MeshError, match="mesh"):
        forecast.run(dataclasses.replace(config, mesh=mesh), 8)


def test_a_config_without_such_a_stage_is_told() -> None:
    with pytest.raises(ConfigError, match="no forecast for stages=.*pretrain"):
        forecast.run(dataclasses.replace(presets.tiny(), stages=("pretrain", "evaluate")), 1)


def program(name: str, *sizes: int, stage: str = "rl") -> Compiled:
    """sizes: arguments, outputs, temporaries, aliased."""
    return Compiled(stage, name, 1.0, *sizes, 0, 0, None, (), (), frozenset())


def test_the_compilers_figures_replace_those_of_phases() -> None:
    names = ("rollout: cache", "student scoring: activations", "update: activations", "later: x")
    parts = (Part("weights", 100, True), *(Part(name, 7, False) for name in names))
    programs = [
        program("prefill", 50, 30, 5, 0),
        program("segment", 80, 40, 6, 40),  # holds 86
        program("compact", 45, 20, 3, 1),  # holds 67, besides 35 of weights
        program("score", 100, 2, 11, 0),
        program("update", 110, 20, 30, 19),
        program("update", 0, 0, 999, 0, stage="sft"),
    ]
    found = by_compiler.replaced(Forecast("rl", 1, parts), programs)
    assert [part.bytes for part in found.parts] == [100, 67 + 35, 13, 31, 7]
    assert found.parts[1].name == "rollout: cache (compiled)" and found.parts[4].name == "later: x"
    assert found.peak == 202


def test_the_update_of_a_stage_compiled_here() -> None:
    config = dataclasses.replace(presets.smoke(), stages=("sft",))
    (by_formula,) = forecast.run(config, 1)
    (found,) = forecast.run(config, 1, jax.devices()[:1])
    assert found.resident == by_formula.resident
    assert found.phase.name == "update: activations (compiled)"
    assert by_formula.phase.bytes / 2 < found.phase.bytes < 2 * by_formula.phase.bytes
