"""Held-out problems: accuracy in training on validation; the test problems and answers to them."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core import rng
from distill_jax.core.errors import CheckpointError
from distill_jax.data.chat import Prompts
from distill_jax.evaluation import leading
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.evaluation.subjects import TEACHER, Subject
from distill_jax.inference import generate, store
from distill_jax.inference.generate import Answers
from distill_jax.rollout.sampler import Sampler
from distill_jax.run.run import Run, Stage
from distill_jax.run.settings import TrainSettings


def validation(
    run: Run, sampler: Sampler, weights: Any, settings: TrainSettings
) -> dict[str, float]:
    """The `eval/` metrics of a student in training: greedy accuracy on the first problems of the
    validation split, lengths, share with EOS."""
    drawn, right_B = validation_answers(run, sampler, weights, settings)
    return {
        "eval/accuracy": float(np.mean(right_B)),
        "eval/mean_length": float(np.mean(drawn.length_B)),
        "eval/terminated": float(np.mean(drawn.ended_B)),
    }


def validation_answers(
    run: Run, sampler: Sampler, weights: Any, settings: TrainSettings
) -> tuple[Answers, np.ndarray]:
    """A student's greedy answers to the first eval_problems validation problems; bool: right."""
    config, data = run.config, run.data.problems("validation")
    count = min(settings.eval_problems, len(data.prompts))
    drawn = generate.answers(
        sampler,
        lambda: weights,
        data.prompts[:count],
        config.sampling.whole(0.0),
        key=rng.stream_key(rng.run_key(config.seed), "validation"),
        batch=settings.eval_batch,
        replies=run.data.replies(),
    )
    texts = [run.data.text(row) for row in drawn.own]
    return drawn, run.data.task.judge(data.problems[:count], texts, drawn.ended_B).right_B


def held_out(run: Run, settings: EvaluateSettings) -> Prompts:
    """The problems that all subjects answer.

    Those of another task than the run's are the same problems, if their prompts fit, too.
    """
    data = run.data.problems(settings.split)
    count = min(settings.problems, len(data.prompts))
    if settings.task in ("", run.config.task):
        return Prompts(data.problems[:count], data.prompts[:count], data.dropped)
    return run.data.task_of(settings.task).prompts(data.problems[:count])


def own_prompts(run: Run, how: EvaluateSettings, subject: Subject, data: Prompts) -> Prompts:
    """The problems as the subject's tokenizer writes them."""
    if subject.tokenizer is None:
        return data
    own = run.data.task_of(how.task).prompts(data.problems, subject.tokenizer)
    if own.dropped:
        run.say(f"{subject.name}: {own.dropped} problems dropped, too long in its own tokens")
    return own


def made_from(run: Run, how: EvaluateSettings, subject: Subject, data: Prompts) -> dict[str, Any]:
    """What the subject's answers depend on; a result of something else is not its result."""
    draws = {"samples": how.samples, "temperature": how.temperature}
    weights = subject.weights | dtypes(run, subject)
    task = how.task or run.config.task
    return generate.made_from(run, weights, data, run.config.sampling, evaluate=draws, task=task)


def dtypes(run: Run, subject: Subject) -> dict[str, str]:
    """Settings, other than their defaults, that change what a subject's weights compute."""
    used = run.models.settings_of(TEACHER if subject.name == TEACHER else "student")
    names = ("param_dtype", "compute_dtype", "quantise")
    there = [one for one in fields(used) if one.name in names]
    return {f.name: getattr(used, f.name) for f in there if getattr(used, f.name) != f.default}


def answers_path(directory: Path, name: str) -> Path:
    """Where the answers of a subject are kept."""
    return directory / f"{name}.checkpoint.jsonl"


def evaluate_stage(run: Run) -> Stage[EvaluateSettings]:
    """The stage whose results a report leads with: see `leading.rank`.

    Raises:
        CheckpointError: the plan has none.
    """
    plan = run.config.plan
    found = {n: s for n in run.config.order if isinstance(s := plan[n], EvaluateSettings)}
    if not found:
        raise CheckpointError(f"no stage of the plan evaluates: {', '.join(plan)}")
    rank = {name: leading.rank(run.workdir / name, one.benchmark) for name, one in found.items()}
    return run.stage(sorted(found, key=rank.__getitem__)[-1])


def kept_greedy(
    run: Run, stage: Stage[EvaluateSettings], name: str, source: dict[str, Any], count: int
) -> list[list[int]]:
    """Token ids of a subject's greedy answers, one a problem, as the stage kept them.

    Raises:
        CheckpointError: they are not `count` answers, or not made from `source`.
    """
    path = answers_path(run.workdir / stage.name, name)
    found, batches, _ = store.read(path)
    answers = [completions[0] for completions in store.responses(batches, "greedy")]
    if found != source or len(answers) != count:
        got = f"has {len(answers)} greedy answers, of {found}" if found else "is missing"
        wanted = f"{count} answers of {name} as it is now"
        raise CheckpointError(f"{path} {got}", wanted=wanted, fix=run.run_first(stage.name))
    return answers


def greedy_outputs(run: Run, stage: Stage[EvaluateSettings], name: str) -> list[list[Any]]:
    """The outputs in each of `kept_greedy`'s answers, as `completions.Output`."""
    batches = store.read(answers_path(run.workdir / stage.name, name))[1]
    return [outputs[0] for outputs in store.column(batches, "greedy", generate.OUTPUTS)]


def greedy_answers(
    run: Run, stage: Stage[EvaluateSettings], subject: Subject, data: Prompts
) -> list[list[int]]:
    """Token ids of the subject's greedy answers to these problems: see `kept_greedy`."""
    source = made_from(run, stage.settings, subject, data)
    return kept_greedy(run, stage, subject.name, source, len(data.prompts))
