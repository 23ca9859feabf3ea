"""python -m launch.main --config=configs/pretrain.py

The tiny teacher and student from scratch; needs nothing.
Presets: --config=configs/pretrain.py:smoke, see presets.py.
Any setting: --config.rl.steps=100. All of them with their meaning: docs/config.md.
"""

import ml_collections

from configs.presets import config_for, grpo, smoke, tiny

# Of the presets that train their models.
PRESETS = {"tiny": tiny, "grpo": grpo, "smoke": smoke}


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of a preset."""
    return config_for(preset, stages=("pretrain",))
