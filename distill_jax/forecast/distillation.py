"""Memory of a stage of kind distill: the student's update, with the teacher inside its loss."""

import dataclasses
from typing import Any

from distill_jax.core.batching import round_up
from distill_jax.data import packing
from distill_jax.forecast import activations
from distill_jax.forecast.activations import Rows
from distill_jax.forecast.memory import SUPERVISED_MULTIPLE, Job
from distill_jax.forecast.parts import Part


def parts(job: Job, settings: Any) -> list[Part]:
    """The parts by settings as of distill, lengths at the limits of the run's settings."""
    sampling, full = job.config.sampling, settings.trainable == "full"
    compares = settings.loss.kd_weight > 0
    start = compares and not settings.teacher.is_model
    base = job.base_part("student")
    found = [base, *job.trained_parts(settings.optimizer, values=False, full=full,
                                      kept="start as teacher" if start else "")]  # fmt: skip
    if settings.teacher.is_model:
        found.insert(0, job.base_part("teacher"))
    if settings.data == "teacher_samples":
        how = settings.teacher_samples
        found += job.drawing.parts(
            "teacher's samples", how.batch, how.batch // how.samples,
            role="teacher" if settings.teacher.is_model else "student", problems=how.problems,
        )  # fmt: skip
    if settings.draws:
        drawn = job.drawing.batches(settings.prompts, settings.samples, turns=True)
        found.append(Part("rollout: decode weights, cache, logits", drawn, False))
        found += job.drawing.later_turns("rollout", settings.batch_size)
    if compares and settings.loss.top_k:
        R = round_up(sampling.max_new_tokens, SUPERVISED_MULTIPLE)
        T = round_up(settings.teacher.longest_prompt(job.config) + R, SUPERVISED_MULTIPLE)
        teacher = job.program("teacher" if settings.teacher.is_model else "student")
        held = job.scoring(teacher, settings.batch_size, T, R)
        found.append(Part("teacher scoring: activations", held, False))
    held = _update(job, settings, compares and not settings.loss.top_k) + base.bytes * full
    return [*found, Part("update: activations", held, False)]


def _rows(job: Job, settings: Any, prompt: int) -> Rows:
    """A device's rows of a microbatch, whose prompts have at most so many tokens."""
    count, R = settings.batch_size, job.config.sampling.max_new_tokens
    T = round_up(prompt + R, SUPERVISED_MULTIPLE)
    R = round_up(R, SUPERVISED_MULTIPLE)
    if settings.packing and not settings.draws:  # a packed row has responses anywhere
        T = R = settings.packing
        by = settings.accumulate * job.shards
        count = packing.most_rows(count, job.solution, budget=T, parts=by)
    return job.rows(count // settings.accumulate, T, R)


def _update(job: Job, settings: Any, compares: bool) -> int:
    """Activations of the update; `compares`: its loss runs the teacher on each microbatch.

    The teacher's layers are done before the student's need most. What stays of them are its states
    and, where it is gathered, its head; the logits of a chunk are those of both models.
    """
    full = settings.trainable == "full"
    student = job.program("student", dropout=not full)
    if full:
        student = dataclasses.replace(student, rank=0)
    rows = _rows(job, settings, job.config.data.max_prompt_tokens)
    update = activations.update(student, rows, shards=job.shards)
    if not compares:
        return update
    teacher = job.program("teacher" if settings.teacher.is_model else "student")
    read = _rows(job, settings, settings.teacher.longest_prompt(job.config))
    states = teacher.itemsize * rows.rows * rows.R * teacher.geometry.hidden_size
    head = sum(activations.gathered_head(teacher))
    scored = activations.scoring(teacher, read, shards=job.shards)
    return max(update + states + head, scored)
