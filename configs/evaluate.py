"""python -m launch.main --config=configs/evaluate.py

Accuracy of teacher, student before and after. A work directory that has been run keeps its config:
the preset counts only where there is none. Also: --config.evaluate.checkpoints=all (or a step) and
--config.evaluate.model=DIR, any Hugging Face directory or adapter of the student. Stopped in any
way, the same command goes on.
Other benchmarks, each a stage with its own directory and settings:
--config.stages="('evaluate_math500','evaluate_aime2024')" --config.evaluate_aime2024.samples=64
--config.stages="('evaluate_file',)" --config.evaluate_file.benchmark=problems.jsonl
Presets: --config=configs/evaluate.py:smoke, see presets.py.
Any setting: --config.evaluate.samples=8. All of them with their meaning: docs/config.md.
"""

import dataclasses

import ml_collections

from configs import saved
from configs.presets import PRESETS, config_for
from distill_jax.data.sources import NAMES
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.run.config import RunConfig, build, to_config_dict

__all__ = ["PRESETS", "get_config", "with_benchmarks"]

# 30 to 83 problems: more samples of each.
_FEW = {"aime2024": 16, "aime2025": 16, "amc": 16}
# Stage -> its benchmark; that of evaluate_file is the user's to set.
_BENCHMARKS = {**{f"evaluate_{name}": name for name in NAMES}, "evaluate_file": ""}


def with_benchmarks(config: RunConfig) -> RunConfig:
    """The config with a stage for each benchmark, which runs where `stages` names it."""
    plan = dict(config.plan)
    own = [one for one in plan.values() if isinstance(one, EvaluateSettings) and not one.benchmark]
    like = own[-1] if own else EvaluateSettings()
    for name, benchmark in _BENCHMARKS.items():
        samples = _FEW.get(benchmark, like.samples)
        plan.setdefault(name, dataclasses.replace(like, benchmark=benchmark, samples=samples))
    return dataclasses.replace(config, plan=plan)


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of a preset, or those in a FILE.json, with the evaluating stages alone.

    Of the stages of benchmarks those that the settings already run: a work directory that this
    config has made holds all of them.
    """
    config = build(saved.get_config(preset) if preset.endswith(".json") else config_for(preset))
    evaluating = [n for n, one in config.plan.items() if isinstance(one, EvaluateSettings)]
    flat = to_config_dict(with_benchmarks(config))
    # Not checked here: overrides may set what these stages need.
    flat.stages = tuple(n for n in evaluating if n not in _BENCHMARKS or n in config.stages)
    return flat
