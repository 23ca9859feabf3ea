"""The interface of a task."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem


class Judged(NamedTuple):
    """Verdicts on B completions: right_B bool, undecided_B bool (never right as well).

    details: a JSON-able dict a completion, with what else the judge found; may be empty.
    """

    right_B: np.ndarray
    undecided_B: np.ndarray
    details: list[dict[str, Any]]


class Task(Protocol):
    """How problems become prompts and how completions are judged."""

    def prompts(self, problems: Sequence[Problem], tokenizer: Any = None) -> Prompts:
        """The problems whose prompts fit, with their token ids; tokenizer: None is the run's.

        Raises:
            DataError: a prompt is too long where that is an error, or none fits.
        """

    def judge(
        self, problems: Sequence[Problem], texts: Sequence[str], ended_B: np.ndarray
    ) -> Judged:
        """The verdict on each completion.

        Args:
            problems: one a completion.
            texts: completions without special tokens.
            ended_B: bool, whether the completion ended with EOS.
        """

    def close(self) -> None:
        """Ends whatever processes the task holds."""
