"""Directories of implicit reward models: two adapters of one language model, in PEFT's form.

`adapter_model.safetensors` is the policy's, `reference_model.safetensors` that of the student that
it started from; prm_config.json names both by digest. The model below them is not copied.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.models import peft_io
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.reward_model_io import PRM_CONFIG, PRMConfig, read_about

REFERENCE = "reference_model.safetensors"


class Implicit(NamedTuple):
    """Settings of both adapters, their trees, and how steps are read."""

    lora: LoraConfig
    policy: dict[str, Any]
    reference: dict[str, Any]
    about: PRMConfig


def save(
    directory: Path,
    geometry: QwenConfig,
    adapters: Implicit,
    base: str,
    *,
    tokenizer: Any,
) -> None:
    """Writes a directory that `load` reads, atomically; every process must call this.

    geometry, base: of the model below the adapters; base is its name, for adapter_config.json.

    Raises:
        CheckpointError: a target that holds something else.
    """
    peft_io.save_adapter(
        directory, geometry, adapters.lora, adapters.policy, base,
        tokenizer=tokenizer, further={REFERENCE: adapters.reference},
        texts={PRM_CONFIG: dataclasses.asdict(adapters.about)},
    )  # fmt: skip


def load(directory: Path, geometry: QwenConfig) -> Implicit:
    """Both adapters, on the host.

    Raises:
        CheckpointError: missing or damaged files, or adapters of another geometry.
    """
    policy, lora = peft_io.load_adapter(directory, geometry)
    reference, _ = peft_io.load_adapter(directory, geometry, weights=REFERENCE)
    return Implicit(lora, policy, reference, read_about(directory / PRM_CONFIG))
