"""What stage distill learns on: problems with the responses that solutions or the teacher gave."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core import rng, sharding
from distill_jax.core.errors import DataError
from distill_jax.data.chat import Example, Prompts
from distill_jax.data.problem import Problem
from distill_jax.inference import generate
from distill_jax.inference.generate import Answers
from distill_jax.inference.store import AnswerStore
from distill_jax.rollout.sampler import Rollout
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.stages import supervised
from distill_jax.stages import teacher as teachers
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.training.progress import Progress

SAMPLES_FILE = "teacher_samples.jsonl"


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
    given: supervised.ExampleRows | None,
) -> Rows:
    """The rows that the stage's `data` asks for; given: the rendered solutions."""
    if given is not None:
        return Rows(given.problems, given.examples, {"bare_answers": given.bare_answers})
    if stage.settings.data == "teacher_samples":
        return _teacher_samples(run, stage, directory / SAMPLES_FILE, teacher)
    pool = run.data.problems("train")
    return Rows(pool.problems, [Example(prompt, []) for prompt in pool.prompts], {})


def _teacher_samples(run: Run, stage: Stage[DistillSettings], path: Path, teacher: Loaded) -> Rows:
    """`samples` solutions of each problem; those that the file has are not drawn again."""
    settings = stage.settings.teacher_samples
    pool = run.data.problems("train").first(settings.problems)
    each = settings.samples
    count = len(pool.problems) * each
    parts = _draw(run, stage, path, teacher, pool)
    right = [one for part in parts for one in part.columns["right"]]
    tokens = [row for part in parts for row in part.tokens]
    kept = [i for i in range(count) if right[i] or not settings.only_right]
    if not kept:
        raise DataError(
            f"none of the teacher's {count} solutions is right",
            wanted="some: the stage learns on right ones alone",
            fix="raise sampling.max_new_tokens, or set "
            f"{stage.name}.teacher_samples.only_right=False",
        )
    ended = sum(int(part.ended_B.sum()) for part in parts)
    run.say(
        f"{stage.name}: {sum(right)} of {count} solutions of the teacher are right, {ended} ended "
        "with EOS"
    )
    figures = {
        "teacher_accuracy": sum(right) / count,
        "teacher_terminated": ended / count,
        "teacher_prefilled_tokens": sum(map(len, pool.prompts)),
        "teacher_sampled_tokens": sum(int(part.length_B.sum()) for part in parts),
    }
    return Rows(
        [pool.problems[i // each] for i in kept],
        [Example(pool.prompts[i // each], tokens[i]) for i in kept],
        {**figures, "rows": len(kept)},
    )


def _draw(
    run: Run, stage: Stage[DistillSettings], path: Path, teacher: Loaded, pool: Prompts
) -> list[Answers]:
    """The answers of each `batch` problems: a function of the seed and the batch's number."""
    settings = stage.settings.teacher_samples
    each, batch = settings.samples, max(settings.batch, settings.samples)
    total, size = len(pool.prompts) * each, batch // each
    sampler = run.models.sampler(teacher.model)
    # Top-p and top-k are the student's.
    sampling = run.config.sampling.whole(settings.temperature)
    weights = functools.cache(lambda: sampler.weights(teacher.params, sampling))
    digests = teachers.digests(run, stage.settings)
    more = {"batch": settings.batch} | ({"samples": each} if each > 1 else {})
    store = AnswerStore(path, generate.made_from(run, digests, pool, sampling, **more))

    def right(start: int, rows: Sequence[int], out: Rollout) -> dict[str, list[Any]]:
        texts = [run.data.text(row[:n]) for row, n in zip(out.tokens_BR, out.length_B, strict=True)]
        problems = [pool.problems[start + i] for i in rows for _ in range(each)]
        judged = run.data.task.judge(problems, texts, out.ended_B)
        # All processes must train on the same rows.
        return {"right": sharding.of_first_process(judged.right_B).tolist()}

    title, after = "teacher samples", f"the teacher's {total} solutions are kept"
    done, parts = store.count(), []
    with Progress(title, total, start=done, unit="answers", console=run.console) as progress:
        tick = generate.stopping(run, progress, done, f"{stage.name} was asked to stop;", after)
        for number, start in enumerate(range(0, len(pool.prompts), size)):
            parts.append(
                generate.answers(
                    sampler,
                    weights,
                    pool.prompts[start : start + size],
                    sampling,
                    key=rng.stream_key(run.key(stage), title, number),
                    batch=batch,
                    samples=each,
                    store=store,
                    decoding=f"{title} {number}",
                    columns=functools.partial(right, start),
                    tick=tick,
                )
            )
    return parts
