"""Files of a trained student in the form that other tools read, made from the run's records.

Nothing is measured here: `training_stats.json` comes from metrics.jsonl, `model_info.json` from
the settings and that. Times and paths, which differ between two runs of one command, are in these
files alone.
"""

import datetime
from pathlib import Path
from typing import Any

import jax

from distill_jax.run.files import write_json
from distill_jax.run.run import Run, Stage
from distill_jax.run.settings import BASE, TrainSettings
from distill_jax.training.records import METRICS_FILE, read_rows
from distill_jax.training.summary import training_stats

STATS, FINAL_STATS = "training_stats.json", "final_training_stats.json"
MODEL_INFO, TRAINING_CONFIG = "model_info.json", "training_config.json"


def write_stats(directory: Path, name: str = STATS) -> None:
    """Writes the series of a reinforcement stage that is logged so far; process 0 alone."""
    if jax.process_index() == 0:
        write_json(directory / name, training_stats(read_rows(directory / METRICS_FILE)))


def write_model_info(run: Run, stage: Stage[TrainSettings], directory: Path, steps: int) -> None:
    """Writes `model_info.json` and the settings into what a stage made.

    Args:
        run: settings, work directory.
        stage: that made it.
        directory: its adapter, or the whole model.
        steps: made in training.
    """
    if jax.process_index() != 0:
        return
    config, settings = run.config, stage.settings
    rows = read_rows(run.workdir / stage.name / METRICS_FILE)
    rewards = [row["reward"] for row in rows if "reward" in row]
    reads_teacher = "teacher" in settings.roles()
    start = getattr(settings, "start", BASE)
    base = run.student(start).base
    info: dict[str, Any] = {
        "model_type": f"{'lora' if directory.name == 'adapter' else 'full'}_{stage.name}",
        "base_model": str(base or config.student.path or run.models.path("student")),
        "start": start,
        "teacher_model": run.models.name("teacher") if reads_teacher else None,
        "training_steps": steps,
        "final_reward": rewards[-1] if rewards else None,
        "training_date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config_summary": {
            "preset": config.preset,
            "seed": config.seed,
            "data": config.data.source,
            "lora": {"rank": config.lora.rank, "alpha": config.lora.alpha},
            "learning_rate": settings.optimizer.learning_rate,
            **settings.summary(config),
        },
    }
    write_json(directory / MODEL_INFO, info)
    write_json(directory / TRAINING_CONFIG, run.config_dict)
