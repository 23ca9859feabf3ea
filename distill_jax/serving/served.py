"""The model to serve, from a work directory or a model directory, and its limits."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from distill_jax.core import sharding
from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.core.sharding import MeshSettings
from distill_jax.data import tokenizer as tokenizers
from distill_jax.evaluation import subjects
from distill_jax.models import hf_io, peft_io
from distill_jax.models import safetensor_files as files
from distill_jax.models.qwen import QwenModel
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run
from distill_jax.training.state import param_shardings

# Without a run's own limits.
_PROMPT, _NEW = 1024, 512
_GENERATION = "generation_config.json"


class Served(NamedTuple):
    """A model ready to decode.

    Attributes:
        name: under which it is asked for.
        model, weights: without an adapter, and decode weights.
        tokenizer: its own.
        ends: tokens that end a completion.
        prompt, new: most tokens of a prompt, and of a completion.
        thinking: handed to chat templates where a request says nothing.
    """

    name: str
    model: QwenModel
    weights: Any
    tokenizer: Any
    ends: tuple[int, ...]
    prompt: int
    new: int
    thinking: bool = False


class Limits(NamedTuple):
    """Most tokens of a prompt and of a completion; None: the run's, or what the model has."""

    prompt: int | None = None
    new: int | None = None


def of_run(run: Run, subject: str, name: str, limits: Limits) -> Served:
    """A model of a run: teacher, base, a stage, STAGE_step_N, or a directory.

    Raises:
        CheckpointError: no such model.
        ConfigError: limits that exceed the model's positions.
    """
    found = subjects.named(run, subject)
    loaded, config = found.load(), run.config
    tokenizer = found.tokenizer or run.data.tokenizer
    sampler = run.models.sampler(loaded.model, tokenizer)
    prompt = limits.prompt or config.data.max_prompt_tokens
    new = limits.new or config.sampling.response_tokens
    served = Served(
        name or found.name, sampler.programs.model, None, tokenizer, (sampler.eos_id,), prompt,
        new, run.data.task.chat.enable_thinking,
    )  # fmt: skip
    return _loaded(served, sampler, loaded, config.sampling)


def of_directory(path: str, name: str, limits: Limits, dtype: str) -> Served:
    """A Hugging Face model or a PEFT adapter, by directory or hub id.

    Raises:
        CheckpointError: missing, damaged or of another architecture.
        ConfigError: limits that exceed the model's positions.
    """
    directory, lora, adapter = hf_io.model_dir(path), None, dict[str, Any]()
    base = directory
    if (directory / peft_io.CONFIG).is_file():
        named = files.read_json(directory / peft_io.CONFIG).get("base_model_name_or_path")
        base = hf_io.model_dir(str(named))
    mesh = sharding.make_mesh(MeshSettings())

    def placed(geometry: Any) -> Any:
        shapes = {"base": QwenModel(geometry).shapes()["base"]}
        return param_shardings(shapes, mesh)["base"]

    geometry, weights = hf_io.load_hf(base, param_dtype=jnp.dtype(dtype), shardings=placed)
    if base is not directory:
        adapter, lora = peft_io.load_adapter(directory, geometry)
    own = directory if (directory / "tokenizer.json").is_file() else base
    tokenizer = tokenizers.load_tokenizer(own)
    if len(tokenizer) > geometry.vocab_size:
        raise CheckpointError(
            f"{len(tokenizer)} tokens in {own}", wanted=f"at most {geometry.vocab_size}, its rows"
        )
    model = QwenModel(
        geometry, lora, compute_dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype),
        rows=sharding.batch_sharding(mesh),
    )  # fmt: skip
    eos = tokenizers.eos_id(tokenizer)
    sampler = Sampler(
        model, mesh, eos_id=eos, pad_id=tokenizers.pad_id(tokenizer), vocab=len(tokenizer)
    )
    new = limits.new or min(_NEW, geometry.max_position_embeddings // 2)
    prompt = limits.prompt or max(1, min(_PROMPT, geometry.max_position_embeddings - new))
    served = Served(
        name or Path(path).name, sampler.programs.model, None, tokenizer,
        (eos, *_other_ends(directory, eos)), prompt, new,
    )  # fmt: skip
    loaded = Loaded(model, {"base": weights, "lora": adapter})
    return _loaded(served, sampler, loaded, SamplingSettings())


def _loaded(served: Served, sampler: Sampler, loaded: Loaded, sampling: SamplingSettings) -> Served:
    most = loaded.model.config.max_position_embeddings
    if served.prompt + served.new > most:
        raise ConfigError(
            f"prompts of {served.prompt} tokens and completions of {served.new}",
            wanted=f"together at most the model's {most} positions",
            fix="lower --prompt_tokens or --new_tokens",
        )
    return served._replace(weights=sampler.weights(loaded.params, sampling))


def _other_ends(directory: Path, eos: int) -> list[int]:
    """The other end tokens that a model's own generation_config.json names."""
    if not (directory / _GENERATION).is_file():
        return []
    found = files.read_json(directory / _GENERATION).get("eos_token_id")
    ends = found if isinstance(found, list) else [found]
    return [end for end in ends if isinstance(end, int) and end != eos]
