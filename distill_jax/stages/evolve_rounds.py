"""The rounds of a stage evolve: draw, choose, train, measure; each resumes where it was stopped."""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import rng
from distill_jax.core.errors import DataError
from distill_jax.core.files import read_json
from distill_jax.data.chat import Example, Prompts
from distill_jax.evaluation import intervals, subjects
from distill_jax.inference import generate
from distill_jax.inference.store import AnswerStore
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run.console import write_json, write_rows
from distill_jax.run.models import Loaded
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.stages import evolve_draw, evolve_rows, evolve_rules, sft
from distill_jax.stages.evolve_draw import Drawn, Writer
from distill_jax.stages.evolve_scores import Scorers
from distill_jax.stages.evolve_settings import EvolveSettings
from distill_jax.training.state import TrainState

# Of a round: all that it drew, its samples of held-out problems, its figures, those of drawing.
ANSWERS, HELD_OUT, RECORD, DRAWN = "answers.jsonl", "held_out.jsonl", "record.json", "drawn.json"


class Rounds:
    """The work of a stage evolve; round 0 is the student that writes the first solutions.

    Args:
        run, stage, directory: of the stage.
        pool, held_out: problems to solve; validation problems.
        base: given solutions to train on as well.
    """

    def __init__(
        self,
        run: Run,
        stage: Stage[EvolveSettings],
        directory: Path,
        pool: Prompts,
        held_out: Prompts,
        base: Sequence[Example],
    ):
        self.run, self.stage, self.directory, self.s = run, stage, directory, stage.settings
        self.pool, self.held_out, self.base = pool, held_out, base
        self._lora: tuple[int, Any] = (0, None)  # (round, its student's adapter) of the last one

    def directory_of(self, number: int) -> Path:
        """Where a round's files are."""
        return self.directory / f"round_{number}"

    def record(self, number: int) -> dict[str, Any]:
        """The figures of a round, which is run where it is not complete."""
        path = self.directory_of(number) / RECORD
        found = read_json(path)
        if found is None:
            self.run.directory(self.stage.name, path.parent.name)
            found = {"round": number}
            if number:
                found |= self._drawn(number)
                self._keep(number, self.trained(number)[1])
                rows = self._learnt(number)
                found |= {"trained_on": len(rows)}
            found |= {"held_out": self._held_out(number)}
            write_json(path, found)
        return found

    # --- students -----------------------------------------------------------------------------

    @functools.cached_property
    def _start(self) -> tuple[Loaded, Any]:
        """The student that is trained, and its adapter in host memory: training may take the one on
        the devices away."""
        loaded = self.run.load_student(self.s.start)
        return loaded, jax.device_get(loaded.params["lora"])

    def _keep(self, number: int, state: TrainState) -> None:
        self._lora = (number, jax.device_get(state.trainable["lora"]))

    def _student(self, number: int) -> tuple[Loaded, dict[str, str]]:
        """The student after a round, and digests of its parts."""
        if number == 0:
            found = subjects.student(self.run, self.s.model)
            same = self.s.model == self.s.start
            return self._with(self._start[1]) if same else found.load(), found.weights
        lora = self._lora_of(number)
        base = self.run.student(self.s.start)._replace(adapter=None)
        digests = self.run.student_digests(base)
        return self._with(lora), {**digests, "adapter": subjects.tree_digest(lora)}

    def _lora_of(self, number: int) -> Any:
        """The adapter of the student after a complete round, in host memory."""
        if self._lora[0] != number:
            self._keep(number, self.trained(number)[1])
        return self._lora[1]

    def _with(self, lora: Any) -> Loaded:
        """The student that is trained, with this adapter."""
        loaded = self._start[0]
        params = {"base": loaded.params["base"], "lora": self.run.models.place_lora(lora)}
        return Loaded(loaded.model, params)

    def trained(self, number: int) -> tuple[QwenConfig, TrainState]:
        """(geometry, last state) of a round's training; a complete one's is read."""
        begin = self._start[1]
        complete = (self.directory_of(number) / RECORD).is_file()
        if self.s.trained_from == "previous" and number > 1 and not complete:
            begin = self._lora_of(number - 1)
        own = self._learnt(number)
        if not own:
            self.run.say(
                f"{self.stage.name}: no solution was accepted up to round {number}: it learns on "
                "given solutions alone"
            )
        rows = evolve_rows.MixedRows(
            own,
            self.base,
            self.s.own_rows if own else 0,
            f"{self.run.seed(self.stage)}/{number}",
        )
        student = self._with(begin)
        name = f"{self.stage.name} round {number}"
        key = rng.stream_key(self.run.key(self.stage), "round", number)
        state = sft.train(self.run, name, self.directory_of(number), self.s, student, rows, key)
        return student.model.config, state

    # --- what is learnt on --------------------------------------------------------------------

    def _accepted(self, number: int) -> list[tuple[int, Any]]:
        """(number of the problem, row) of the solutions that a round accepted."""
        places = {problem.id: i for i, problem in enumerate(self.pool.problems)}
        rows = evolve_rows.accepted_rows(self.directory_of(number) / ROWS_FILE)
        return [(places[one.id], one) for one in rows]

    def _learnt(self, number: int) -> list[Example]:
        """The rendered solutions that a round learns on: its own and earlier ones, capped."""
        found = [self._accepted(i) for i in range(1, number + 1)]
        pooled = evolve_rules.pooled(
            [[problem for problem, _ in rows] for rows in found], self.s.per_problem
        )
        chosen = [found[round_][place] for round_, place in pooled]
        levels = [self.pool.problems[problem].level for problem, _ in chosen]
        kept = evolve_rules.level_capped(
            [problem for problem, _ in chosen],
            levels,
            self.s.level_ratio,
            (self.run.seed(self.stage), number),
        )
        if not kept and not self.base:
            raise DataError(
                f"{self.stage.name}: no solution was accepted up to round {number}",
                wanted="some, or base_share above 0: given solutions to learn on",
                fix=f"start from a better {self.stage.name}.model, draw more samples, or lower "
                f"{self.stage.name}.threshold",
            )
        both = [chosen[i] for i in kept]
        return [Example(self.pool.prompts[place], one.tokens) for place, one in both]

    # --- drawing ------------------------------------------------------------------------------

    def _writer(self, number: int, of: int, pool: Prompts, file: str) -> Writer:
        """The student after round `of`, writing for round `number`."""
        student, weights = self._student(of)
        sampling = self.run.config.sampling.whole(self.s.temperature)
        more = {"round": number, "batch": self.s.batch, "samples": self.s.samples, "k": self.s.k}
        made_from = generate.made_from(self.run, weights, pool, sampling, **more)
        store = AnswerStore(self.directory_of(number) / file, made_from)
        # Every round's samples of held-out problems have the same randomness: they are compared.
        stream = ("held out",) if file == HELD_OUT else ("draw", number)
        key = rng.stream_key(self.run.key(self.stage), *stream)
        how = (f"{self.stage.name} round {number}", student, pool, key, self.s.temperature)
        return Writer(self.run, *how, self.s.batch, store, guesses=file == ANSWERS)

    def _held_out(self, number: int) -> dict[str, Any]:
        """Figures of the student after a round on validation problems."""
        writer = self._writer(number, number, self.held_out, HELD_OUT)
        drawn = writer.draw("samples", range(len(self.held_out.prompts)), self.s.k)
        right_PG = np.array([one.right for one in drawn]).reshape(-1, self.s.k)
        any_P = right_PG.any(axis=1).astype(float)
        return {
            "problems": len(any_P),
            "pass@1": float(right_PG.mean()),
            "pass@k": float(any_P.mean()),
            "pass@1_interval": intervals.mean_interval(right_PG.mean(axis=1))._asdict(),
            "mean_tokens": float(np.mean([one.cost for one in drawn])),
            "terminated": float(np.mean([one.ended for one in drawn])),
        }

    def _drawn(self, number: int) -> dict[str, Any]:
        """Figures of what a round drew; its rows are written."""
        directory = self.directory_of(number)
        found = read_json(directory / DRAWN)
        if found is not None:
            return dict(found)
        writer = self._writer(number, number - 1, self.pool, ANSWERS)
        drawn = writer.draw("solutions", range(len(self.pool.prompts)), self.s.samples)
        figures: dict[str, Any] = {"tried": len(drawn), "reward_model": None, "exploration": None}
        threshold = None
        if self.s.reward_model:
            threshold, scorers = self.s.threshold, Scorers(self.run, self.s, self.pool)
            drawn = scorers.score(drawn)
            by_rules = evolve_draw.seen_by_rules(self.run, drawn)
            known = {"problems_it_may_know": scorers.may_know}
            figures["reward_model"] = evolve_rules.filter_figures(by_rules, threshold) | known
            if scorers.may_know:
                self.run.say(
                    f"{self.stage.name}: the reward model may have been trained on "
                    f"{scorers.may_know} of these {len(self.pool.problems)} problems, where its "
                    "scores say little: train two, with prm.half=1 and prm.half=2"
                )
            if self.s.explore:
                more, figures["exploration"] = self._explored(writer, scorers, drawn)
                drawn = [*drawn, *more]
        kept = evolve_rules.accepted(
            evolve_draw.seen_by_rules(self.run, drawn),
            threshold=threshold,
            per_problem=self.s.per_problem,
            known=self._known(number),
        )
        figures |= self._figures(number, drawn, set(kept))
        write_rows(
            directory / ROWS_FILE,
            [
                evolve_rows.row(self.pool, one, number, place in set(kept))
                for place, one in enumerate(drawn)
                if one.right
            ],
        )
        write_json(directory / DRAWN, figures)
        return figures

    def _known(self, number: int) -> dict[int, set[str]]:
        """Keys of the solutions of each problem that earlier rounds accepted."""
        out: dict[int, set[str]] = {}
        for round_ in range(1, number):
            for problem, one in self._accepted(round_):
                out.setdefault(problem, set()).add(self.run.data.task.key(one.completion))
        return out

    def _explored(
        self, writer: Writer, scorers: Scorers, drawn: Sequence[Drawn]
    ) -> tuple[list[Drawn], dict[str, Any] | None]:
        """Wrong solutions written on from before their first low step, and what it was worth."""
        cuts = evolve_draw.cut(self.run, drawn, scorers.how, self.s.threshold)
        if not cuts:
            return [], None
        found = scorers.score(writer.draw("continuations", list(cuts), 1, cuts))
        found = [one._replace(sample=self.s.samples) for one in found]
        tokens = sum(one.cost for one in found)
        fresh = evolve_draw.at_equal_tokens(writer.draw("fresh samples", list(cuts), 1, {}), tokens)
        return found, {
            "problems": len(cuts),
            "tokens": tokens,
            "solved": sum(one.right for one in found),
            "fresh": {
                "problems": len(fresh),
                "tokens": sum(one.cost for one in fresh),
                "solved": sum(one.right for one in fresh),
            },
        }

    def _figures(self, number: int, drawn: Sequence[Drawn], kept: set[int]) -> dict[str, Any]:
        before = {
            problem["id"]
            for round_ in range(1, number)
            for problem in evolve_rows.raw(self.directory_of(round_) / ROWS_FILE)
        }
        solved = {one.problem for one in drawn if one.right}
        accepted = {drawn[place].problem for place in kept}
        of_level = Counter(problem.level for problem in self.pool.problems)

        def at(problems: set[int], level: int | None) -> int:
            return sum(self.pool.problems[one].level == level for one in problems)

        ids = {self.pool.problems[one].id for one in solved}
        return {
            "right": sum(one.right for one in drawn),
            "undecided": sum(one.undecided for one in drawn),
            "guesses": sum(one.right and one.guess for one in drawn),
            "accepted": len(kept),
            "problems": len(self.pool.problems),
            "solved": len(solved),
            "newly_solved": len(ids - before),
            "mean_tokens": float(np.mean([one.cost for one in drawn])),
            "tokens": sum(one.cost for one in drawn),
            "levels": {
                str(level): {
                    "problems": count,
                    "solved": at(solved, level),
                    "yield": at(accepted, level) / count,
                }
                for level, count in sorted(of_level.items(), key=lambda pair: pair[0] or 0)
            },
        }
