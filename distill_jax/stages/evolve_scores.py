"""Reward models of self-evolution, each for problems that its own training did not show it.

A model's score of a problem that it was trained on says little: its labels came from solutions of
it. Two models of one half of the problems each (prm.half) score the other half.
"""

from collections.abc import Sequence
from typing import Any

from distill_jax.core.errors import ConfigError
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem, half_of
from distill_jax.evaluation import candidates
from distill_jax.evaluation.candidates import Candidate
from distill_jax.inference import process_scorer
from distill_jax.reasoning.steps import Format
from distill_jax.run.run import Run, Stage
from distill_jax.stages import prm_rows
from distill_jax.stages.evolve_draw import Drawn
from distill_jax.stages.evolve_settings import EvolveSettings


def half_of_model(run: Run, reference: str) -> int:
    """The half of the problems that a reward model was or will be trained on; 0: all."""
    if reference in run.config.plan and not run.is_done(reference):
        return int(getattr(run.config.plan[reference], "half", 0))
    return int(process_scorer.check(run, reference, base=False)[1].trained_on.get("half", 0))


def check_halves(run: Run, stage: Stage[EvolveSettings]) -> None:
    """Raises ConfigError where two reward models are not of one half each."""
    s = stage.settings
    if s.reward_model_other:
        halves = [half_of_model(run, one) for one in s.scorers]
        if sorted(halves) != [1, 2]:
            raise ConfigError(
                f"{stage.name}.reward_model and reward_model_other were trained on halves "
                f"{halves[0]} and {halves[1]} of the problems",
                wanted="1 and 2: each scores the problems of the other half",
                fix="set half=1 in one stage of kind prm and half=2 in another",
            )


def usable(run: Run, s: EvolveSettings, problems: Sequence[Problem]) -> list[bool]:
    """Whether each problem may be scored: with one model of a half, those of the other half."""
    halves = [half_of_model(run, one) for one in s.scorers]
    if len(halves) != 1 or not halves[0]:
        return [True] * len(problems)
    return [half_of(one.question) != halves[0] for one in problems]


class Scorers:
    """The reward models of a round.

    Args:
        run, s: settings; the models are loaded at the first score.
        pool: the problems.

    Attributes:
        how: where the steps that they score end.
        may_know: problems that the model that scores them may have been trained on; None where it
            does not say what it was trained on.
    """

    def __init__(self, run: Run, s: EvolveSettings, pool: Prompts):
        self.run, self.s, self.pool = run, s, pool
        about = {one: process_scorer.check(run, one)[1] for one in s.scorers}
        halves = {one: about[one].trained_on.get("half", 0) for one in s.scorers}
        self.of_problem = [
            next(one for one in s.scorers if halves[one] in (0, 3 - half_of(problem.question)))
            for problem in pool.problems
        ]
        seen = [
            prm_rows.may_have_seen(about[one], problem.question)
            for one, problem in zip(self.of_problem, pool.problems, strict=True)
        ]
        self.may_know = None if None in seen else sum(map(bool, seen))
        reads = about[s.reward_model]
        self.how = Format(reads.step_split, reads.step_separator)
        self._loaded: dict[str, tuple[Any, list[list[int]]]] = {}

    def score(self, found: Sequence[Drawn]) -> list[Drawn]:
        """The solutions with the scores of their steps and of the whole.

        Raises:
            DataError: a score is no number in [0, 1].
        """
        out = list(found)
        for reference in self.s.scorers:
            mine = [i for i, one in enumerate(found) if self.of_problem[one.problem] == reference]
            if not mine:
                continue
            scorer, prompts = self._load(reference)
            given = [Candidate(0, i, found[i].text, tuple(found[i].tokens)) for i in mine]
            prompt_N = [prompts[found[i].problem] for i in mine]
            for one in candidates.scored(scorer, prompt_N, given):
                # A solution whose last steps have no score is not known to be good.
                score = float("nan") if one.unscored else one.score
                out[one.attempt] = found[one.attempt]._replace(steps=one.steps, score=score)
        return out

    def _load(self, reference: str) -> tuple[Any, list[list[int]]]:
        if reference not in self._loaded:
            scorer = process_scorer.load(self.run, reference)
            prompts = process_scorer.read_by(self.run, scorer, self.pool)
            self._loaded[reference] = scorer, prompts
        return self._loaded[reference]
