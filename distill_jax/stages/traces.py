"""Stage kind traces: solutions that a model writes, with their verdicts, as rows of data.

A row is a `Trace`: {"id", "question", "answer", "completion", "tokens", "ended", "right",
"undecided", "sample"}; tokens are those that were drawn, EOS included.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core import rng
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.data.chat import Prompts
from distill_jax.data.trace_rows import Trace
from distill_jax.evaluation import subjects
from distill_jax.evaluation.subjects import Subject
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.inference import generate
from distill_jax.inference.generate import Answers
from distill_jax.inference.store import AnswerStore
from distill_jax.rollout.sampler import Rollout, SamplingSettings
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.settings import BASE, TASK, TRAINING_DATA, StageSettings
from distill_jax.stages.kinds import Kind, register
from distill_jax.training.progress import Progress

STORE_FILE = "answers.jsonl"
KEEP = ("all", "right")
# Shared settings that the answers depend on; the stage itself sets temperature and top-p.
DRAWN = (
    "seed",
    "tokenizer_size",
    *TASK,
    *TRAINING_DATA,
    "sampling.max_new_tokens",
    "sampling.segment",
    "sampling.prompt_multiple",
    "sampling.merge_lora",
)


@dataclass(frozen=True)
class WriterSettings(StageSettings):
    """Which model writes."""

    model: str = setting(BASE, "Model that writes: base, a stage, or a directory.", ref="student")
    teacher: bool = setting(False, "The teacher writes instead of `model`.")

    def __post_init__(self) -> None:
        if self.teacher and self.model != BASE:
            raise ConfigError(
                f"model={self.model} with teacher=True",
                wanted=f"{BASE}: the teacher writes",
                fix=f"set model={BASE} or teacher=False",
            )

    def shared(self) -> tuple[str, ...]:
        """See StageSettings."""
        return (*DRAWN, *(("teacher",) if self.teacher else ("student", "lora")))

    def roles(self) -> tuple[str, ...]:
        """See StageSettings."""
        return ("teacher",) if self.teacher else ("student",)

    def forecast(
        self, job: Job, what: str, samples: int, batch: int, *, problems: int = 0, **lengths: int
    ) -> list[Part]:
        """The memory of `samples` completions of each prompt, drawn `batch` at a time.

        problems: most that are solved; 0: no limit. lengths: see `Job.writing`.
        """
        prompts = max(batch // samples, 1)
        prompts = min(prompts, problems or prompts)
        role = "teacher" if self.teacher else "student"
        return job.writing(role, what, prompts * samples, prompts, problems=problems, **lengths)

    def writer(self, run: Run) -> Subject:
        """The model that writes; its weights are not loaded yet."""
        return subjects.teacher(run) if self.teacher else subjects.student(run, self.model)


@dataclass(frozen=True)
class TraceSettings(WriterSettings, kind="traces", makes="rows"):
    """Solutions of training problems, written by a model and kept with their verdicts."""

    problems: int = setting(0, "Training problems to solve, the first ones; 0 is all.", low=0)
    samples: int = setting(8, "Solutions drawn of each problem.", low=1)
    temperature: float = setting(0.8, "Temperature of the sampling; 0 is greedy.", low=0.0)
    batch: int = setting(256, "Solutions decoded at a time.", low=1, affects="rounding")
    keep: str = setting("all", "Solutions kept: all, or right ones alone.", choices=KEEP)
    per_problem: int = setting(0, "Most solutions kept of a problem, by seed; 0 is all.", low=0)
    balance: bool = setting(
        False,
        "Keep equally many right and wrong solutions of a problem, by seed; one where all that "
        "are decided are right, or all wrong.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples > 1 and self.temperature == 0.0:
            raise ConfigError(
                f"samples={self.samples} with temperature=0",
                wanted="1: greedy samples of a problem are all the same",
            )
        if self.balance and self.keep == "right":
            raise ConfigError("balance=True with keep=right", wanted="keep=all")
        if self.per_problem > self.samples:
            raise ConfigError(
                f"per_problem={self.per_problem} with samples={self.samples}",
                wanted="at most the samples",
            )
        if self.balance and self.per_problem % 2:
            raise ConfigError(
                f"per_problem={self.per_problem} with balance=True",
                wanted="an even number, half of it right and half wrong, or 0 for all",
            )

    def splits(self) -> tuple[str, ...]:
        """See StageSettings."""
        return ("train",)


def _prepare(run: Run, stage: Stage[TraceSettings]) -> Prompts:
    return first_problems(stage, run.data.problems("train"))


def first_problems(stage: Stage[Any], pool: Prompts, what: str = "training problems") -> Prompts:
    """The first problems of a pool: as many as the stage's setting `problems` says, 0: all.

    Raises:
        DataError: the pool has fewer; what: it holds, for the message.
    """
    count = stage.settings.problems
    if count > len(pool.problems):
        raise DataError(
            f"{stage.name}.problems={count}", wanted=f"at most the {len(pool.problems)} {what}"
        )
    return pool.first(count)


def _run(run: Run, stage: Stage[TraceSettings], directory: Path, pool: Prompts) -> dict[str, float]:
    s = stage.settings
    found = _draw(run, stage, directory / STORE_FILE, pool)
    right_PG = np.array(found.columns["right"], bool).reshape(-1, s.samples)
    undecided_PG = np.array(found.columns["undecided"], bool).reshape(-1, s.samples)
    kept = {
        place: choose(right_PG[place], undecided_PG[place], s, seed=(run.seed(stage), place))
        for place in range(len(pool.problems))
    }
    count = sum(map(len, kept.values()))
    if not count:
        raise DataError(
            f"{stage.name} keeps none of {len(found.tokens)} solutions",
            wanted="some",
            fix=f"set {stage.name}.keep=all, or raise sampling.max_new_tokens",
        )
    write_rows(directory / ROWS_FILE, _rows(run, pool, found, kept, s.samples))
    figures = {
        "accuracy": float(right_PG.mean()),
        "undecided": float(undecided_PG.mean()),
        "terminated": float(found.ended_B.mean()),
        "problems": len(pool.problems),
        "solved_problems": int(right_PG.any(axis=1).sum()),
        "rows": count,
    }
    run.say(
        f"{stage.name}: {figures['solved_problems']} of {len(pool.problems)} problems solved, "
        f"{right_PG.sum()} of {right_PG.size} solutions right, {count} kept"
    )
    return figures


def _draw(run: Run, stage: Stage[TraceSettings], path: Path, pool: Prompts) -> Answers:
    """The solutions of all problems with their verdicts."""
    s = stage.settings

    def judged(rows: Sequence[int], out: Rollout) -> dict[str, list[Any]]:
        problems = [pool.problems[row] for row in rows for _ in range(s.samples)]
        texts = [run.data.text(row[:n]) for row, n in zip(out.tokens_BR, out.length_B, strict=True)]
        return generate.verdicts(run, problems, texts, out.ended_B)

    return drawn(
        run,
        stage,
        s.writer(run),
        path,
        pool,
        run.config.sampling.whole(s.temperature),
        columns=judged,
    )


def drawn(
    run: Run,
    stage: Stage[Any],
    writer: Subject,
    path: Path,
    pool: Prompts,
    sampling: SamplingSettings,
    *,
    columns: Callable[[Sequence[int], Rollout], dict[str, list[Any]]] | None = None,
) -> Answers:
    """Solutions of all problems by a model; those that the store has are not drawn again.

    Args:
        run, stage: the stage's settings have `samples` of each problem and `batch` at a time.
        writer: the model.
        path: of the store.
        pool: problems and prompts.
        sampling: temperature, limits.
        columns: see `generate.answers`.

    Raises:
        Interrupted: asked to stop; complete batches are kept.
    """
    s, total = stage.settings, len(pool.prompts) * stage.settings.samples
    loaded = writer.load()
    sampler = run.models.sampler(loaded.model)
    made_from = generate.made_from(
        run, writer.weights, pool, sampling, samples=s.samples, batch=s.batch
    )
    store = AnswerStore(path, made_from)
    done, before = store.count(), f"{stage.name} was asked to stop;"
    with Progress(stage.name, total, start=done, unit="answers", console=run.console) as progress:
        return generate.answers(
            sampler,
            functools.cache(lambda: sampler.weights(loaded.params, sampling)),
            pool.prompts,
            sampling,
            key=rng.stream_key(run.key(stage), "traces"),
            batch=s.batch,
            samples=s.samples,
            store=store,
            decoding="traces",
            columns=columns,
            tick=generate.stopping(run, progress, done, before, f"{total} solutions are kept"),
        )


def choose(
    right_G: np.ndarray, undecided_G: np.ndarray, s: TraceSettings, *, seed: Sequence[int]
) -> list[int]:
    """Numbers of the samples of one problem that are kept, ascending.

    `balance` keeps equally many right and wrong samples. If all decided samples are right, or all
    are wrong, it keeps one: such samples show how hard the problem is, not which steps are good.

    Args:
        right_G, undecided_G: bool, the verdicts.
        s: keep, per_problem, balance.
        seed: of the choice among equals.
    """
    order = np.random.default_rng(seed).permutation(len(right_G))
    right = [int(g) for g in order if right_G[g]]
    wrong = [int(g) for g in order if not right_G[g] and not undecided_G[g]]
    if s.balance:
        each = max(1, min(len(right), len(wrong), s.per_problem // 2 or len(order)))
        return sorted(right[:each] + wrong[:each])
    kept = right if s.keep == "right" else order.tolist()
    return sorted(kept[: s.per_problem or len(order)])


def reads_as_completion(run: Run, one: Trace) -> bool:
    """Whether the run's tokenizer decodes a trace's tokens to its completion."""
    known = all(0 <= index < run.data.vocab for index in one.tokens)
    return known and run.data.text(one.tokens) == one.completion


def _rows(
    run: Run, pool: Prompts, found: Answers, kept: dict[int, list[int]], samples: int
) -> Iterator[dict[str, Any]]:
    for place, chosen in kept.items():
        problem = pool.problems[place]
        for sample in chosen:
            one = place * samples + sample
            yield dataclasses.asdict(
                Trace(
                    problem.id,
                    problem.question,
                    problem.answer,
                    run.data.text(found.tokens[one]),
                    found.tokens[one],
                    bool(found.ended_B[one]),
                    found.columns["right"][one],
                    found.columns["undecided"][one],
                    sample,
                )
            )


def _forecast(job: Job, s: TraceSettings) -> list[Part]:
    return s.forecast(job, "solutions", s.samples, s.batch, problems=s.problems)


KIND = register(Kind(TraceSettings, _run, prepare=_prepare, forecast=_forecast))
