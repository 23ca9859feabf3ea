"""python -m launch.main --config=configs/sft.py

LoRA fine-tuning of the student; needs pretrain (tiny) or Hugging Face models.
Presets: --config=configs/sft.py:smoke, see presets.py.
Any setting: --config.rl.steps=100. All of them with their meaning: docs/config.md.
"""

import ml_collections

from configs.presets import PRESETS, config_for

__all__ = ["PRESETS", "get_config"]


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of a preset."""
    return config_for(preset, stages=("sft",))
