"""Files in the form that other tools of this kind read, made from the run's own records.

Nothing is measured here: `training_stats.json` comes from metrics.jsonl, `model_info.json` from the
settings and that, `evaluation_results.json` from `evaluate/SUBJECT.json`. What differs between two
runs of one command (times, paths) stands in these files and in none that they are made from.
"""

import datetime
from pathlib import Path
from typing import Any

import jax

from distill_jax.core.files import read_json
from distill_jax.evaluation import learning
from distill_jax.report import view
from distill_jax.stages.context import Context, write_json
from distill_jax.stages.subjects import Subject
from distill_jax.training.records import METRICS_FILE, read_rows
from distill_jax.training.summary import training_stats

STATS, FINAL_STATS = "training_stats.json", "final_training_stats.json"
MODEL_INFO, TRAINING_CONFIG = "model_info.json", "training_config.json"
EVALUATION_RESULTS = "evaluation_results.json"


def write_stats(directory: Path, name: str = STATS) -> None:
    """Writes the series of stage rl that is logged so far; process 0 alone."""
    if jax.process_index() == 0:
        write_json(directory / name, training_stats(read_rows(directory / METRICS_FILE)))


def write_model_info(context: Context, stage: str, directory: Path, steps: int) -> None:
    """Writes `model_info.json` and the settings beside what a stage made.

    Args:
        context: settings, work directory.
        stage: sft, distill or rl.
        directory: its adapter, or the whole model that it made.
        steps: made in training.
    """
    if jax.process_index() != 0:
        return
    config = context.config
    rows = read_rows(context.workdir / stage / METRICS_FILE)
    rewards = [row["reward"] for row in rows if "reward" in row]
    info = {
        "model_type": f"{'lora' if directory.name == 'adapter' else 'full'}_{stage}",
        "base_model": config.student.path or str(context.model_path("student")),
        # Stage sft learns from the data's solutions.
        "teacher_model": None if stage == "sft" else _teacher(context),
        "training_steps": steps,
        "final_reward": rewards[-1] if rewards else None,
        "training_date": _now(),
        "config_summary": {
            "preset": config.preset,
            "seed": config.seed,
            "data": config.data.source,
            "lora": {"rank": config.lora.rank, "alpha": config.lora.alpha},
            "learning_rate": getattr(config, stage).optimizer.learning_rate,
            **(_of_rl(context) if stage == "rl" else {}),
        },
    }
    write_json(directory / MODEL_INFO, info)
    write_json(directory / TRAINING_CONFIG, context.config_dict)


def _of_rl(context: Context) -> dict[str, Any]:
    settings, sampling = context.config.rl, context.config.sampling
    return {
        "algorithm": settings.algorithm,
        "prompts_per_step": settings.prompts_per_step,
        "samples_per_prompt": settings.samples_per_prompt,
        "reward_weights": dict(settings.rewards.weights),
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_new_tokens,
    }


def _teacher(context: Context) -> str:
    """Its path or hub id as given, else where stage pretrain leaves it."""
    made = context.workdir / "pretrain" / "teacher" / "model"
    return context.config.teacher.path or str(made)


def write_evaluation(
    context: Context, directory: Path, subject: Subject, result: dict[str, Any], *, fresh: bool
) -> None:
    """Writes `evaluation_results.json` of a subject, if it says anything new.

    Args:
        context: settings, work directory.
        directory: of the subject.
        subject: what was evaluated.
        result: as in SUBJECT.json.
        fresh: it was made just now; else the time of before is kept.
    """
    if jax.process_index() != 0:
        return
    path = directory / EVALUATION_RESULTS
    before = read_json(path)
    time = _now() if fresh or before is None else before["evaluation_time"]
    training = _training(context, subject.name)
    view = evaluation_results(result, str(subject.path), _teacher(context), time, training)
    if view != before:
        write_json(path, view)


def evaluation_results(
    result: dict[str, Any],
    checkpoint_path: str,
    teacher_model: str,
    evaluation_time: str,
    training: dict[str, Any] | None,
) -> dict[str, Any]:
    """A result of stage evaluate under the names of `evaluation_results.json`.

    Greedy decoding's figures stand first in each group, those of the samples below "sampled".
    """
    greedy, sampled = result["greedy"], result["sampled"]
    shares = ("mean_length", "terminated", "undecided", "hacking", "levels")
    return {
        "checkpoint_path": checkpoint_path,
        "teacher_model": teacher_model,
        "evaluation_time": evaluation_time,
        "accuracy": greedy["accuracy"]["mean"],
        "accuracy_interval": [greedy["accuracy"]["low"], greedy["accuracy"]["high"]],
        "pass@1": sampled["pass@1"],
        "pass@k": sampled.get("pass@k"),
        "maj@k": sampled.get("maj@k"),
        "reasoning_quality": {**greedy["reasoning"], "sampled": sampled["reasoning"]},
        "distillation_effect": result["distribution"],
        "statistics": {
            "num_problems": result["num_problems"],
            "num_right": sum(problem["greedy_right"] for problem in result["problems"]),
            **{name: greedy[name] for name in shares},
            "sampled": {
                "samples": result["samples"],
                "temperature": result["temperature"],
                **{name: sampled[name] for name in shares},
            },
        },
        "training": training,
        "individual_results": result["problems"],
    }


def _training(context: Context, name: str) -> dict[str, Any] | None:
    """How stage rl learned up to the subject's weights; None for others."""
    last = None
    checkpoint = view.load(context.workdir).checkpoint(name)
    if checkpoint is not None:
        last = checkpoint[1]
    elif name != "rl":
        return None
    rows = read_rows(context.workdir / "rl" / METRICS_FILE)
    return learning.summary([row for row in rows if last is None or row["step"] <= last])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
