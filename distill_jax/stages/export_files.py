"""A trained student in the forms that other tools read, and files made from the run's records.

`training_stats.json` comes from metrics.jsonl, `model_info.json` from the settings and that. Times
and paths, which differ between two runs of one command, are in these files alone.
"""

import datetime
from pathlib import Path
from typing import Any

import jax

from distill_jax.core import sharding
from distill_jax.models import hf_io
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run.console import write_json
from distill_jax.run.run import Run, Stage
from distill_jax.training.records import METRICS_FILE, read_rows
from distill_jax.training.state import TrainState
from distill_jax.training.summary import training_stats

STATS, FINAL_STATS = "training_stats.json", "final_training_stats.json"
MODEL_INFO, TRAINING_CONFIG = "model_info.json", "training_config.json"


def write_stats(directory: Path, name: str = STATS) -> None:
    """Writes the series of a reinforcement stage that is logged so far; process 0 alone."""
    if jax.process_index() == 0:
        write_json(directory / name, training_stats(read_rows(directory / METRICS_FILE)))


def save_student(
    run: Run, stage: Stage[Any], directory: Path, geometry: QwenConfig, state: TrainState
) -> dict[str, int]:
    """Exports `adapter/` (PEFT), or `model/` (Hugging Face) where all parameters were trained.

    Returns:
        {"steps", "skipped_updates"}.
    """
    base = run.student(stage.settings.start).base
    if "lora" in state.trainable:
        made = directory / "adapter"
        run.models.save_adapter(geometry, state.trainable["lora"], made, base)
    else:
        made = directory / "model"
        hf_io.save_hf(made, geometry, state.trainable["base"], tokenizer=run.data.tokenizer)
    found = sharding.fetch({"steps": state.step, "skipped_updates": state.skipped})
    counts = {name: int(x) for name, x in found.items()}
    if jax.process_index() == 0:
        write_json(made / MODEL_INFO, _model_info(run, stage, made, base, counts["steps"]))
        write_json(made / TRAINING_CONFIG, run.config_dict)
    return counts


def _model_info(
    run: Run, stage: Stage[Any], made: Path, base: Path | None, steps: int
) -> dict[str, Any]:
    config, settings = run.config, stage.settings
    rows = read_rows(run.workdir / stage.name / METRICS_FILE)
    rewards = [row["reward"] for row in rows if "reward" in row]
    return {
        "model_type": f"{'lora' if made.name == 'adapter' else 'full'}_{stage.name}",
        "base_model": str(base or config.student.path or run.models.path("student")),
        "start": settings.start,
        "teacher_model": run.models.name("teacher") if "teacher" in settings.roles() else None,
        "training_steps": steps,
        "final_reward": rewards[-1] if rewards else None,
        "training_date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config_summary": {
            "preset": config.preset,
            "seed": config.seed,
            "data": config.data.source,
            "trainable": getattr(settings, "trainable", "lora"),
            "lora": {name: getattr(config.lora, name) for name in ("rank", "alpha", "use_rslora")},
            "learning_rate": settings.optimizer.learning_rate,
            **settings.summary(config),
        },
    }
