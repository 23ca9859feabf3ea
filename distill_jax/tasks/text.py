"""Task `text`: a worked solution in words, whose final answer is compared with the gold answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax import answers
from distill_jax.data import chat
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.tasks.task import Judged


class TextTask:
    """Chat prompts, and `answers.check_batch` as the judge."""

    def __init__(self, settings: DataSettings, tokenizer: Any):
        self.settings, self.tokenizer = settings, tokenizer

    def prompts(self, problems: Sequence[Problem], tokenizer: Any = None) -> Prompts:
        """The problems whose prompts fit, with their prompts' token ids: see `Task.prompts`."""
        return chat.fitting_prompts(
            tokenizer or self.tokenizer,
            problems,
            self.settings.chat,
            max_prompt_tokens=self.settings.max_prompt_tokens,
            on_long_prompt=self.settings.on_long_prompt,
        )

    def judge(
        self, problems: Sequence[Problem], texts: Sequence[str], ended_B: np.ndarray
    ) -> Judged:
        """The answer check's verdict on each completion: see `Task.judge`."""
        del ended_B  # a stated answer counts, whether the text ended or not
        found = answers.check_batch([problem.answer for problem in problems], texts)
        right_B = np.array([one.verdict == "right" for one in found], bool)
        undecided_B = np.array([one.verdict == "undecided" for one in found], bool)
        return Judged(right_B, undecided_B, [{} for _ in found])

    def close(self) -> None:
        """Nothing to end: the answer check's workers belong to the process."""
