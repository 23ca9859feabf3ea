"""Part of solve.py: solves the problems of a command line one by one and prints each."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill_jax.core import settings
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data.problem import Problem
from distill_jax.data.rows import problem_of_row, read_rows
from distill_jax.evaluation import judging, solve_results
from distill_jax.evaluation.candidates import Candidate
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.evaluation.solver import Solver
from distill_jax.inference import agents as solvers
from distill_jax.inference import process_scorer
from distill_jax.report import solving
from distill_jax.report import view as views
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run, Stage
from distill_jax.stages import forecasts
from distill_jax.stages import solve as stage

_STYLES = {
    "t0": "green", "t1": "green", "t2": "yellow", "t3": "yellow", "t4": "red", "t5": "bold red",
}  # fmt: skip


class Request(NamedTuple):
    """Settings of a command line; None takes the plan's setting of the same name."""

    attempts: int | None = None
    agents: str | None = None
    selector: str | None = None
    model: str | None = None
    reward_model: str | None = None
    search: str | None = None
    verify: int | None = None
    rounds: int | None = None

    def settings(self, config: RunConfig, workdir: Path) -> SolveSettings:
        """The settings of the plan's last stage of kind solve, changed as requested.

        Without such a stage: the defaults, with the last student of the work directory.

        Raises:
            ConfigError: a value out of its limits, or settings that cannot go together.
        """
        view = views.load(workdir)
        found = [name for name in config.order if isinstance(config.plan[name], SolveSettings)]
        base = config.plan[found[-1]] if found else SolveSettings(model=view.last)
        values = settings.to_dict(base)
        if self.agents is not None:
            self._refuse_unread(found[-1] if found else "solve", values)
        values |= {name: one for name, one in self._asdict().items() if one is not None}
        values["model"] = views.canonical(values["model"], view)
        return settings.build(SolveSettings, values)

    def _refuse_unread(self, stage: str, values: Mapping[str, Any]) -> None:
        """Raises ConfigError where the plan sets what the rows of --agents set.

        In the stage plain samples read it as well; none are drawn here.
        """
        for name in ("temperature", "top_p"):
            default = getattr(SolveSettings, name)
            if values[name] != default:
                raise ConfigError(
                    f"{stage}.{name}={values[name]} with --agents={self.agents}",
                    wanted=f"{name} in the rows of that file",
                    fix=f"set it there, and --config.{stage}.{name}={default}",
                )


def problems_of(argument: Sequence[str], file: str | None) -> Iterator[Problem]:
    """The problems of the command line: arguments, a file, or the lines of standard input.

    Raises:
        DataError: no problem, or a row without one.
    """
    if argument and file:
        got = f"both a problem and --file={file}"
        raise DataError(got, wanted="one of them")
    if file:
        yield from _of_file(Path(file))
        return
    found = False
    for number, text in enumerate(argument or sys.stdin):
        if text.strip():
            found = True
            yield Problem(str(number), text.strip(), "", "")
    if not found:
        raise DataError("no problem", wanted="an argument, --file, or lines on standard input")


def _of_file(path: Path) -> Iterator[Problem]:
    if not path.is_file():
        raise DataError(f"no file {path}", wanted="a file of problems")
    for number, (where, row) in enumerate(read_rows(path)):
        filled = {name: value for name, value in row.items() if value != ""}
        yield problem_of_row(filled, where, str(number), gold_needed=False)


class Show:
    """Prints candidates and votes on a console.

    names: of the agents; scored: a reward model scores, so texts are printed with their scores.
    """

    def __init__(self, console: Console, names: Sequence[str], *, scored: bool):
        self.console, self.names, self.scored = console, names, scored

    def watch(self, phase: str, number: int, found: Sequence[Candidate]) -> None:
        """Called by the solver after each phase."""
        del number
        for one in found:
            if phase == "verified" and one.verdict is None:
                continue
            if phase == "scored" and one.round:  # phase "revised" prints it with its verdict
                continue
            stated = "no answer" if one.answer is None else escape(one.answer)
            revision = f", revision {one.round}" if one.round else ""
            label = escape(f"{self.names[one.agent]} {one.attempt}{revision}")
            about = {
                "verified": f"verdict {one.verdict}",
                "scored": f"score {one.score:.3f}" if one.steps else "no step to score",
            }.get(phase, f"{len(one.tokens)} tokens{', cut off' if one.truncated else ''}")
            about += f", verdict {one.verdict}" if phase == "revised" and one.verdict else ""
            self.console.print(f"[bold]{phase}[/] {label}: [cyan]{stated}[/], {about}")
            if phase == ("scored" if self.scored else "sampled") or phase == "revised":
                self.console.print(self._text(one), highlight=False)

    def _text(self, one: Candidate) -> str:
        """A candidate's text, each step in the colour of its score."""
        steps = solving.steps(one.text, one.steps)
        pairs = zip(steps, one.steps, strict=False)
        if steps:
            return "\n".join(
                f"  [{_STYLES[step.colour]}]{score:.2f} {escape(step.text)}[/]"
                for step, score in pairs
            )
        scores = "  " + " ".join(f"{score:.2f}" for score in one.steps)
        lines = [f"  [dim]{escape(line)}[/]" for line in one.text.splitlines()]
        return "\n".join([*lines, *([scores] if one.steps else [])])

    def result(self, found: Mapping[str, Any]) -> None:
        """The votes, what each selector takes, and the answer."""
        table = Table("selector", "answer", "agent", title=f"votes {solving.votes(found) or '–'}")
        for name, place in found["selected"].items():
            style = "bold" if name == found["selector"] else None
            if place is None:
                table.add_row(name, "–", "", style=style)
                continue
            one = found["candidates"][place]
            table.add_row(name, escape(one["answer"]), escape(one["agent"]), style=style)
        self.console.print(table)
        answer = "none" if found["answer"] is None else escape(found["answer"])
        share = found["confidence"]
        said = "" if share is None else f", {100 * share:.0f}% of the votes"
        known = {True: ", right", False: ", wrong"}.get(found["correct"], "")
        total = found["tokens"]["total"]
        self.console.print(f"answer: [bold cyan]{answer}[/]{said}{known}; {total} tokens")


def solve(
    run: Run, how: SolveSettings, problems: Iterable[Problem], *, as_json: bool = False
) -> None:
    """Solves the problems one by one and prints them; as_json: prints result objects alone.

    No problem's result depends on the others.

    Raises:
        DataError: a problem without a question, or whose prompt has no room.
        ConfigError: more candidates at a time than the devices have memory for.
    """
    agents = stage.agents_of(how)
    forecasts.refuse(run, [Stage("solve", dataclasses.replace(how, problems=1))])
    show = Show(Console(), [agent.name for agent in agents], scored=bool(how.reward_model))
    watch = Solver.watch if as_json else show.watch
    solver = None
    for problem in problems:
        data, prompts = solvers.prompts(run, [problem], agents)
        solver = solver or stage.make_solver(run, how, agents, watch=watch)
        begun = time.perf_counter()
        scorer_prompts = process_scorer.read_by(run, solver.scorer, data)
        found = solver.solve([problem.question], scorer_prompts, prompts)
        seconds = time.perf_counter() - begun
        (judged,) = judging.judged_solved(run.data.task, [problem], found)
        result = solve_results.row(problem, judged, agents, how, seconds)
        if as_json:
            print(json.dumps(result, allow_nan=False), flush=True)
        else:
            show.result(result)


def without_drops(config: RunConfig) -> RunConfig:
    """The config with data.on_long_prompt=error: a problem without room is not dropped."""
    data = dataclasses.replace(config.data, on_long_prompt="error")
    return dataclasses.replace(config, data=data)
