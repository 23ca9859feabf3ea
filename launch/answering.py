"""The work of export_answers: prompts, answers in batches, rows, a file that can go on."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core import digest, rng
from distill_jax.core.errors import ConfigError, DataError, TokenizerMismatchError
from distill_jax.core.settings import to_dict
from distill_jax.data.chat import render_prompt, render_prompts
from distill_jax.data.problem import Problem
from distill_jax.evaluation.answer_file import AnswerFile
from distill_jax.evaluation.answer_rows import answered, unanswered
from distill_jax.evaluation.held_out import evaluate_stage
from distill_jax.evaluation.subjects import TEACHER, Subject
from distill_jax.evaluation.top_tokens import TopTokens
from distill_jax.rollout.sampler import Rollout, SamplingSettings
from distill_jax.run import lock
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run
from distill_jax.training.progress import Progress


class Request(NamedTuple):
    """What is asked for beside the model; `limit` None is the whole split, `top_k` 0 none."""

    split: str
    limit: int | None = None
    top_k: int = 5
    temperature: float = 0.0


class Question(NamedTuple):
    """A problem's tokens, or why it cannot be put to the model."""

    prompt: list[int]
    error: str | None = None


def export(run: Run, subject: Subject, request: Request, out: Path) -> dict[str, Any]:
    """Writes what is missing of the file; see launch/README.md for the columns.

    Returns:
        Figures of the whole file, for people.

    Raises:
        ConfigError: impossible settings.
        DataError: no problem can be put to the model, or the file is of other settings.
        CheckpointError: the model cannot be loaded.
    """
    if subject.tokenizer is not None:
        raise TokenizerMismatchError(
            f"{subject.path} has a tokenizer other than the run's",
            fix="set student.path and teacher.path to models of that tokenizer",
        )
    if request.top_k > run.data.vocab:
        raise ConfigError(f"top_k={request.top_k}", wanted=f"at most {run.data.vocab}, all tokens")
    problems = run.data.separate(request.split)[: request.limit]
    questions = ask(run, problems)
    sampling = decoding(run.config.sampling, request.temperature)
    made_from = made_with(run, subject, request, sampling, problems, questions)
    with lock.held(out), AnswerFile(out, made_from, len(problems)) as file:
        if not file.complete:
            if file.done:
                run.say(f"going on after {file.done} of {len(problems)} rows in {file.part}")
            _fill(run, subject, request, sampling, problems, questions, file)
            file.finish()
    return summary(subject.name, out)


def ask(run: Run, problems: Sequence[Problem]) -> list[Question]:
    """Each problem's prompt, or what is wrong with it.

    Raises:
        DataError: there is something wrong with every one.
    """
    data, tokenizer = run.config.data, run.data.tokenizer
    try:
        asked = [Question(p) for p in render_prompts(tokenizer, problems, data.chat)]
    except DataError:  # of some problem: found by looking at each
        asked = []
        for problem in problems:
            try:
                asked.append(Question(render_prompt(tokenizer, problem, data.chat)))
            except DataError as error:
                asked.append(Question([], str(error)))
    limit = data.max_prompt_tokens
    for i, question in enumerate(asked):
        if len(question.prompt) > limit:
            long = f"prompt of {len(question.prompt)} tokens, data.max_prompt_tokens={limit}"
            asked[i] = question._replace(error=long)
    if all(question.error for question in asked):
        raise DataError(f"no problem can be put to the model, first: {asked[0].error}")
    return asked


def decoding(sampling: SamplingSettings, temperature: float) -> SamplingSettings:
    """As stage evaluate decodes: the run's limits, no top-p, no top-k."""
    return dataclasses.replace(sampling, temperature=temperature, top_p=1.0, top_k=0)


def made_with(
    run: Run,
    subject: Subject,
    request: Request,
    sampling: SamplingSettings,
    problems: Sequence[Problem],
    questions: Sequence[Question],
) -> dict[str, Any]:
    """All that the rows depend on; weights, problems and prompts as digests."""
    rows = (
        json.dumps([p.id, p.level, p.question, p.solution, p.answer, *question])
        for p, question in zip(problems, questions, strict=True)
    )
    model = run.models.settings_of(TEACHER if subject.name == TEACHER else "student")
    return {
        "weights": subject.weights,
        "dtypes": [model.param_dtype, model.compute_dtype],
        "split": request.split,
        "problems": digest.of_all(rows),
        "top_k": request.top_k,
        "seed": run.config.seed,
        "batch": _batch(run),
        "sampling": to_dict(sampling),
    }


def _batch(run: Run) -> int:
    return evaluate_stage(run).settings.batch


def _fill(
    run: Run,
    subject: Subject,
    request: Request,
    sampling: SamplingSettings,
    problems: Sequence[Problem],
    questions: Sequence[Question],
    file: AnswerFile,
) -> None:
    loaded = subject.load()
    size = min(_batch(run), len(problems))
    writer = _Writer(run, loaded, request, sampling, size)
    title = f"answers of {subject.name}"
    with Progress(title, len(problems), unit="answers", console=run.console) as progress:
        # A batch that was cut in two is answered again as a whole: rows that share a batch
        # share its last bits.
        for start in range(file.done - file.done % size, len(problems), size):
            part = slice(start, start + size)
            rows = writer.rows(start, problems[part], questions[part])
            file.append(rows[file.done - start :])
            progress.update(file.done)


class _Writer:
    """Makes the rows of a batch of `size` problems, or of the fewer that are left."""

    def __init__(
        self,
        run: Run,
        loaded: Loaded,
        request: Request,
        sampling: SamplingSettings,
        size: int,
    ):
        self.run, self.sampling, self.size = run, sampling, size
        self.positions = loaded.model.config.max_position_embeddings
        if sampling.max_new_tokens >= self.positions:
            raise ConfigError(
                f"sampling.max_new_tokens={sampling.max_new_tokens}",
                wanted=f"less than the model's {self.positions} positions",
            )
        self.sampler = run.models.sampler(loaded.model)
        self.weights = self.sampler.weights(loaded.params, sampling)
        self.key = rng.stream_key(rng.run_key(run.config.seed), "export")
        self.tops = None
        if request.top_k:
            self.tops = TopTokens(
                loaded.model,
                loaded.params,
                run.mesh,
                k=request.top_k,
                vocab=run.data.vocab,
                pad_id=run.data.pad_id,
                multiple=sampling.prompt_multiple,
            )

    def rows(
        self, start: int, problems: Sequence[Problem], questions: Sequence[Question]
    ) -> list[dict[str, Any]]:
        """One row a problem, the first of index `start`."""
        rows = []
        for i, (problem, question) in enumerate(zip(problems, questions, strict=True)):
            prompt = self.run.data.tokenizer.decode(question.prompt) if question.prompt else None
            error = question.error or self._no_room(question)
            rows.append(unanswered(start + i, problem, prompt, error))
        put = [i for i, row in enumerate(rows) if row["error"] is None]
        if put:
            prompts = [questions[i].prompt for i in put]
            for i, row in zip(put, self._answered([rows[i] for i in put], prompts), strict=True):
                rows[i] = row
        return rows

    def _no_room(self, question: Question) -> str | None:
        need = len(question.prompt) + self.sampling.max_new_tokens
        if need <= self.positions:
            return None
        return f"prompt and answer take {need} positions, the model has {self.positions}"

    def _answered(
        self, rows: list[dict[str, Any]], prompts: list[list[int]]
    ) -> list[dict[str, Any]]:
        # Filled up with the last prompt, so that one compiled program serves all batches.
        filled = [*range(len(prompts)), *[len(prompts) - 1] * (self.size - len(prompts))]
        out = self.sampler.generate(
            self.weights,
            [prompts[i] for i in filled],
            self.sampling,
            key=self.key,
            prompt_ids=[rows[i]["index"] for i in filled],
        )
        out = Rollout(*(leaf[: len(prompts)] for leaf in out))
        tokens = [row[:n] for row, n in zip(out.tokens_BR, out.length_B, strict=True)]
        return answered(
            rows,
            [self.run.data.text(t) for t in tokens],
            [t.tolist() for t in tokens],
            out.ended_B.tolist(),
            None if self.tops is None else self.tops.read(prompts, out),
        )


def summary(name: str, out: Path) -> dict[str, Any]:
    """Figures of a complete file."""
    with out.open(encoding="ascii") as lines:
        rows = [json.loads(line) for line in lines]
    told = [row for row in rows if row["error"] is None]
    right = sum(row["right"] for row in told)
    found: dict[str, Any] = {"model": name, "rows": len(rows)}
    found["errors"] = len(rows) - len(told)
    if told:
        share = f"{right} of {len(told)} ({100 * right / len(told):.1f}%)"
        lengths = [len(row["response_ids"]) for row in told]
        found |= {
            "right": share,
            "undecided": sum(row["verdict"] == "undecided" for row in told),
            "ended_by_itself": sum(row["ended"] for row in told),
            "mean_tokens": f"{np.mean(lengths):.1f}",
        }
    return found
