"""Stage kind solve: many candidates of each held-out problem, one selected; results.json."""

import contextlib
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from distill_jax.core import digest, rng, sharding
from distill_jax.data.chat import Prompts
from distill_jax.evaluation import judging, plain_samples, resampling, solve_results
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.evaluation.solver import Counting, Solver, Watch
from distill_jax.forecast import limits
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.inference import agents as solvers
from distill_jax.inference import generate, process_scorer
from distill_jax.inference.agents import Agent
from distill_jax.inference.generate import Tick, stopping
from distill_jax.inference.store import AnswerStore
from distill_jax.report import run_data, run_report
from distill_jax.rewards.process import StepScorer
from distill_jax.run.console import write_json
from distill_jax.run.record import refuse_other_shared
from distill_jax.run.run import Run, Stage
from distill_jax.run.settings import TASK
from distill_jax.stages.kinds import Kind, register, view_of
from distill_jax.training.progress import Progress

ANSWERS_FILE = "answers.jsonl"


class Prepared(NamedTuple):
    """Agents, problems with their plain prompts, and prompts [agent][problem] as token ids."""

    agents: tuple[Agent, ...]
    data: Prompts
    prompts: list[list[list[int]]]


def agents_of(settings: SolveSettings) -> tuple[Agent, ...]:
    """The agents of the settings' file; without a file, the one agent of plain sampling."""
    given = settings.agents
    found = solvers.load(Path(given)) if given else (settings.default_agent(),)
    solvers.check_attempts(found, settings.attempts)
    return found


def make_solver(
    run: Run,
    settings: SolveSettings,
    agents: tuple[Agent, ...],
    *,
    store: AnswerStore | None = None,
    counting: Counting = Solver.counting,
    watch: Watch = Solver.watch,
) -> Solver:
    """A solver of the settings' student and reward model, both loaded now.

    Its key is that of stage evaluate, so that the default agent's candidates are the samples that
    an evaluation draws of that student.
    """
    loaded = run.load_student(settings.model)
    sampler = run.models.sampler(loaded.model)
    return Solver(
        run,
        settings,
        agents,
        sampler,
        weights=functools.cache(lambda: sampler.weights(loaded.params, run.config.sampling)),
        key=rng.stream_key(rng.run_key(run.config.seed), "evaluate"),
        scorer=scorer_of(run, settings),
        store=store,
        counting=counting,
        watch=watch,
    )


def scorer_of(run: Run, settings: SolveSettings) -> StepScorer | None:
    """The reward model of the settings, loaded; None without one."""
    if not settings.reward_model:
        return None
    return process_scorer.load(run, settings.reward_model)


def _check(run: Run, stage: Stage[SolveSettings]) -> None:
    agents_of(stage.settings)
    # The student may have been trained with other settings than this run has.
    groups = {"seed", "tokenizer_size", *TASK, "data", "student", "lora"}
    for name in run.config.plan:
        if run.config.plan[name].makes in ("models", "student"):
            refuse_other_shared(run, run.stage(name), groups)


def _prepare(run: Run, stage: Stage[SolveSettings]) -> Prepared:
    settings, agents = stage.settings, agents_of(stage.settings)
    data = run.data.problems(*settings.splits())
    first = data.problems[: settings.problems]
    found, prompts = solvers.prompts(run, first, agents)
    if found.dropped:
        run.say(f"{stage.name}: {found.dropped} problems dropped, too long for an agent's prompt")
    # The host holds all completions, the devices one batch.
    each = settings.attempts * (1 + settings.rounds + settings.plain)
    # With several rounds the turns' outputs, too.
    count, longest = len(found.problems) * len(agents) * each, run.config.sampling.response_tokens
    if warning := limits.host_warning(stage.name, count, longest, limits.host_bytes()):
        run.say(warning)
    return Prepared(agents, found, prompts)


def _run(run: Run, stage: Stage[SolveSettings], directory: Path, given: Prepared) -> dict[str, Any]:
    settings, (agents, data, prompts) = stage.settings, given
    store = AnswerStore(directory / ANSWERS_FILE, _made_from(run, settings, given))
    resumed, begun = store.count() > 0, time.perf_counter()
    # --- candidates ---
    solving = make_solver(run, settings, agents, store=store, counting=_counting(run, stage.name))
    scorer_prompts = process_scorer.read_by(run, solving.scorer, data)
    questions = [problem.question for problem in data.problems]
    solved = solving.solve(questions, scorer_prompts, prompts)
    seconds = None if resumed else (time.perf_counter() - begun) / len(data.problems)
    # --- plain samples at equal tokens ---
    plain = None
    if settings.plain:
        budget_P = [solve_results.tokens(one)["total"] for one in solved]
        plain = plain_samples.plain(solving, data.prompts, budget_P)
        plain = solving.score(scorer_prompts, plain)
        plain = judging.judged(run.data.task, data.problems, plain)
    # --- the same tokens on new samples instead of revisions ---
    other = None
    if settings.plain and settings.rounds:
        other = resampling.resampled(solving, questions, scorer_prompts, prompts, solved)
        other = judging.judged_solved(run.data.task, data.problems, other)
    # --- results: gold answers are read only now ---
    solved = judging.judged_solved(run.data.task, data.problems, solved)
    found = solve_results.summary(
        data.problems, solved, plain, agents, settings, seed=run.config.seed, seconds=seconds,
        resampled=other,
        figures=judging.task_figures(run.data.task, data.problems, solved),
    )  # fmt: skip
    limit = run.config.sampling.max_new_tokens
    found = {"benchmark": settings.splits()[0], "max_new_tokens": limit, **found}
    write_json(directory / run_data.SOLVED_FILE, found)
    if jax.process_index() == 0:
        view = view_of(run, stage.name)
        run.say(f"report: {run_report.write_markdown(run.workdir, view)}")
        run_report.write_html(run.workdir, view)
    sharding.barrier(f"solved {stage.name}")
    return {name: one["mean"] for name, one in found["selectors"].items()}


def _made_from(run: Run, settings: SolveSettings, given: Prepared) -> dict[str, Any]:
    """What the store's answers depend on; revisions depend on the reward model, too."""
    weights = run.student_digests(run.student(settings.model))
    if settings.reward_model:
        weights["reward_model"] = run.digest(run.reward_model(settings.reward_model))
    parts = (
        f"{agent}\0{prompt}\0"
        for agent, prompts in zip(given.agents, given.prompts, strict=True)
        for prompt in prompts
    )
    draws: tuple[str, ...] = ("attempts", "temperature", "top_p", "verify", "rounds", "threshold")
    if settings.rounds:
        draws += ("evidence",)
    if settings.search:
        draws += ("search", "width", "max_steps")
    own = {name: getattr(settings, name) for name in draws}
    return generate.made_from(
        run, weights, given.data, run.config.sampling, agents=digest.of_all(parts), solve=own
    )


def _counting(run: Run, name: str) -> Counting:
    @contextlib.contextmanager
    def count(phase: str, total: int) -> Iterator[Tick]:
        title, rest = f"{name}, {phase}", f"{total} completions are new and kept"
        with Progress(title, total, unit="completions", console=run.console) as progress:
            yield stopping(run, progress, 0, f"{title}: asked to stop,", rest)

    return count


def _forecast(job: Job, settings: SolveSettings) -> list[Part]:
    # Agents draw one after another, so that one batch counts.
    at_once = min(max(settings.batch // settings.attempts, 1), settings.problems)
    rows = at_once * settings.attempts
    return job.solving(
        # Each beam has its own prompt.
        (rows, rows if settings.search else at_once),
        reviews=settings.batch if settings.verify or settings.rounds else 0,
        scores=process_scorer.BATCH if settings.reward_model else 0,
        problems=settings.problems,
        beams=bool(settings.search),
    )


KIND = register(Kind(SolveSettings, _run, check=_check, prepare=_prepare, forecast=_forecast))
