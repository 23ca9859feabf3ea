"""Hostile programs through the stages that run programs, in a process that may be hit.

`python -m tests.stages.attacked REPORT.json` sends all of them through each door;
`--share` sends a third, each through one door.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import DataError
from distill_jax.core.text import encodable
from distill_jax.data.fences import fenced
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.reasoning import programs
from distill_jax.rollout.sampler import Rollout, Sampler
from distill_jax.run.config import RunConfig
from distill_jax.run.data import Data
from distill_jax.run.run import Run
from distill_jax.sandbox import Limits, Sandbox
from distill_jax.stages import runner
from distill_jax.stages.concise import ConciseSettings
from distill_jax.stages.evolve_settings import EvolveSettings
from distill_jax.stages.synthesis_settings import SynthesisSettings
from distill_jax.tasks import program_bundles, program_runs
from distill_jax.training.optimizer import OptimizerSettings
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.effects import Watch
from tests.stages import traced
from tests.stages.small import small

SAMPLES = 16
PROGRAMS = {
    "task": "program", "programs.instruction": "", "programs.wall_s": 1.0, "programs.cpu_s": 0.25,
    "programs.deadline_s": 600.0, "programs.workers": 2,
}  # fmt: skip
# Models write no longer ones, and their prompts take minutes; door file has them.
WRITTEN = 20_000


class Attacked:
    """Models, problems whose gold answer is bait, and what went through each door."""

    def __init__(self, root: Path, watch: Watch, *, share: bool):
        self.root, self.watch, self.share = root, watch, share
        self.models = traced.files(root, max_position_embeddings=1024)
        for split, count in (("train", 64), ("validation", 4), ("test", 64)):
            lines = [
                {"id": f"{split}/{i}", "question": f"The {split} box {i} holds 2 pens. How many?",
                 "answer": watch.gold, "solution": fenced("print(2)")}
                for i in range(count)
            ]  # fmt: skip
            self._write(f"data/{split}", lines)
        self.ran: set[str] = set()
        self.texts: Iterator[str] = iter(())

    def _write(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def workdir(self, name: str) -> Path:
        """Of the run of a door."""
        return self.root / "runs" / name

    def config(self, settings: Any) -> RunConfig:
        """A plan of this stage alone."""
        return traced.plan({"stage": settings}, **{**self.models, **_dotted(PROGRAMS)})

    def run(self, name: str, settings: Any) -> None:
        """The stage; it ends with an error where nothing right is left to it."""
        try:
            runner.run(self.config(settings), self.workdir(name))
        except DataError as error:
            assert any(said in str(error) for said in ("none of", "no solution was accepted"))
        else:
            assert name in ("rl", "solve", "evaluate"), f"{name} found a right program"

    # --- the doors ----------------------------------------------------------------------------

    def file(self, sources: list[str]) -> None:
        rows = [{"id": f"train/{i % 64}", "text": fenced(one)} for i, one in enumerate(sources)]
        answers = self._write("answers", rows)
        self.run("file", SynthesisSettings(writer="file", answers=answers))

    def teacher(self, sources: list[str]) -> None:
        problems = _at_least(len(sources), SAMPLES)
        self.run("teacher", SynthesisSettings(problems=problems, samples=SAMPLES))

    def rl(self, sources: list[str]) -> None:
        step = {"prompts_per_step": 4, "samples_per_prompt": SAMPLES, "eval_every": 0}
        # Of the first step the stage also reads what share of the completions has an answer.
        steps = 1 + _at_least(len(sources), 4 * SAMPLES)
        how = {"start": "base", "steps": steps, "rewards.intrinsic_weight": 0.0,
               "optimizer.warmup_steps": 0, **step}  # fmt: skip
        made = small(**{f"rl.{name}": value for name, value in how.items()}).plan["rl"]
        self.run("rl", made)

    def evolve(self, sources: list[str]) -> None:
        problems = _at_least(len(sources), SAMPLES)
        self.run(
            "evolve",
            EvolveSettings(
                rounds=1, problems=problems, samples=SAMPLES, steps=1, batch_size=4, k=2,
                eval_problems=2, base_share=0.0, optimizer=OptimizerSettings(warmup_steps=0),
            ),
        )  # fmt: skip

    def solve(self, sources: list[str]) -> None:
        problems = _at_least(len(sources), SAMPLES)
        self.run("solve", SolveSettings(problems=problems, attempts=SAMPLES, rounds=1))

    def concise(self, sources: list[str]) -> None:
        rows = [
            {"id": f"train/{i}", "question": f"The train box {i} holds 2 pens. How many?",
             "answer": self.watch.gold, "completion": fenced(one), "tokens": [1], "ended": True,
             "right": True, "undecided": False, "sample": 0, "score": None}
            for i, one in enumerate(sources)
        ]  # fmt: skip
        self.run("concise", ConciseSettings(data=self._write("traces", rows)))

    def evaluate(self, sources: list[str]) -> None:
        problems = _at_least(len(sources), SAMPLES)
        self.run(
            "evaluate",
            EvaluateSettings(problems=problems, samples=SAMPLES, teacher=False, distribution=False),
        )

    def turns(self, sources: list[str]) -> None:
        """Outputs between the turns of a completion: the task's reply to a program."""
        with Run(self.config(SynthesisSettings()), self.workdir("turns")) as run:
            replies = run.data.task.respond(list(map(fenced, sources)))
        said = " ".join(one.text for one in replies if one is not None)
        assert not any(token in said for token in (self.watch.now, self.watch.secret))

    # --- all of them --------------------------------------------------------------------------

    def all(self) -> dict[str, Any]:
        """By door: effects on the host, attacks that went in, and those that were run."""
        doors: dict[str, Callable[[list[str]], None]] = {
            name: getattr(self, name)
            for name in (
                "file", "teacher", "rl", "evolve", "solve", "concise", "evaluate", "turns",
            )
        }  # fmt: skip
        found = {}
        for number, name in enumerate(doors):
            found[name] = self._through(number, doors)
            print(name, found[name], file=sys.stderr, flush=True)
        return found

    def _through(self, number: int, doors: dict[str, Any]) -> dict[str, Any]:
        name = list(doors)[number]
        chosen = ATTACKS[3 * number :: 3 * len(doors)] if self.share else ATTACKS
        chosen = [one for one in chosen if name == "file" or len(one.source) < WRITTEN]
        sources = [self.watch.fill(attack.source) for attack in chosen]
        self.texts, self.ran = itertools.cycle(map(fenced, sources)), set()
        # Programs that ran at another door are remembered: they would not run again.
        program_runs.forget()
        self.watch.settle()
        doors[name](sources)
        seen = self.watch.effects(_texts(self.workdir(name)))
        # The check of printed answers starts processes when they need algebra.
        effects = [one for one in seen if "answers/worker.py" not in one]
        effects = [one for one in effects if "the gold token" not in one]  # rows hold it
        wanted = {found.program for one in sources if (found := programs.extract(fenced(one)))}
        # Stage synthesis replaces half a surrogate pair where it reads an answer.
        missed = {
            one for one in wanted - self.ran - {None} if encodable(one) not in self.ran
        }  # fmt: skip
        return {
            "attacks": len(sources),
            "ran": len(self.ran & wanted),
            "not_run": len(missed),
            "effects": effects,
        }


def _texts(directory: Path) -> Iterator[str]:
    for path in directory.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".md", ".html"):
            yield path.read_text(encoding="utf-8", errors="replace")


def _at_least(count: int, of: int) -> int:
    return -(-count // of)


def _dotted(settings: dict[str, Any]) -> dict[str, Any]:
    return {name.replace(".", "__"): value for name, value in settings.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=Path)
    parser.add_argument("--share", action="store_true")
    given = parser.parse_args()
    watch = Watch()
    try:
        attacked = Attacked(given.report.parent, watch, share=given.share)
        start = program_bundles.start

        def noted(sandbox: Sandbox, sources: Any, limits: Limits) -> Any:
            attacked.ran |= set(sources)
            return start(sandbox, sources, limits)

        program_bundles.start = noted  # type: ignore
        generate = Sampler.generate

        def ended(self: Sampler, *given: Any, **how: Any) -> Rollout:
            """A random model hardly ever ends, and what was cut off is not run everywhere."""
            out = generate(self, *given, **how)
            return out._replace(ended_B=np.ones_like(out.ended_B))

        Sampler.generate = ended  # type: ignore
        Data.text = lambda self, tokens, tokenizer=None: next(attacked.texts)  # type: ignore
        given.report.write_text(json.dumps(attacked.all()))
    finally:
        watch.close()


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
