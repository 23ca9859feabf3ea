"""Stage evaluate: teacher and students on held-out problems; the report."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import rng, sharding
from distill_jax.core.errors import CheckpointError
from distill_jax.core.files import read_json
from distill_jax.core.settings import to_dict
from distill_jax.data import chat
from distill_jax.data.chat import Prompts
from distill_jax.evaluation import kept_answers, runner
from distill_jax.evaluation.kept_answers import KeptAnswers
from distill_jax.report import run_data, run_report, tables, view
from distill_jax.stages import agreement, export_files, subjects, token_scores
from distill_jax.stages.context import Context, Loaded, write_json
from distill_jax.stages.stop import GO_ON, Interrupted
from distill_jax.stages.subjects import Subject
from distill_jax.training.progress import Progress


def run(context: Context, directory: Path) -> dict[str, Any]:
    """Evaluates each subject that has no result yet, prints the table, writes report.md."""
    data, results = held_out(context), {}
    listed = run_data.subjects_file(context.workdir)
    if jax.process_index() == 0:  # a page made after a stop in between shows what there is
        listed.unlink(missing_ok=True)
    for subject in subjects.find(context):
        results[subject.name] = _result(context, directory, subject, data)
        sharding.barrier(f"evaluate {subject.name}")
    write_json(listed, list(results))
    if jax.process_index() == 0:
        run_view = view.load(context.workdir)
        tables.print_accuracy(context.console, results, run_view)
        path = run_report.write_markdown(context.workdir, run_view)
        context.say(f"report: {path}")
    sharding.barrier("evaluated subjects")
    token_scores.write_report(context)
    return {name: _figures(result) for name, result in results.items()}


def held_out(context: Context) -> Prompts:
    """The problems that all subjects answer."""
    data = context.problems("test")
    count = min(context.config.evaluate.problems, len(data.prompts))
    return Prompts(data.problems[:count], data.prompts[:count], data.dropped)


def greedy_answers(context: Context, subject: Subject, data: Prompts) -> list[list[int]]:
    """Token ids of the subject's greedy answers to these problems, as stage evaluate kept them.

    Raises:
        CheckpointError: it has not answered all of them, or with other weights or settings.
    """
    path = kept_answers.answers_path(context.workdir / "evaluate", subject.name)
    found, batches, _ = kept_answers.read(path)
    made_from = json.loads(json.dumps(_made_from(context, subject, data)))
    answers = kept_answers.responses(batches, "greedy")
    if found != made_from or len(answers) != len(data.prompts):
        got = "was made from something else" if found else "is not there"
        if found == made_from:
            got = f"has {len(answers)} greedy answers"
        wanted = f"{len(data.prompts)} answers of {subject.name} as it is now"
        raise CheckpointError(f"{path} {got}", wanted=wanted, fix=context.run_first("evaluate"))
    return [completions[0] for completions in answers]


def _result(context: Context, directory: Path, subject: Subject, data: Prompts) -> dict[str, Any]:
    """The subject's result: that of before, if it is of these weights, prompts and settings."""
    data = _own_prompts(context, subject, data)
    made_from = _made_from(context, subject, data)
    path = directory / f"{subject.name}.json"
    known = read_json(path)
    compares = _compares(context, subject)
    beside = subjects.teacher_weights(context) if compares else None
    fresh = known is None or known.get("made_from") != made_from
    if fresh or (compares and known.get("beside") != beside):
        answers = KeptAnswers(kept_answers.answers_path(directory, subject.name), made_from)
        if answers.begun_afresh:
            context.say(f"{subject.name}: other weights or prompts than before, begun afresh")
        elif known is not None and "made_from" not in known:
            context.say(f"{subject.name}: its result is of an earlier version, evaluated again")
        known = {"made_from": made_from, **_evaluate(context, subject, data, answers, compares)}
        # The comparison is with a teacher that its student's answers do not depend on.
        known["beside"] = beside
        write_json(path, known)
        fresh = True
    export_files.write_evaluation(context, directory / subject.name, subject, known, fresh=fresh)
    return known


def _compares(context: Context, subject: Subject) -> bool:
    # Distributions over other tokens cannot be compared.
    same_tokens = subject.tokenizer is None
    return context.config.evaluate.distribution and same_tokens and subject.name != "teacher"


def _own_prompts(context: Context, subject: Subject, data: Prompts) -> Prompts:
    """The problems as the subject's tokenizer writes them."""
    if subject.tokenizer is None:
        return data
    settings = context.config.data
    own = chat.fitting_prompts(
        subject.tokenizer,
        data.problems,
        settings.chat,
        max_prompt_tokens=settings.max_prompt_tokens,
        on_long_prompt=settings.on_long_prompt,
    )
    if own.dropped:
        context.say(f"{subject.name}: {own.dropped} problems dropped, too long in its own tokens")
    return own


def _made_from(context: Context, subject: Subject, data: Prompts) -> dict[str, Any]:
    """All that the subject's answers depend on; a result of something else is not its result."""
    config = context.config
    tokens = hashlib.blake2b(digest_size=16)
    for problem, prompt in zip(data.problems, data.prompts, strict=True):
        tokens.update(f"{problem.id}\0{problem.answer}\0{len(prompt)}\0".encode())
        tokens.update(np.asarray(prompt, np.int32).tobytes())
    names = ("samples", "temperature", "batch")
    return {
        **subject.weights,
        "prompts": tokens.hexdigest(),
        "seed": config.seed,
        "evaluate": {name: getattr(config.evaluate, name) for name in names},
        "sampling": to_dict(config.sampling),
    }


def _evaluate(
    context: Context, subject: Subject, data: Prompts, answers: KeptAnswers, compares: bool
) -> dict[str, Any]:
    config, loaded = context.config, subject.load()
    sampler = context.sampler(loaded.model, subject.tokenizer)
    tokenizer = subject.tokenizer or context.tokenizer
    done, total = answers.count(), len(data.prompts) * (1 + config.evaluate.samples)
    bar = f"evaluate {subject.name}"
    with Progress(bar, total, start=done, unit="answers", console=context.console) as progress:

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress.update(done)
            state = f"{subject.name} is not complete, {done} of {total} answers are kept"
            _stop_if_asked(context, state, done)

        result = runner.evaluate(
            sampler,
            sampler.weights(loaded.params, config.sampling),
            data,
            config.evaluate,
            config.sampling,
            key=rng.stream_key(rng.run_key(config.seed), "evaluate"),
            text=lambda tokens: chat.decode(tokenizer, tokens),
            tick=tick,
            kept=answers,
        )
    greedy = [completions[0] for completions in answers.responses("greedy")]
    distribution = _distribution(context, loaded, data, greedy, bar) if compares else None
    return {**result, "distribution": distribution}


def _distribution(
    context: Context, loaded: Loaded, data: Prompts, responses: list[list[int]], bar: str
) -> dict[str, Any]:
    """The student beside the teacher on the student's greedy answers."""
    done = 0
    bar, total = f"{bar} beside the teacher", len(responses)
    with Progress(bar, total, unit="answers", console=context.console) as progress:

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress.update(done)
            _stop_if_asked(context, f"{bar}: its {total} answers are kept", done)

        teacher = subjects.teacher(context)
        return agreement.compare(context, loaded, teacher, data.prompts, responses, tick=tick)


def _stop_if_asked(context: Context, state: str, done: int) -> None:
    if context.stop.due(done):
        raise Interrupted(f"evaluate was asked to stop; {state}; {GO_ON}")


def _figures(result: dict[str, Any]) -> dict[str, float]:
    return {
        "greedy": result["greedy"]["accuracy"]["mean"],
        "pass@1": result["sampled"]["pass@1"]["mean"],
    }
