"""Prompts that the teacher of a stage reads and the student does not: with the worked solution."""

import dataclasses
from collections.abc import Sequence

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import chat
from distill_jax.data.problem import Problem
from distill_jax.models import hf_io
from distill_jax.run import geometry
from distill_jax.run.run import Run, Stage
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.teacher_settings import StageTeacherSettings


class TeacherPrompts:
    """Token ids of the teacher's prompt for a problem, by the settings' template.

    Each is rendered once and kept.
    """

    def __init__(self, run: Run, settings: StageTeacherSettings):
        self._run, self._settings = run, settings
        self._known: dict[str, list[int]] = {}

    def of(self, problems: Sequence[Problem]) -> list[list[int]]:
        """The prompt of each problem.

        Raises:
            DataError: a problem without a solution that the task accepts, or a prompt over
                teacher.max_prompt_tokens.
        """
        new = {one.id: one for one in problems if one.id not in self._known}
        task, limit = self._run.data.task, longest(self._run, self._settings)
        shown = [self._shown(one) for one in new.values()]
        rendered = chat.render_prompts(self._run.data.tokenizer, shown, task.chat)
        for name, ids in zip(new, rendered, strict=True):
            if len(ids) > limit:
                raise DataError(
                    f"problem {name} has a teacher's prompt of {len(ids)} tokens",
                    wanted=f"at most {limit}",
                    fix="raise teacher.max_prompt_tokens of the stage, or shorten teacher.prompt",
                )
            self._known[name] = ids
        return [self._known[one.id] for one in problems]

    def _shown(self, problem: Problem) -> Problem:
        solution = self._run.data.task.response(problem, bare=False)
        if solution is None and "solution" in self._settings.shown:
            raise DataError(
                f"problem {problem.id} has no solution that the task accepts",
                wanted="one, which teacher.prompt shows to the teacher",
                fix="remove the row, or leave teacher.prompt empty",
            )
        parts = {"question": problem.question, "solution": solution or "", "answer": problem.answer}
        return dataclasses.replace(problem, question=self._settings.filled(parts))


def longest(run: Run, settings: StageTeacherSettings) -> int:
    """Most tokens of a prompt that the teacher reads."""
    return settings.longest_prompt(run.config)


def make(run: Run, settings: StageTeacherSettings) -> TeacherPrompts | None:
    """The teacher's own prompts; None where it reads the student's."""
    return TeacherPrompts(run, settings) if settings.prompt else None


def check(run: Run, stage: Stage[RLSettings] | Stage[DistillSettings]) -> None:
    """Renders the prompt of every training problem once, before any stage begins.

    Raises:
        ConfigError: prompt and completion take more positions than a teacher has.
        DataError: see `TeacherPrompts.of`.
    """
    settings = stage.settings.teacher
    prompts = make(run, settings)
    if prompts is None:
        return
    if settings.is_remote:  # the server knows its positions, and refuses
        prompts.of(run.data.problems("train").problems)
        return
    role = "teacher" if settings.is_model else "student"
    shapes = {role: geometry.of_role(run, role, run.config.stages)}
    for name, path in settings.paths.items():
        shapes[f"teacher {name}"] = hf_io.load_config(hf_io.model_dir(path))
    total = longest(run, settings) + run.config.sampling.response_tokens
    for name, shape in shapes.items():
        if total > shape.max_position_embeddings:
            raise ConfigError(
                f"{stage.name}.teacher.max_prompt_tokens={settings.max_prompt_tokens}: prompt and "
                f"completion take {total} positions",
                wanted=f"at most the {name}'s {shape.max_position_embeddings}",
                fix=f"lower {stage.name}.teacher.max_prompt_tokens",
            )
    prompts.of(run.data.problems("train").problems)
