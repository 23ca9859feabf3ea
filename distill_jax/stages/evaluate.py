"""Stage kind evaluate: teacher and students on held-out problems; the report."""

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax

from distill_jax.core import rng, sharding
from distill_jax.core.files import read_json
from distill_jax.data.chat import Prompts
from distill_jax.evaluation import distribution, results_file, runner, subjects
from distill_jax.evaluation.held_out import answers_path, dtypes, held_out, made_from, own_prompts
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.evaluation.subjects import TEACHER, Subject
from distill_jax.inference.generate import OUTPUTS, stopping
from distill_jax.inference.store import AnswerStore
from distill_jax.models import hf_io, peft_io
from distill_jax.report import run_data, run_report, tables
from distill_jax.run import geometry
from distill_jax.run.console import write_json
from distill_jax.run.record import refuse_other_shared
from distill_jax.run.run import Run, Stage
from distill_jax.stages import checks, token_scores
from distill_jax.stages.kinds import Kind, register, view_of
from distill_jax.training.progress import Progress


def _check(run: Run, stage: Stage[EvaluateSettings]) -> None:
    """The models, as far as they are known before earlier stages run."""
    s, plan = stage.settings, run.config.plan
    # Answers may be longer than in training; other data or another seed may hold its problems.
    groups = {*s.shared(), "student", "lora"} - {"sampling"}
    for name in plan:
        if plan[name].makes in ("models", "student"):
            refuse_other_shared(run, run.stage(name), groups)
    before = run.config.stages[: run.config.stages.index(stage.name)]
    due = [name for name in before if not run.is_done(name)]
    roles = ["teacher"] if s.reads_teacher() else []
    # A whole model that is given may be all there is.
    maker = run.config.models_stage
    has_student = run.config.student.path or maker in due or run.models.made_here("student")
    if has_student or not s.model:
        roles.append("student")
    for role in roles:
        checks.check_role(run, role, due)
    if not any(plan[name].makes == "student" for name in due):
        subjects.checkpoint_steps(run, s)
    if s.model:
        _check_given(run, s.model, due)


def _check_given(run: Run, model: str, due: Collection[str]) -> None:
    path = hf_io.model_dir(model)
    if not (path / peft_io.CONFIG).is_file():
        found = geometry.check_model_files(path)
        run.models.check_rows("evaluate.model", found, subjects.own_tokenizer(run, path))
        geometry.check_positions(run, "model", found)
    elif run.config.student.path or run.config.models_stage not in due:
        peft_io.load_adapter(path, hf_io.load_config(run.models.path("student")))


def _prepare(run: Run, stage: Stage[EvaluateSettings]) -> Prompts:
    data = held_out(run, stage.settings)
    if stage.settings.task not in ("", run.config.task) and data.dropped:
        run.say(f"{stage.name}: {data.dropped} problems dropped, too long for its task's prompt")
    return data


def _run(
    run: Run, stage: Stage[EvaluateSettings], directory: Path, data: Prompts
) -> dict[str, Any]:
    """Evaluates each subject that has no result yet, prints the table, writes the report."""
    results = {}
    listed = run_data.subjects_file(run.workdir)
    others = {n: x for n, x in run_data.evaluated_last(run.workdir).items() if n != stage.name}
    sharding.barrier(f"begin to evaluate {stage.name}")
    write_json(listed, others)  # a page made after an interruption shows what is finished
    for subject in subjects.find(run, stage.settings):
        results[subject.name] = _result(run, stage, directory, subject, data)
        sharding.barrier(f"evaluate {subject.name}")
    write_json(listed, {**others, stage.name: list(results)})
    if jax.process_index() == 0:
        view = view_of(run, stage.name)
        tables.print_accuracy(run.console, results, view)
        path = run_report.write_markdown(run.workdir, view)
        run.say(f"report: {path}")
    sharding.barrier("evaluated subjects")
    token_scores.write_report(run, stage)
    return {
        name: {
            "greedy": result["greedy"]["accuracy"]["mean"],
            "pass@1": result["sampled"]["pass@1"]["mean"] if result["sampled"] else None,
        }
        for name, result in results.items()
    }


def _result(
    run: Run, stage: Stage[EvaluateSettings], directory: Path, subject: Subject, data: Prompts
) -> dict[str, Any]:
    """The subject's result; a recorded one, if it is of these weights, prompts and settings."""
    settings = stage.settings
    data = own_prompts(run, settings, subject, data)
    source = made_from(run, settings, subject, data)
    path = directory / f"{subject.name}.json"
    known = read_json(path)
    teacher = compared_with(run, settings, subject)
    weights = teacher.weights | dtypes(run, teacher) if teacher else None
    fresh = known is None or known.get("made_from") != source
    if fresh or (teacher and known.get("compared_with") != weights):
        store = AnswerStore(answers_path(directory, subject.name), source)
        if store.begun_afresh:
            run.say(f"{subject.name}: other weights or prompts than before, restarted")
        known = {
            "made_from": source,
            **_evaluate(run, stage, subject, data, store, teacher),
            # Its answers do not depend on the teacher that it is compared with.
            "compared_with": weights,
        }
        write_json(path, known)
        fresh = True
    results_file.write_evaluation(run, directory / subject.name, subject, known, fresh=fresh)
    return known


def compared_with(run: Run, settings: EvaluateSettings, subject: Subject) -> Subject | None:
    """The teacher, where the subject is compared with it: both need the same tokens."""
    if not settings.distribution or subject.tokenizer is not None or subject.name == TEACHER:
        return None
    return subjects.teacher(run)


def _evaluate(
    run: Run,
    stage: Stage[EvaluateSettings],
    subject: Subject,
    data: Prompts,
    store: AnswerStore,
    teacher: Subject | None,
) -> dict[str, Any]:
    settings, config, loaded = stage.settings, run.config, subject.load()
    sampler = run.models.sampler(loaded.model, subject.tokenizer)
    done, total = store.count(), len(data.prompts) * (1 + settings.samples)
    bar, stopped = f"evaluate {subject.name}", f"{stage.name} was asked to stop; {subject.name}"
    with Progress(bar, total, start=done, unit="answers", console=run.console) as progress:
        result = runner.evaluate(
            sampler,
            functools.cache(lambda: sampler.weights(loaded.params, config.sampling)),
            data,
            settings,
            config.sampling,
            key=rng.stream_key(rng.run_key(config.seed), "evaluate"),
            text=lambda tokens: run.data.text(tokens, subject.tokenizer),
            task=run.data.task_of(settings.task),
            tick=stopping(
                run, progress, done, f"{stopped} is not complete,", f"{total} answers are kept"
            ),
            store=store,
            replies=run.data.replies(subject.tokenizer, settings.task),
        )
    if teacher is None:
        return {**result, "distribution": None}
    greedy = [completions[0] for completions in store.responses("greedy")]
    outputs = [completions[0] for completions in store.column("greedy", OUTPUTS)]
    bar, total = f"{bar} against the teacher", len(greedy)
    with Progress(bar, total, unit="answers", console=run.console) as progress:
        found = distribution.compare(
            run,
            loaded,
            teacher.load(),
            data.prompts,
            greedy,
            batch=settings.compare_batch,
            multiple=settings.batch_multiple,
            outputs=outputs,
            tick=stopping(
                run, progress, 0, f"{bar} was asked to stop;", f"{total} answers are compared"
            ),
        )
    return {**result, "distribution": found}


KIND = register(Kind(EvaluateSettings, _run, check=_check, prepare=_prepare, always=True))
