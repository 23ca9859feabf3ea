"""Several teachers in one stage: a column of the data names the one that scores a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.errors import DataError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.data.problem import Problem
from distill_jax.models import hf_io
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.length_buckets import NAMES, RowScorer
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.run import geometry
from distill_jax.run.run import Run, Stage
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.teacher_settings import OWN, StageTeacherSettings

# Columns of a problem that are attributes of it.
_ATTRIBUTES = ("level", "subject")


def names(settings: StageTeacherSettings, problems: Sequence[Problem]) -> list[str]:
    """The name of each problem's teacher.

    Raises:
        DataError: a problem whose column is missing, or names no teacher.
    """
    known, column, found = (OWN, *settings.paths), settings.column, []
    for problem in problems:
        value = problem.extra.get(column)
        if column in _ATTRIBUTES:
            value = getattr(problem, column)
        if str(value) not in known:
            raise DataError(
                f"problem {problem.id} has {column}={value!r}",
                wanted=f"one of {', '.join(known)}: the teachers of teacher.models",
                fix="correct the row, or add that teacher",
            )
        found.append(str(value))
    return found


class RoutedTeacher:
    """Scores each row under its problem's teacher; all are on the mesh at once.

    Args:
        settings: column and names.
        scorers: by name.
        mesh: of all.
    """

    def __init__(
        self,
        settings: StageTeacherSettings,
        scorers: Mapping[str, RowScorer | CachedTeacher],
        mesh: Mesh,
    ):
        self._settings, self.scorers = settings, dict(sorted(scorers.items()))
        self._where = sharding.batch_sharding(mesh)

    def score(self, batch: Mapping[str, Any], problems: Sequence[Problem]) -> TeacherScores:
        """Scores of a batch, on the host or the mesh; 0 beyond a response's length."""
        host = sharding.fetch({name: batch[name] for name in NAMES})
        host = {name: np.asarray(x) for name, x in host.items()}
        own_B = np.array(names(self._settings, problems))
        B, R = host["targets_BR"].shape
        out = [np.zeros(shape, np.float32) for shape in ((B, R), (B, R), (B,))]
        for name, scorer in self.scorers.items():
            rows = np.flatnonzero(own_B == name)
            if len(rows):
                scored = scorer.score_rows({key: x[rows] for key, x in host.items()})
                for target, x in zip(out, scored, strict=True):
                    target[rows] = x
        return TeacherScores(*sharding.place(tuple(out), self._where))

    def metrics(self) -> dict[str, float]:
        """Of each teacher's cache, as teacher_cache/NAME/..., of the run's own without a name."""
        found: dict[str, float] = {}
        for name, one in self.scorers.items():
            if isinstance(one, CachedTeacher):
                group = "teacher_cache/" if name == OWN else f"teacher_cache/{name}/"
                figures = one.metrics().items()
                found |= {key.replace("teacher_cache/", group): value for key, value in figures}
        return found

    def close(self) -> None:
        """Closes the caches."""
        for one in self.scorers.values():
            if isinstance(one, CachedTeacher):
                one.close()


def check(run: Run, stage: Stage[RLSettings]) -> None:
    """Files, tokenizer, rows and positions of each teacher of `teacher.models`.

    Raises:
        CheckpointError, ConfigError, TokenizerMismatchError: a model that does not fit.
    """
    for name, path in stage.settings.teacher.paths.items():
        directory, setting = hf_io.model_dir(path), f"{stage.name}.teacher.models: {name}"
        found = geometry.check_model_files(directory)
        theirs = tokenizers.load_tokenizer(directory)
        tokenizers.check_same_tokenizer(theirs, run.data.tokenizer, name=f"teacher {name}")
        run.models.check_rows(setting, found)
        geometry.check_positions(run, f"teacher {name}", found)
