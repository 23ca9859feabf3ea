"""Export of a model's answers: JSONL, a row a problem of a split, rendered from an answer store.

FILE.store holds the answers while they are drawn, and stays. FILE is written whole when all are
there, so that the same command after a kill ends with the same bytes.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import digest, files, rng, sharding
from distill_jax.core.errors import ConfigError, DataError, TokenizerMismatchError
from distill_jax.core.settings import to_dict
from distill_jax.data.chat import render_prompt
from distill_jax.data.problem import Problem
from distill_jax.evaluation.export_rows import Answer, TopTokens, row
from distill_jax.evaluation.held_out import dtypes, evaluate_stage
from distill_jax.evaluation.subjects import Subject
from distill_jax.inference import generate
from distill_jax.inference.store import AnswerStore
from distill_jax.rewards.top_k import TopKScorer
from distill_jax.rollout.sampler import Rollout, SamplingSettings
from distill_jax.run import lock
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run
from distill_jax.training.progress import Progress


class Request(NamedTuple):
    """What to export; limit: None is the whole split, top_k: 0 leaves out the top tokens."""

    split: str
    limit: int | None = None
    top_k: int = 5
    temperature: float = 0.0


class Question(NamedTuple):
    """A problem, its number, its prompt's tokens, or why it cannot be put to the model."""

    number: int
    problem: Problem
    prompt: list[int]
    error: str | None = None


def export(run: Run, subject: Subject, request: Request, out: Path) -> dict[str, Any]:
    """Draws the answers that the store lacks, writes the file, returns its figures for people.

    Raises:
        BusyError: another process exports to this file.
        ConfigError: impossible settings.
        DataError: no problem can be put to the model, or the file is of other settings.
        CheckpointError: the model cannot be loaded.
        Interrupted: asked to stop; complete batches are kept.
    """
    if subject.tokenizer is not None:
        fix = "set student.path and teacher.path to models of that tokenizer"
        raise TokenizerMismatchError(
            f"{subject.path} has a tokenizer other than the run's", fix=fix
        )
    if request.top_k > run.data.vocab:
        raise ConfigError(f"top_k={request.top_k}", wanted=f"at most {run.data.vocab}, all tokens")
    if out.is_dir():
        raise DataError(f"{out} is a directory", wanted="a file to write")
    job = _Export(run, subject, request)
    questions = job.questions()
    with lock.held(out):
        complete = out.exists()
        store = AnswerStore(files.store_path(out), job.made_from(questions), rendered=out)
        if not complete:
            rows = job.rows(questions, store)
            if jax.process_index() == 0:
                lines = (json.dumps(one, allow_nan=False) + "\n" for one in rows)
                files.write_text(out, "".join(lines))
            sharding.barrier(f"exported {out.name}")
    return summary(subject.name, out)


@dataclass(frozen=True)
class _Export:
    run: Run
    subject: Subject
    request: Request

    @property
    def sampling(self) -> SamplingSettings:
        """As stage evaluate decodes: the run's limits, no top-p, no top-k."""
        return self.run.config.sampling.whole(self.request.temperature)

    @property
    def batch(self) -> int:
        """Answers drawn at a time."""
        return evaluate_stage(self.run).settings.batch

    def questions(self) -> list[Question]:
        """Each problem's prompt, or what is wrong with it.

        Raises:
            DataError: there is something wrong with every one.
        """
        data, chat, asked = self.run.config.data, self.run.data.task.chat, []
        problems = self.run.data.separate(self.request.split)[: self.request.limit]
        for number, problem in enumerate(problems):
            prompt, said = list[int](), None
            try:
                prompt = render_prompt(self.run.data.tokenizer, problem, chat)
            except DataError as error:
                said = str(error)
            if len(prompt) > (limit := data.max_prompt_tokens):
                said = f"prompt of {len(prompt)} tokens, data.max_prompt_tokens={limit}"
            asked.append(Question(number, problem, prompt, said))
        if all(question.error for question in asked):
            raise DataError(f"no problem can be put to the model, first: {asked[0].error}")
        return asked

    def made_from(self, questions: Sequence[Question]) -> dict[str, Any]:
        """All that the rows' bytes depend on; weights, problems and prompts as digests."""
        run, request = self.run, self.request
        rows = (
            json.dumps([p.id, p.level, p.question, p.solution, p.answer, prompt, error])
            for _, p, prompt, error in questions
        )
        return {
            "weights": self.subject.weights,
            "dtypes": dtypes(run, self.subject),
            "split": request.split,
            "problems": digest.of_all(rows),
            "rows": len(questions),
            "top_k": request.top_k,
            "seed": run.config.seed,
            "task": run.config.task,
            "batch": self.batch,
            "sampling": generate.of_rounds(to_dict(self.sampling)),
        }

    def rows(self, questions: Sequence[Question], store: AnswerStore) -> list[dict[str, Any]]:
        """A row a question, in their order."""
        loaded, length = self.subject.load(), self.sampling.max_new_tokens
        positions = loaded.model.config.max_position_embeddings
        if length >= positions:
            wanted = f"less than the model's {positions} positions"
            raise ConfigError(f"sampling.max_new_tokens={length}", wanted=wanted)
        checked = []
        for question in questions:
            error, need = question.error, len(question.prompt) + length
            if error is None and need > positions:
                error = f"prompt and answer take {need} positions, the model has {positions}"
            checked.append(question._replace(error=error))
        found = iter(self._answers(loaded, [q for q in checked if q.error is None], store))
        decode, out = self.run.data.tokenizer.decode, []
        for number, problem, tokens, error in checked:
            prompt = decode(tokens) if tokens else None
            answer = next(found) if error is None else None
            out.append(row(number, problem, prompt, answer, error))
        return out

    def _answers(self, loaded: Loaded, put: Sequence[Question], store: AnswerStore) -> list[Answer]:
        """The answer to each question, drawn or from the store, with its verdict."""
        run, sampling, total = self.run, self.sampling, len(put)
        sampler, prompts = run.models.sampler(loaded.model), [question.prompt for question in put]
        sizes = {"k": self.request.top_k, "vocab": run.data.vocab}
        scorer = TopKScorer(loaded.model, loaded.params, run.mesh, **sizes)
        reader = TopTokens(scorer, run.data.pad_id, sampling.prompt_multiple)

        def columns(rows: Sequence[int], out: Rollout) -> dict[str, list[Any]]:
            return reader.read([prompts[i] for i in rows], out)

        title, done = f"answers of {self.subject.name}", store.count()
        if done:
            run.say(f"going on after {done} of {total} answers in {store.path}")
        with Progress(title, total, start=done, unit="answers", console=run.console) as progress:
            drawn = generate.answers(
                sampler,
                functools.cache(lambda: sampler.weights(loaded.params, sampling)),
                prompts,
                sampling,
                key=rng.stream_key(rng.run_key(run.config.seed), "export"),
                batch=self.batch,
                ids=[question.number for question in put],
                store=store,
                decoding="sampled" if sampling.temperature else "greedy",
                columns=columns if self.request.top_k else None,
                replies=run.data.replies(),
                tick=generate.stopping(
                    run, progress, done, f"{title}: asked to stop;", f"{total} answers are kept"
                ),
            )
        texts = [run.data.text(tokens) for tokens in drawn.own]
        judged = run.data.task.judge([question.problem for question in put], texts, drawn.ended_B)
        unsure = np.where(judged.undecided_B, "undecided", "wrong")
        verdicts = np.where(judged.right_B, "right", unsure).tolist()
        names = ("top_ids", "top_probs", generate.OUTPUTS)
        more = [drawn.columns.get(name, [None] * total) for name in names]
        found = texts, drawn.tokens, drawn.ended_B.tolist(), verdicts, judged.stated, *more
        return [Answer(*parts) for parts in zip(*found, strict=True)]


def summary(name: str, out: Path) -> dict[str, Any]:
    """Figures of a complete file."""
    with out.open(encoding="ascii") as lines:
        rows = [json.loads(line) for line in lines]
    answered = [one for one in rows if one["error"] is None]
    found = {"model": name, "rows": len(rows), "errors": len(rows) - len(answered)}
    if answered:
        right, count = sum(one["right"] for one in answered), len(answered)
        lengths = [len(one["response_ids"]) for one in answered]
        found |= {
            "right": f"{right} of {count} ({100 * right / count:.1f}%)",
            "undecided": sum(one["verdict"] == "undecided" for one in answered),
            "ended_by_itself": sum(one["ended"] for one in answered),
            "mean_tokens": f"{np.mean(lengths):.1f}",
        }
    return found
