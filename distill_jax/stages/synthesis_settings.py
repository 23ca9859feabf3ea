"""The settings of stages of kind synthesis."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from distill_jax.core import settings, unread
from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.run.settings import TASK, TRAINING_DATA, StageSettings
from distill_jax.stages.traces import DRAWN
from distill_jax.synthesis.settings import EndpointSettings

WRITERS = ("teacher", "endpoint", "file")


@dataclass(frozen=True)
class SynthesisSettings(StageSettings, kind="synthesis", makes="rows"):
    """Worked solutions of the training problems, verified: programs or texts, by config.task."""

    UNREAD: ClassVar = (
        Unread(("endpoint",), ("writer",), lambda writer: writer != "endpoint"),
        Unread(("samples", "temperature"), ("writer",), lambda writer: writer == "file"),
        Unread(("batch",), ("writer",), lambda writer: writer != "teacher"),
    )

    writer: str = setting(
        "teacher",
        "Who writes: the run's teacher, an OpenAI-compatible endpoint, or a file of answers.",
        choices=WRITERS,
    )
    questions: str = setting(
        "",
        "File of problems instead of the training problems; those without an answer are verified "
        "by agreement.",
        ref="file",
    )
    problems: int = setting(0, "Problems, the first ones; 0 is all.", low=0)
    samples: int = setting(4, "Answers asked for of each problem.", low=1)
    temperature: float | None = setting(
        0.7, "Temperature of the sampling; 0 is greedy; None: the endpoint's own.", low=0.0
    )
    batch: int = setting(
        256, "Answers of the teacher decoded at a time.", low=1, affects="rounding"
    )
    answers: str = setting("", "writer=file: rows {id or question, text or response}.", ref="file")
    agree: int = setting(
        3,
        "Without a gold answer: different solutions that must agree, with fewer for any other "
        "answer.",
        low=2,
    )
    assertions: bool = setting(
        False, "A program without an assertion that can fail is not verified."
    )
    per_problem: int = setting(0, "Most verified solutions kept of a problem; 0 is all.", low=0)
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)

    def __post_init__(self) -> None:
        if self.writer == "endpoint" and not self.endpoint.model:
            raise ConfigError("writer=endpoint without endpoint.model", wanted="a model's name")
        if (self.writer == "file") != bool(self.answers):
            raise ConfigError(
                f"writer={self.writer} with answers={self.answers!r}",
                wanted="a file of answers with writer=file, and with it alone",
            )
        if self.writer == "teacher" and self.temperature is None:
            raise ConfigError("writer=teacher without a temperature", wanted="0 or more")
        if self.writer != "file" and self.samples > 1 and self.temperature == 0.0:
            raise ConfigError(
                f"samples={self.samples} with temperature=0",
                wanted="1: greedy samples of a problem are all the same",
            )

    def shared(self) -> tuple[str, ...]:
        """The problems' settings and the tokenizer; for the teacher what its answers depend on."""
        # Of a file of questions those are dropped that any other split holds.
        data = ("data",) if self.questions else TRAINING_DATA
        drawn = (*DRAWN, "teacher") if self.writer == "teacher" else ()
        return ("seed", "tokenizer_size", "student.path", *TASK, *data, *drawn)

    def roles(self) -> tuple[str, ...]:
        """The teacher, where it writes."""
        return ("teacher",) if self.writer == "teacher" else ()

    def splits(self) -> tuple[str, ...]:
        """None where a file gives the problems."""
        return () if self.questions else ("train",)

    def forecast(self, job: Job) -> list[Part]:
        """The memory of a batch of the teacher's answers."""
        if self.writer != "teacher":
            return []
        prompts = max(self.batch // self.samples, 1)
        return job.writing("teacher", "solutions", prompts * self.samples, prompts)


def changed(
    s: SynthesisSettings,
    *,
    model: str | None = None,
    base_url: str | None = None,
    answers: str | None = None,
    **values: Any,
) -> SynthesisSettings:
    """The settings, changed by what is not None; a model makes the endpoint write, answers a file.

    Raises:
        ConfigError: settings that cannot go together, a value out of its limits, or one that
            nothing reads, e.g. base_url where the teacher writes.
    """
    if model is not None and answers is not None:
        got = f"model={model} with answers={answers}"
        raise ConfigError(got, wanted="one of them: an endpoint writes, or a file")
    out = settings.to_dict(s)
    if model is not None:
        out |= {"writer": "endpoint", "answers": ""}
    if answers is not None:
        out |= {"writer": "file", "answers": answers}
    values = {name: value for name, value in values.items() if value is not None}
    at = {"model": model, "base_url": base_url}
    at = {name: value for name, value in at.items() if value is not None}
    out |= values
    out["endpoint"] |= at
    made = settings.build(SynthesisSettings, out)
    unread.refuse(unread.find(made), {*values, *(f"endpoint.{name}" for name in at)})
    return made
