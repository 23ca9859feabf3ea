"""python -m launch.main --config=configs/distill.py

The student learns the teacher's distributions, then both are evaluated. To start from the adapter
of stage sft: --config.distill.start=sft, after configs/sft.py.
Presets: --config=configs/distill.py:smoke, see presets.py.
Any setting: --config.distill.steps=100. All of them with their meaning: docs/config.md.
"""

import ml_collections

from configs.presets import PRESETS, config_for

__all__ = ["PRESETS", "get_config"]


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Settings of a preset, with its pretraining where it has one."""
    config = config_for(preset)
    first = ("pretrain",) if "pretrain" in config.stages else ()
    config.stages = (*first, "distill", "evaluate")
    return config
