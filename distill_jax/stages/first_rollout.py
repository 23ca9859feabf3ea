"""The guard of training on the student's own samples: step 0's completions have to end.

Rewards and divergences of completions that are cut off teach a student nothing about ending. A
base student ends with <|endoftext|> and writes on where the sampler waits for <|im_end|>.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.rollout.completions import Rollout
from distill_jax.run.console import write_json
from distill_jax.run.run import Run, Stage
from distill_jax.stages.settings import SFTSettings
from distill_jax.training.records import FIRST_ROLLOUT_FILE

CLIPPED, OTHER_END = "completions/clipped_ratio", "completions/other_end_ratio"
NO_ANSWER = "completions/no_answer_ratio"
# More completions without an answer that is found are worth a word.
MOST_WITHOUT = 1 / 3
# π_T of the end token where the student ends.
MASS_AT_END = "teacher/mass_at_end"
# The teacher rather goes on where the student ends.
LOW_MASS = 0.1


class Guard:
    """Looks at the rollout of a stage's first step, before its update.

    Its figures are a function of the run's seed and settings: a run that is resumed before its
    first checkpoint draws the same completions and decides the same.

    Args:
        run, stage: of kind rl or distill; `max_clipped` and `start` are read.
        directory: of the stage, for FIRST_ROLLOUT_FILE.
    """

    def __init__(self, run: Run, stage: Stage[Any], directory: Path):
        self.run, self.name, self.path = run, stage.name, directory / FIRST_ROLLOUT_FILE
        self.most: float = stage.settings.max_clipped
        self.start: str = stage.settings.start
        tokenizer = run.data.tokenizer
        self.end = tokenizer.convert_ids_to_tokens(run.data.eos_id)
        self.others = {
            i: tokenizer.convert_ids_to_tokens(i) for i in tokenizers.other_ends(tokenizer)
        }
        self.figures: dict[str, Any] = {}

    def check(self, rollout: Rollout) -> None:
        """Writes the figures of the completions.

        Raises:
            ConfigError: a larger share than `max_clipped` is cut off.
        """
        count, others = len(rollout.ended_B), other_ends(rollout, self.others)
        without = sum(self.run.data.task.is_void(self.run.data.text(row)) for row in rollout.own)
        found = np.array([np.sum(~rollout.ended_B), without, *others.sum(axis=1)], np.int32)
        # Every process goes by what process 0 found.
        cut, without, *each = map(int, sharding.of_first_process(found))
        any_B = others.any(axis=0)
        self.figures = {
            "completions": count,
            CLIPPED: cut / count,
            OTHER_END: float(any_B.mean()),
            NO_ANSWER: without / count,
        }
        write_json(self.path, self.figures)
        if cut > self.most * count:
            self._refuse(cut, count, dict(zip(self.others.values(), each, strict=True)))
        if without > MOST_WITHOUT * count:
            self.run.say(
                f"{self.name}: {without} of the {count} completions of the first step state no "
                f"answer that is found, and count as wrong where answers are judged: {self._ask()}"
            )

    def record(self, metrics: Mapping[str, Any]) -> None:
        """Adds what the teacher's scores say to the figures, where there are any.

        metrics: of the step; of them MASS_AT_END is read.
        """
        if MASS_AT_END not in metrics:
            return
        mass = float(sharding.fetch(metrics[MASS_AT_END]))
        write_json(self.path, {**self.figures, MASS_AT_END: mass})
        if mass < LOW_MASS:
            self.run.say(
                f"{self.name}: where the student ends the teacher gives {self.end} a probability "
                f"of {mass:.3f}: does it end with another token, or read other prompts?"
            )

    def _ask(self) -> str:
        """How a student comes to state its answers."""
        chat = self.run.config.data.chat
        start = f"start from a student that was trained on solutions ({self.name}.start)"
        if chat.instruction or chat.system_prompt:
            return f"{start}, or ask for another form in data.chat.instruction"
        return (
            "ask for a form in data.chat.instruction (the presets of real models ask for "
            f"\\boxed{{}}), or {start}"
        )

    def _learn_to_end(self) -> str:
        """How a stage sft of the plan comes before this one; it has begun with another start."""
        config = self.run.config
        tuned = [
            name
            for name, one in config.plan.items()
            if isinstance(one, SFTSettings) and name != self.start
        ]
        if not tuned:
            return f"{self.name}.start: a student that was trained on solutions"
        first, stages = tuned[0], list(config.stages)
        if first not in stages:
            stages.insert(stages.index(self.name), first)
        return (
            f'--config.stages="{tuple(stages)}" --config.{self.name}.start={first} '
            f"--workdir=NEW --adopt={self.run.workdir}: stage {first}"
        )

    def _refuse(self, cut: int, count: int, others: Mapping[str, int]) -> None:
        limit = self.run.config.sampling.max_new_tokens
        got = (
            f"{cut} of the {count} completions of {self.name}'s first step are cut off at "
            f"sampling.max_new_tokens={limit} without {self.end}"
        )
        fix = (
            f"start from a student that ends ({self.name}.start: one trained on solutions), raise "
            f"sampling.max_new_tokens, or set {self.name}.max_clipped=1"
        )
        if any(others.values()):
            seen = ", ".join(f"{n} contain {name}" for name, n in others.items() if n)
            got += f"; {seen}, which ends no completion here"
        if max(others.values(), default=0) > cut / 2:
            fix = (
                f"{self._learn_to_end()} teaches the student to end with {self.end}; "
                f"--config.{self.name}.max_clipped=1 trains all the same"
            )
        raise ConfigError(
            got, wanted=f"at most {self.most:.0%} of them ({self.name}.max_clipped)", fix=fix
        )


def other_ends(rollout: Rollout, tokens: Collection[int]) -> np.ndarray:
    """bool [tokens, B]: whether the model drew the token in a completion."""
    own = rollout.own
    found = [[token in row for row in own] for token in tokens]
    return np.array(found, bool).reshape(len(tokens), len(own))
