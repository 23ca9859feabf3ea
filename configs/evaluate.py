"""python -m launch.main --config=configs/evaluate.py

Accuracy of teacher, student before and after; needs what it finds in the workdir. Also:
--config.evaluate.checkpoints=all (or a step) and --config.evaluate.model=DIR, any Hugging Face
directory or adapter of the student. Stopped in any way, the same command goes on.
Presets: --config=configs/evaluate.py:smoke, see presets.py.
Any setting: --config.rl.steps=100. All of them with their meaning: docs/config.md.
"""

import ml_collections

from configs.presets import PRESETS, config_for

__all__ = ["PRESETS", "get_config"]


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of a preset."""
    return config_for(preset, stages=("evaluate",))
