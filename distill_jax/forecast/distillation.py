"""Memory of a stage of kind distill: the student's update, with the teacher inside its loss."""

import dataclasses
from typing import Any

from distill_jax.forecast import activations
from distill_jax.forecast.activations import Program, Rows
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part


def parts(job: Job, settings: Any) -> list[Part]:
    """The parts by settings as of distill, lengths at the limits of the run's settings."""
    full, base = settings.trainable == "full", job.base_part("student")
    role = "teacher" if settings.teacher.is_model else "student"
    kept = "" if settings.teacher.is_model else "start as teacher"
    found = [job.base_part("teacher")] if settings.teacher.is_model else []
    found += [base, *job.trained_parts(settings.optimizer, values=False, kept=kept, full=full)]
    if settings.data == "teacher_samples":
        each = settings.teacher_samples.samples
        prompts = max(1, settings.teacher_samples.batch // each)
        what = "solutions of the teacher"
        # Each batch is drawn by itself.
        found += job.drawing.parts(what, prompts * each, prompts, role=role, problems=prompts)
    if settings.draws:
        drawn = job.drawing.batches(settings.prompts, settings.samples, turns=True)
        found.append(Part("rollout: decode weights, cache, logits", drawn, False))
        found += job.drawing.later_turns("rollout", settings.batch_size)
    compares, top_k = settings.loss.kd_weight > 0, settings.loss.top_k
    teacher, prompt = job.program(role), settings.teacher.longest_prompt(job.config)
    if compares and top_k:
        read = job.example_rows(settings.batch_size, prompt)
        held = activations.scoring_in_parts(teacher, read, shards=job.shards)
        found.append(Part("teacher scoring: activations", held, False))
    count, own = settings.batch_size // settings.accumulate, job.config.data.max_prompt_tokens
    rows, read = job.example_rows(count, own), job.example_rows(count, prompt)
    if settings.packing:  # steps on own samples are not packed, and are smaller
        rows = read = job.packed_rows(settings)
    held = _update(job, full, rows, (teacher, read) if compares and not top_k else None)
    return [*found, Part("update: activations", held + base.bytes * full, False)]


def _update(job: Job, full: bool, rows: Rows, compared: tuple[Program, Rows] | None) -> int:
    """Activations of the update; compared: the teacher that its loss runs, and what that reads.

    The teacher's layers are done before the student's need most. What stays of them are its states
    and, where it is gathered, its head; the logits of a chunk are those of both models.
    """
    student = job.program("student", dropout=not full)
    if full:
        student = dataclasses.replace(student, rank=0)
    update = activations.update(student, rows, shards=job.shards)
    if compared is None:
        return update
    teacher, read = compared
    states = teacher.itemsize * rows.rows * rows.R * teacher.geometry.hidden_size
    head = sum(activations.gathered_head(teacher))
    scored = activations.scoring(teacher, read, shards=job.shards)
    return max(update + states + head, scored)
