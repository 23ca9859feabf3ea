"""Completions as arrays: tokens, and the roles that say which of them the model drew."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Roles, int8. Padding has the prompt's: neither is trained on. FAILED is the output of a call that
# failed.
PROMPT, MODEL, TOOL, FAILED = range(4)


class Output(NamedTuple):
    """Places start to stop of a response's tokens hold an output; whether its call failed."""

    start: int
    stop: int
    failed: bool


class _Fields(NamedTuple):
    tokens_BR: np.ndarray
    length_B: np.ndarray
    ended_B: np.ndarray
    behaviour_logp_BR: np.ndarray
    role_BR: np.ndarray


class Rollout(_Fields):
    """Completions of P prompts × G samples, prompt-major, as numpy; B = P·G.

    tokens_BR int32 (pad after the end), length_B int32 (EOS and outputs counted), ended_B bool (EOS
    was drawn), behaviour_logp_BR f32 under the distribution drawn from, 0 where nothing was drawn;
    role_BR int8.
    """

    __slots__ = ()

    def __new__(
        cls,
        tokens_BR: np.ndarray,
        length_B: np.ndarray,
        ended_B: np.ndarray,
        behaviour_logp_BR: np.ndarray,
        role_BR: np.ndarray | None = None,
    ) -> "Rollout":
        """role_BR None: the model drew the whole of each completion."""
        if role_BR is None:
            role_BR = of_lengths(length_B, tokens_BR.shape[1])
        return super().__new__(cls, tokens_BR, length_B, ended_B, behaviour_logp_BR, role_BR)

    @property
    def mask_BR(self) -> np.ndarray:
        """f32, 1 on sampled tokens, EOS included."""
        return (self.role_BR == MODEL).astype(np.float32)

    @property
    def outputs(self) -> list[list[Output]]:
        """The outputs of each completion."""
        return [outputs(row) for row in self.role_BR]

    @property
    def own(self) -> list[list[int]]:
        """Token ids that the model drew, of each completion."""
        drawn_BR = self.role_BR == MODEL
        return [row[kept].tolist() for row, kept in zip(self.tokens_BR, drawn_BR, strict=True)]


def of_lengths(length_B: np.ndarray, size: int) -> np.ndarray:
    """int8 [B, size] of responses that the model drew whole: MODEL, PROMPT behind the end."""
    drawn_BR = np.arange(size)[None, :] < np.asarray(length_B)[:, None]
    return np.where(drawn_BR, MODEL, PROMPT).astype(np.int8)


def outputs(role_R: np.ndarray) -> list[Output]:
    """The outputs of a response, in order."""
    edges = np.flatnonzero(np.diff(role_R)) + 1
    starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(role_R)]
    return [
        Output(start, stop, bool(role_R[start] == FAILED))
        for start, stop in zip(starts, stops, strict=True)
        if role_R[start] in (TOOL, FAILED)
    ]


def turns(length: int, between: Sequence[Sequence[Any]]) -> list[tuple[int, int]]:
    """Start and stop of the model's turns in a response of so many tokens, from its `outputs`."""
    starts = [0, *(one[1] for one in between)]
    stops = [*(one[0] for one in between), length]
    return list(zip(starts, stops, strict=True))


def own(tokens: Sequence[int], between: Sequence[Sequence[Any]]) -> list[int]:
    """The tokens of a response that the model drew."""
    return [one for start, stop in turns(len(tokens), between) for one in tokens[start:stop]]


def student_mass(behaviour_logp_BR: np.ndarray, mask_BR: np.ndarray) -> float:
    """Mean probability of the drawn tokens under the distribution that they were drawn from."""
    total = max(float(mask_BR.sum()), 1.0)
    return float(np.sum(np.exp(behaviour_logp_BR, dtype=np.float64) * mask_BR)) / total
