"""The settings of the teacher that a stage learns from: which model it is, and what it reads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.run.settings import Shared
from distill_jax.synthesis.score_settings import ScoreServerSettings

MODEL, START, ENDPOINT = "model", "start", "endpoint"
# What a template of the teacher's prompt may show of a problem.
PARTS = ("question", "solution", "answer")
# Name of the run's teacher in the column that routes rows.
OWN = "teacher"
_PART = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class StageTeacherSettings:
    """The teacher that scores this stage's tokens."""

    UNREAD: ClassVar = (
        Unread(("max_prompt_tokens",), ("prompt",), off),
        Unread(("column",), ("models",), off),
        Unread(("endpoint",), ("source",), lambda source: source != ENDPOINT),
    )

    source: str = setting(
        MODEL,
        "model: the run's teacher. start: the student that the stage starts from (frozen weights, "
        "in memory once), a control without a teacher's knowledge. endpoint: a server that gives "
        "log-probabilities of given tokens.",
        choices=(MODEL, START, ENDPOINT),
    )
    prompt: str = setting(
        "",
        "Text that the teacher reads in the question's place, with {question}, {solution} and "
        "{answer} filled in; the student's prompt stays. Empty: the teacher reads the student's.",
    )
    max_prompt_tokens: int = setting(
        0,
        "Tokens of such a prompt at most, chat format included; 0: data.max_prompt_tokens and "
        "sampling.max_new_tokens together.",
        low=0,
    )

    models: tuple[str, ...] = setting(
        (),
        "Further teachers, each NAME=PATH, a Hugging Face directory or hub id. `column` names each "
        "row's teacher; `teacher` is the run's. All are loaded at once, in the teacher's dtypes, "
        "and score in `buckets`. Each may fill a cache of cache.megabytes.",
    )
    column: str = setting("", "Column of the problems that names each row's teacher.")
    endpoint: ScoreServerSettings = field(default_factory=ScoreServerSettings)

    def __post_init__(self) -> None:
        if self.source == ENDPOINT and not self.endpoint.model:
            raise ConfigError(
                "endpoint.model is empty with source=endpoint",
                wanted="the model's name at the server",
            )
        self._check_models()
        found = self.shown
        if self.prompt and ("question" not in found or not found <= set(PARTS)):
            raise ConfigError(
                f"prompt={self.prompt!r}",
                wanted="{question}, and where wanted {solution} and {answer}",
            )

    def _check_models(self) -> None:
        parts = [one.partition("=") for one in self.models]
        named = [name for name, _, path in parts if name and path and name != OWN]
        if len(set(named)) < len(self.models):
            raise ConfigError(
                f"models={self.models}", wanted=f"NAME=PATH each, no name twice and none {OWN!r}"
            )
        if self.models and (self.source != MODEL or not self.column):
            raise ConfigError(
                f"models={self.models} with source={self.source}, column={self.column!r}",
                wanted="source=model, and the column that names each row's teacher",
            )

    @property
    def paths(self) -> dict[str, str]:
        """Directory or hub id of each further teacher, by its name."""
        return {name: path for name, _, path in (one.partition("=") for one in self.models)}

    @property
    def shown(self) -> set[str]:
        """The parts of a problem that the template has."""
        return set(_PART.findall(self.prompt))

    @property
    def is_model(self) -> bool:
        """Whether the run's teacher is loaded."""
        return self.source == MODEL

    @property
    def is_remote(self) -> bool:
        """Whether a server scores."""
        return self.source == ENDPOINT

    def filled(self, parts: Mapping[str, str]) -> str:
        """The template with these parts of a problem; braces inside of them stay as they are."""
        return _PART.sub(lambda found: parts[found[1]], self.prompt)

    def longest_prompt(self, shared: Shared) -> int:
        """Most tokens of a prompt that the teacher reads."""
        student = shared.data.max_prompt_tokens
        if not self.prompt:
            return student
        return self.max_prompt_tokens or student + shared.sampling.max_new_tokens
