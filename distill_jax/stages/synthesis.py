"""Stage kind synthesis: worked solutions from a teacher, an endpoint or a file, verified.

`rows.jsonl` holds every solution that can be read, as a `Trace`, with its `class`;
`teacher_verified.jsonl` those with evidence that they are right. Both are made from what was
written, which stays: a better reader of answers needs no new ones.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError, DataError, EndpointError
from distill_jax.data import chat, rows
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.evaluation import subjects
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.run import lock
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.run.stop import GO_ON, Interrupted
from distill_jax.stages import synthesis_check, synthesis_rows, traces
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.synthesis_check import Checked, Written
from distill_jax.stages.synthesis_settings import SynthesisSettings
from distill_jax.synthesis import bought, buying, client, failures, requests
from distill_jax.synthesis.buying import Buyer, Wanted
from distill_jax.synthesis.journal import Journal
from distill_jax.training.progress import Progress

VERIFIED_FILE = "teacher_verified.jsonl"
STORE_FILE = "answers.jsonl"
# Directory below a work directory that keeps the answers of endpoints.
BOUGHT = "bought"
# Answers verified between two looks at whether to stop.
_BATCH = 256


def _check(run: Run, stage: Stage[SynthesisSettings]) -> None:
    s = stage.settings
    if s.writer == "endpoint":
        client.library()
        client.key_of(s.endpoint)
        client.label(s.endpoint)
        if jax.process_count() > 1:
            raise ConfigError(
                f"{stage.name}.writer=endpoint in {jax.process_count()} processes",
                wanted="one process",
                fix=f"run --config.stages={stage.name} alone first; it needs no device",
            )
    if run.config.task not in synthesis_check.READERS:
        known = ", ".join(synthesis_check.READERS)
        raise ConfigError(f"task={run.config.task} in {stage.name}", wanted=f"one of {known}")
    if s.assertions and run.config.task != "program":
        raise ConfigError(
            f"{stage.name}.assertions=True with task={run.config.task}",
            wanted="task=program: only programs have assertions",
        )


def _prepare(run: Run, stage: Stage[SynthesisSettings]) -> Prompts:
    """The problems to solve."""
    s = stage.settings
    if s.questions:
        given = read_questions(Path(s.questions))
        held_out = run.data.held_out([one.question for one in given], s.questions)
        kept = [one for one, drop in zip(given, held_out, strict=True) if not drop]
        if len(kept) < len(given):
            run.say(
                f"{stage.name}: {len(given) - len(kept)} of {len(given)} problems of "
                f"{s.questions} dropped, they are in a held-out split"
            )
        if not kept:
            raise DataError(f"{s.questions}: no problem is left", wanted="some not held out")
        pool, what = run.data.task.prompts(kept), f"problems left of {s.questions}"
    else:
        pool, what = run.data.problems("train"), "training problems"
    return traces.first_problems(stage, pool, what)


def read_questions(path: Path) -> list[Problem]:
    """The problems of a file; a gold answer may be missing.

    Raises:
        DataError: a row without a question, or two with one id.
    """
    found: dict[str, Problem] = {}
    for number, (where, row) in enumerate(rows.read_rows(path)):
        one = rows.problem_of_row(row, where, f"{path.stem}/{number}", gold_needed=False)
        if one.id in found:
            raise DataError(f"{where}: id {one.id} a second time", wanted="each id once")
        found[one.id] = one
    return list(found.values())


def _run(
    run: Run, stage: Stage[SynthesisSettings], directory: Path, pool: Prompts
) -> dict[str, Any]:
    written, figures = _WRITERS[stage.settings.writer](run, stage, directory, pool)
    if jax.process_index() == 0:
        figures |= _verify(run, stage, directory, written)
    count = int(sharding.of_first_process(np.array(figures.get("verified", 0))))
    if not count:
        classes = ", ".join(f"{name} {n}" for name, n in figures.get("classes", {}).items())
        raise DataError(
            f"{stage.name}: none of {len(written)} answers is verified ({classes})",
            wanted="some",
            fix=f"see {directory / ROWS_FILE}; answers that were cut off need a larger limit",
        )
    return figures


# --- who writes -----------------------------------------------------------------------------------


def _by_teacher(
    run: Run, stage: Stage[SynthesisSettings], directory: Path, pool: Prompts
) -> tuple[list[Written], dict[str, Any]]:
    s = stage.settings
    sampling = run.config.sampling.whole(s.temperature or 0.0)
    found = traces.drawn(run, stage, subjects.teacher(run), directory / STORE_FILE, pool, sampling)
    model = run.config.teacher.path or "teacher"
    written = []
    for place, tokens in enumerate(found.tokens):
        kind = failures.OK if found.ended_B[place] else "length"
        text = run.data.text(tokens)
        problem, sample = pool.problems[place // s.samples], place % s.samples
        written.append(Written(problem, sample, kind, text, len(tokens), model, tokens))
    return written, {}


def _by_file(
    run: Run, stage: Stage[SynthesisSettings], directory: Path, pool: Prompts
) -> tuple[list[Written], dict[str, Any]]:
    del directory
    path = Path(stage.settings.answers)
    found, others = bought.read(path, pool.problems)
    written = []
    for problem, given in zip(pool.problems, found, strict=True):
        for sample, one in enumerate(given):
            usable = bool(one.text and one.text.strip())
            kind = "empty" if not usable else failures.OK if one.ended else "length"
            model = one.model or path.name
            written.append(Written(problem, sample, kind, one.text or "", one.tokens, model))
    if others:
        run.say(f"{stage.name}: {others} rows of {path} are of other problems")
    return written, {"other_rows": others}


def _by_endpoint(
    run: Run, stage: Stage[SynthesisSettings], directory: Path, pool: Prompts
) -> tuple[list[Written], dict[str, Any]]:
    del directory
    s, e = stage.settings, stage.settings.endpoint
    wanted = wanted_of(run, s, pool.problems)
    # Not the stage's directory: deleting that must not lose what was paid for.
    place = Path(e.directory) if e.directory else run.directory(BOUGHT)
    place.mkdir(parents=True, exist_ok=True)
    with lock.held_here(place):
        buyer = _buy(run, stage, wanted, Journal(place))
        outcomes = [buyer.outcome(number) for number in range(len(wanted))]
    _refuse_end(stage, buyer)
    written = []
    for number, problem in enumerate(pool.problems):
        # Requests are in the order of samples, rows in that of problems.
        for sample, (kind, response) in enumerate(outcomes[number :: len(pool.problems)]):
            text = "" if response is None else response.text
            usage = None if response is None else response.usage
            tokens = None if usage is None else usage.output
            written.append(Written(problem, sample, kind, text, tokens, e.model))
    return written, _spent(buyer)


def wanted_of(run: Run, s: SynthesisSettings, problems: Sequence[Problem]) -> list[Wanted]:
    """The requests, sample by sample, so that a budget covers all problems first."""
    e, label = s.endpoint, client.label(s.endpoint)
    settings = run.data.task.chat
    prompt = dataclasses.replace(
        settings,
        system_prompt=settings.system_prompt if e.system is None else e.system or None,
        instruction=settings.instruction if e.instruction is None else e.instruction,
    )
    out = []
    for sample in range(s.samples):
        for problem in problems:
            messages = chat.messages(problem, prompt)
            one = requests.make(label, messages, sample, s.temperature, e)
            more = None
            if e.longer:
                more = requests.make(label, messages, sample, s.temperature, e, longer=True)
            out.append(Wanted(one, more))
    return out


def _buy(
    run: Run, stage: Stage[SynthesisSettings], wanted: Sequence[Wanted], journal: Journal
) -> Buyer:
    """Buys what the journal lacks; nothing is sent where it lacks nothing."""
    s, total = stage.settings.endpoint, len(wanted)

    def tick(buyer: Buyer) -> None:
        money = buyer.budget.money
        cost = {} if money is None else {"cost": money}
        progress.update(buyer.done, {"tokens": buyer.budget.tokens, **cost})

    async def buy() -> None:
        async with client.Endpoint(s) as endpoint:
            await buyer.buy(endpoint.send)

    buyer = Buyer(wanted, journal, s, stop=lambda: run.stop.asked, tick=tick, say=run.say)
    left, where = total - buyer.done, client.label(s)
    run.say(f"{stage.name}: {left} of {total} answers to buy from {where}")
    if left:
        with Progress(
            stage.name, total, start=buyer.done, unit="answers", console=run.console
        ) as progress:
            asyncio.run(buy())
    return buyer


def _refuse_end(stage: Stage[SynthesisSettings], buyer: Buyer) -> None:
    """Raises where buying ended before everything was bought, unless that is what was asked for."""
    s, done = stage.settings.endpoint, f"{buyer.done} of {len(buyer.wanted)} answers are kept"
    if buyer.ended == buying.STOPPED:
        raise Interrupted(f"{stage.name} was asked to stop; {done}; {GO_ON}")
    if buyer.ended == buying.ABORTED:
        failed = ", ".join(f"{name} {n}" for name, n in sorted(buyer.failed.items()))
        raise EndpointError(
            f"{stage.name}: {client.label(s)}: {buyer.why}; failed attempts: {failed}; {done}",
            fix=f"mend the cause, and {GO_ON}",
        )
    if buyer.ended == buying.SPENT and s.budget.spent == "stop":
        budget = buyer.budget
        money = "unknown" if budget.money is None else f"{budget.money:.4g}"
        raise EndpointError(
            f"{stage.name}: no further request fits in the budget: {budget.tokens} tokens spent of "
            f"{s.budget.tokens or 'any'}, money {money} of {s.budget.money or 'any'}; {done}",
            wanted="room for a prompt and endpoint.max_tokens",
            fix=f"raise {stage.name}.endpoint.budget and {GO_ON}, or set budget.spent=finish",
        )


def _spent(buyer: Buyer) -> dict[str, Any]:
    """Figures of what was bought; cost is None where a price is unknown."""
    budget = buyer.budget
    return {
        "spent_tokens": budget.tokens,
        "cost": budget.money,
        "usage_estimated": budget.estimated,
    }


_WRITERS = {"teacher": _by_teacher, "endpoint": _by_endpoint, "file": _by_file}


# --- verification ---------------------------------------------------------------------------------


def _verify(
    run: Run, stage: Stage[SynthesisSettings], directory: Path, written: Sequence[Written]
) -> dict[str, Any]:
    """Writes both files of rows; returns their figures."""
    s = stage.settings
    given = synthesis_rows.without_specials(run, written)
    checked: list[Checked] = []
    with Progress(
        f"{stage.name}, verified", len(given), unit="answers", console=run.console
    ) as progress:
        for part in synthesis_rows.batches(given, _BATCH):
            if run.stop.asked:
                said = f"{len(checked)} of {len(given)} answers verified"
                raise Interrupted(f"{stage.name} was asked to stop; {said}; {GO_ON}")
            checked += synthesis_check.check(
                run.config.task, run.data.task, part, agree=s.agree, assertions=s.assertions
            )
            progress.update(len(checked))
    kept = synthesis_rows.keep(given, checked, s.per_problem)
    write_rows(directory / ROWS_FILE, synthesis_rows.traces(run, given, checked, kept))
    source = s.writer
    write_rows(directory / VERIFIED_FILE, synthesis_rows.verified(given, checked, kept, source))
    classes = dict(sorted(Counter(one.kind for one in checked).items()))
    solved = {given[i].problem.id for i in kept}
    evidence = Counter(checked[i].evidence for i in kept)
    run.say(
        f"{stage.name}: {len(solved)} problems solved, {classes.get('verified', 0)} of "
        f"{len(given)} answers verified, {len(kept)} kept; "
        + ", ".join(f"{name} {n}" for name, n in classes.items())
    )
    return {
        "answers": len(given),
        "verified": classes.get("verified", 0),
        "rows": len(kept),
        "solved_problems": len(solved),
        "by_agreement": evidence[synthesis_check.AGREEMENT],
        "classes": classes,
    }


def _forecast(job: Job, s: SynthesisSettings) -> list[Part]:
    return s.forecast(job)


KIND = register(Kind(SynthesisSettings, _run, check=_check, prepare=_prepare, forecast=_forecast))
