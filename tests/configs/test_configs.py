"""Every committed config builds, in every preset, and its docstring holds the command to run it."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from configs.presets import MAIN_STAGES, PRESETS, WITH_SFT
from distill_jax.core.batching import round_up
from distill_jax.core.errors import ConfigError
from distill_jax.experiments import arms
from distill_jax.inference import agents
from distill_jax.run.config import build, to_dict
from distill_jax.run.data import Data
from distill_jax.run.run import Run
from distill_jax.stages import checks, curricula, supervised
from distill_jax.stages.runner import kind_of

ROOT = Path(__file__).resolve().parents[2]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# configs/bench.py is for launch.bench, which checks it itself; configs/saved.py reads a file.
OTHERS = ("bench", "saved")
EXPERIMENTS = ("rewards", "credit", "curriculum")
FILES = [
    path
    for path in sorted((ROOT / "configs").glob("*.py"))
    if "def get_config" in path.read_text(encoding="utf-8") and path.stem not in OTHERS
]


def test_the_stages_have_configs() -> None:
    kinds = {stage.kind for preset in PRESETS.values() for stage in preset().plan.values()}
    assert kinds == {"pretrain", "sft", "distill", "rl", "evaluate"}
    assert kinds <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_builds_in_every_preset(path: Path) -> None:
    module = load(path)
    assert {"tiny", "smoke"} <= set(module.PRESETS)
    # A run's directory is runs/PRESET; these two share names of stages with the other presets.
    name, names = path.stem, {}
    if name in ("reason", "pot"):
        names = {preset: f"{name}_{preset}" for preset in module.PRESETS}
        names |= {"tiny": name, "evidence": name}
    assert build(module.get_config()).preset == names.get("tiny", "tiny")
    for preset in module.PRESETS:
        assert build(module.get_config(preset)).preset == names.get(preset, preset)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_command_stands_first(path: Path) -> None:
    first = (load(path).__doc__ or "").strip().splitlines()[0]
    assert first == f"python -m launch.main --config=configs/{path.name}"


def test_stages_of_the_configs() -> None:
    for path in FILES:
        stages = build(load(path).get_config()).stages
        wanted = {"rl": MAIN_STAGES, "distill": ("pretrain", "distill", "evaluate")}
        wanted |= {"rewards": WITH_SFT, "credit": MAIN_STAGES, "curriculum": wanted["distill"]}
        wanted["reason"] = (
            "pretrain", "distill", "traces", "labels", "prm", "errors",
            "other_errors", "bench", "rl", "dpo", "solve", "evaluate",
        )  # fmt: skip
        wanted["pot"] = (
            "pretrain", "synthesis", "sft", "rl", "traces", "labels", "executed", "wrong", "prm",
            "prm_other", "errors", "bench", "evolve", "concise", "dpo", "brief", "repair",
            "evaluate",
        )  # fmt: skip
        assert stages == wanted.get(path.stem, (path.stem,)), path
    for preset in ("qwen_1_5b", "qwen_7b"):
        config = build(load(ROOT / "configs" / "distill.py").get_config(preset))
        assert config.stages == ("distill", "evaluate")
        config = build(load(ROOT / "configs" / "rl.py").get_config(preset))
        assert config.stages == ("sft", "rl", "evaluate")  # nothing to pretrain


@pytest.mark.parametrize("preset", ["smollm2", "qwen_0_5b", "qwen_1_5b", "qwen_7b"])
def test_packed_rows_of_real_models_hold_the_longest_example(preset: str) -> None:
    config = PRESETS[preset]()
    longest = config.data.max_prompt_tokens + config.sampling.response_tokens
    packed = {name for name in ("sft", "distill") if config.plan[name].packing}
    assert packed == ({"sft"} if preset == "smollm2" else {"sft", "distill"})
    for name in packed:
        assert config.plan[name].packing >= round_up(longest, supervised.MULTIPLE)


def test_saved_settings_are_read_again(tmp_path: Path) -> None:
    saved = load(ROOT / "configs" / "saved.py")
    config = PRESETS["smoke"]()
    plain, inside = tmp_path / "config.json", tmp_path / "run.json"
    plain.write_text(json.dumps(to_dict(config)))
    inside.write_text(json.dumps({"config": to_dict(config), "starts": []}))
    for path in (plain, inside):
        assert build(saved.get_config(str(path))) == config
    for content, said in (("[", "not JSON"), ("[]", "list"), ('{"sead": 1}', "seed")):
        plain.write_text(content)
        with pytest.raises(ConfigError, match=said):
            saved.get_config(str(plain))
    for path in ("", str(tmp_path / "none.json")):
        with pytest.raises(ConfigError, match="file"):
            saved.get_config(path)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_arms_of_an_experiment_build(name: str) -> None:
    module = load(ROOT / "configs" / f"{name}.py")
    for preset in module.PRESETS:
        config = build(module.get_config(preset))
        found = arms.parse(config.experiment.arms, config)
        assert len(found) >= 3 and config.experiment.name == name
        for arm in found:
            arms.config_of(config, arm, 0)
        assert set(config.experiment.references) <= {arm.name for arm in found}


@pytest.mark.parametrize("name", ["reason", "pot"])
def test_evidence_is_an_experiment(name: str) -> None:
    """One arm: its students share a start and are compared with it and with each other."""
    config = build(load(ROOT / "configs" / f"{name}.py").get_config("evidence"))
    (arm,) = arms.parse(config.experiment.arms, config)
    assert (
        arms.config_of(config, arm, 1).stages == config.stages and config.stages[-1] == "evaluate"
    )
    assert len(config.experiment.seeds) == 3


def test_agents_of_the_evidence_draw_as_many_candidates() -> None:
    config = build(load(ROOT / "configs" / "reason.py").get_config("evidence"))
    found = agents.load(ROOT / config.plan["agents"].agents)
    assert config.plan["agents"].attempts * len(found) == config.plan["solve"].attempts


def test_curricula_of_smoke_have_arms_to_choose_from(tmp_path: Path) -> None:
    config = build(load(ROOT / "configs" / "curriculum.py").get_config("smoke"))
    run = Run(config, tmp_path)
    stage = run.stage("distill")
    problems = supervised.ExampleRows(run, answer_only=0.0, seed=run.seed(stage)).problems
    s = stage.settings
    made = curricula.of(run, stage, s.curriculum, problems, batch=s.batch_size)
    assert len(made.arms.names) == 2


@pytest.mark.parametrize("preset", PRESETS)
def test_batches_and_schedules_of_a_preset_fit(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eight devices, as under the tests; what eight can split, one can.
    run = Run(PRESETS[preset](), tmp_path)
    if run.config.student.path:  # released models, which are not here
        monkeypatch.setattr(Data, "vocab", 151_665)
        monkeypatch.setattr(checks, "check_role", lambda *_: None)
    for name in run.config.plan:
        stage = run.stage(name)
        kind_of(stage).check(run, stage)


def test_embedded_programs_fit_the_responses_of_pot(tmp_path: Path) -> None:
    config = build(load(ROOT / "configs" / "pot.py").get_config())
    rows = supervised.ExampleRows(Run(config, tmp_path), answer_only=0.0, seed=0)
    assert len(rows.examples) == config.data.problems.train_size
    longest = max(len(example.response) for example in rows.examples)
    assert 0.9 * config.sampling.max_new_tokens < longest <= config.sampling.max_new_tokens


def test_all_that_tiny_needs_is_there(tmp_path: Path) -> None:
    config = PRESETS["tiny"]()
    run = Run(dataclasses.replace(config, stages=tuple(config.plan)), tmp_path)
    prepared = checks.prepare(run)
    assert set(prepared) == set(config.plan)
    # Prompts and solutions fit: a dropped one would make the levels uneven.
    assert run.data.dropped() == {"train": 0, "validation": 0, "test": 0}
    assert len(prepared["sft"].examples) == config.data.problems.train_size
    assert len(run.data.problems("test").problems) >= 500
