"""What stage distill learns on: problems with the responses that solutions or the teacher gave."""

import dataclasses
import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from distill_jax.core import files, rng, sharding
from distill_jax.core.errors import CheckpointError, DataError
from distill_jax.data.chat import Example
from distill_jax.data.problem import Problem
from distill_jax.evaluation.runner import completions
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.run.stop import GO_ON, Interrupted
from distill_jax.stages import supervised
from distill_jax.stages.settings import DistillSettings
from distill_jax.training.progress import Progress


class Rows(NamedTuple):
    """Problems, the example of each, and figures of how they came about.

    A response is a list of token ids as they were drawn, EOS included, never text that is
    tokenised again; it is empty where every step draws the student's own.
    """

    problems: list[Problem]
    examples: list[Example]
    figures: dict[str, float]


def make(
    run: Run,
    stage: Stage[DistillSettings],
    directory: Path,
    teacher: Loaded,
    given: supervised.Rows | None,
) -> Rows:
    """The rows that the stage's `data` asks for; given: the rendered solutions."""
    if given is not None:
        return Rows(given.problems, given.examples, {"bare_answers": given.bare_answers})
    if stage.settings.data == "teacher_samples":
        return _teacher_samples(run, stage, directory / "teacher_samples", teacher)
    pool = run.data.problems("train")
    return Rows(pool.problems, [Example(prompt, []) for prompt in pool.prompts], {})


def _teacher_samples(
    run: Run, stage: Stage[DistillSettings], directory: Path, teacher: Loaded
) -> Rows:
    """One solution a problem; those that are on disk already are read.

    Raises:
        DataError: none is right, where only right ones are kept.
        Interrupted: asked to stop; the files that are complete stay.
    """
    settings = stage.settings.teacher_samples
    pool = run.data.problems("train")
    count = min(settings.problems or len(pool.problems), len(pool.problems))
    parts = _parts(run, stage, directory, teacher, count)
    problems, examples, right, ended = [], [], 0, 0
    for at, part in enumerate(parts):
        for row in range(len(part["length_N"])):
            index = at * settings.batch + row
            right += bool(part["right_N"][row])
            ended += bool(part["ended_N"][row])
            if settings.only_right and not part["right_N"][row]:
                continue
            response = part["tokens_NR"][row, : part["length_N"][row]].tolist()
            problems.append(pool.problems[index])
            examples.append(Example(pool.prompts[index], response))
    if not examples:
        raise DataError(
            f"none of the teacher's {count} solutions is right",
            wanted="some: the stage learns on right ones alone",
            fix="raise sampling.max_new_tokens, or set "
            f"{stage.name}.teacher_samples.only_right=False",
        )
    run.say(f"{stage.name}: the teacher solved {right} of {count} problems, {ended} ended with EOS")
    figures = {"teacher_accuracy": right / count, "teacher_terminated": ended / count}
    return Rows(problems, examples, {**figures, "rows": len(examples)})


def _parts(
    run: Run, stage: Stage[DistillSettings], directory: Path, teacher: Loaded, count: int
) -> list[dict[str, np.ndarray]]:
    """Files of `batch` solutions each: a function of the seed and the file's number."""
    settings, config = stage.settings.teacher_samples, run.config
    pool = run.data.problems("train")
    sampler, weights = run.models.sampler(teacher.model), None
    # The whole distribution at this temperature: top-p and top-k are the student's.
    how = dataclasses.replace(config.sampling, temperature=settings.temperature, top_p=1.0, top_k=0)
    directory.mkdir(parents=True, exist_ok=True)
    parts = []
    with Progress("teacher samples", count, unit="answers", console=run.console) as progress:
        for number, start in enumerate(range(0, count, settings.batch)):
            path = directory / f"part_{number:05d}.npz"
            if not path.exists():
                if weights is None:
                    weights = sampler.weights(teacher.params, how)
                prompts = pool.prompts[start : min(start + settings.batch, count)]
                tokens_NR, length_N, ended_N = completions(
                    sampler,
                    weights,
                    prompts,
                    how,
                    key=rng.stream_key(run.key(stage), "teacher samples", number),
                    samples=1,
                    batch=settings.batch,
                )
                texts = [run.data.text(row[:n]) for row, n in zip(tokens_NR, length_N, strict=True)]
                problems = pool.problems[start : start + len(prompts)]
                judged = run.data.task.judge(problems, texts, ended_N)
                part = {"tokens_NR": tokens_NR, "length_N": length_N, "ended_N": ended_N}
                _write(path, {**part, "right_N": judged.right_B})
                sharding.barrier(path.name)
                if run.stop.due(number):
                    raise Interrupted(
                        f"{stage.name} was asked to stop; {start + len(prompts)} of the teacher's "
                        f"{count} solutions are kept; {GO_ON}"
                    )
            parts.append(_read(path))
            progress.update(min(start + settings.batch, count))
    return parts


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Beside and renamed; process 0 alone."""
    if jax.process_index() != 0:
        return
    with files.whole(path) as beside, beside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in ("tokens_NR", "length_N", "ended_N", "right_N")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", fix="delete it: it is made again, as it was"
        ) from error
