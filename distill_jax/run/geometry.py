"""Geometries of a run's models before they are loaded, and checks of a model's files."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from distill_jax.core.batching import round_up
from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.models import hf_io, hf_layout
from distill_jax.models import safetensor_files as files
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run.run import Run
from distill_jax.run.settings import ModelSettings, Shared

# The vocabulary is padded as Qwen's is, so that it splits over tensor axes.
_VOCAB_MULTIPLE = 64


def made_geometry(settings: ModelSettings, config: Shared, vocab: int) -> QwenConfig:
    """The Qwen2 geometry of a model without a path, known before there is a tokenizer."""
    longest = config.data.max_prompt_tokens + config.sampling.response_tokens
    return QwenConfig(
        model_type="qwen2",
        vocab_size=round_up(vocab, _VOCAB_MULTIPLE),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        num_kv_heads=settings.num_kv_heads,
        head_dim=settings.hidden_size // settings.num_heads,
        rope_theta=10_000.0,
        max_position_embeddings=max(512, 2 * longest),
        # 1/√D: Qwen's own 0.02 suits widths in the thousands; a width of 112 learns several times
        # slower with it.
        initializer_range=settings.hidden_size**-0.5,
    )


def to_train(run: Run, role: str) -> QwenConfig:
    """The geometry of a model that the run trains, with its tokenizer's special tokens."""
    return dataclasses.replace(
        made_geometry(run.models.settings_of(role), run.config, run.data.vocab),
        eos_token_id=run.data.eos_id,
        pad_token_id=run.data.pad_id,
    )


def of_role(run: Run, role: str, due: Collection[str] = ()) -> QwenConfig:
    """The geometry of a role's model, from its settings where a due stage will make it.

    Raises:
        CheckpointError: model files that are missing, damaged or of another architecture.
    """
    if not run.models.settings_of(role).path and run.config.models_stage in due:
        return to_train(run, role)
    return check_model_files(run.models.path(role))


def check_positions(run: Run, name: str, geometry: QwenConfig) -> None:
    """Raises ConfigError where prompt and completion take more positions than a model has."""
    sampling, longest = run.config.sampling, run.config.data.max_prompt_tokens
    limit, total = geometry.max_position_embeddings, longest + sampling.response_tokens
    if total > limit:
        outputs = (
            f" with {sampling.rounds - 1} outputs of sampling.output_tokens="
            f"{sampling.output_tokens}"
        )
        raise ConfigError(
            f"data.max_prompt_tokens={longest} and sampling.max_new_tokens="
            f"{sampling.max_new_tokens}{outputs * (sampling.rounds > 1)} take {total} positions",
            wanted=f"at most the {name}'s {limit}",
            fix="lower them",
        )


def check_model_files(directory: Path) -> QwenConfig:
    """Architecture, and the weight files by their headers: nothing of any size is read.

    Raises:
        CheckpointError: missing, truncated, of another architecture, or without some tensor.
    """
    config = hf_io.load_config(directory)
    shapes = {name: leaf.shape for leaf in hf_layout.leaves(config) for name in leaf.names}
    with files.TensorReader(files.model_files(directory)) as reader:
        wrong = [
            name
            for name, shape in shapes.items()
            if name not in reader.where or reader.shape(name) != shape
        ]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors in {directory} are missing or of another shape, "
            f"first {wrong[0]}",
            wanted=f"{wrong[0]} of shape {list(shapes[wrong[0]])}, as config.json says",
            fix="download or copy the directory again",
        )
    return config
