"""Tasks: how a problem is put to a model and how its answer is judged. One entry a kind of answer.

TASKS maps the name in `config.task` to the class.
"""

from distill_jax.tasks.observed import Observed
from distill_jax.tasks.program import ProgramSettings, ProgramTask
from distill_jax.tasks.task import Judged, Reply, Task, TextTask

TASKS: dict[str, type[TextTask]] = {"text": TextTask, "program": ProgramTask}

__all__ = [
    "TASKS",
    "Judged",
    "Observed",
    "ProgramSettings",
    "ProgramTask",
    "Reply",
    "Task",
    "TextTask",
]
