"""python -m launch.main --config=configs/evaluate.py

Accuracy of teacher, student before and after. A work directory that has been run keeps its config:
the preset counts only where there is none. Also: --config.evaluate.checkpoints=all (or a step) and
--config.evaluate.model=DIR, any Hugging Face directory or adapter of the student. Stopped in any
way, the same command goes on.
Presets: --config=configs/evaluate.py:smoke, see presets.py.
Any setting: --config.evaluate.samples=8. All of them with their meaning: docs/config.md.
"""

import ml_collections

from configs import saved
from configs.presets import PRESETS, config_for

__all__ = ["PRESETS", "get_config"]


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of a preset, or those in a FILE.json, with the evaluating stages alone."""
    config = saved.get_config(preset) if preset.endswith(".json") else config_for(preset)
    config.stages = tuple(name for name in config.plan if config[name].kind == "evaluate")
    return config
