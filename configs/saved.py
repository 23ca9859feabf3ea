"""python -m launch.main --config=configs/saved.py:FILE.json

Settings from a JSON file: `config` of a run.json, or a file of the settings themselves.
"""

import json
from pathlib import Path

import ml_collections

import distill_jax.stages.runner  # noqa: F401 - registers the kinds
from distill_jax.core.errors import ConfigError
from distill_jax.run.config import build, to_config_dict


def get_config(path: str = "") -> ml_collections.ConfigDict:
    """The settings in a file.

    Raises:
        ConfigError: there is none, or it holds no settings.
    """
    if not path:
        raise ConfigError("configs/saved.py without a file", fix="--config=configs/saved.py:FILE")
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", wanted="a JSON file of settings") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("config"), dict):
        found = found["config"]
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds {type(found).__name__}", wanted="an object of settings")
    return to_config_dict(build(found))
