"""Steps of a solution as token ids: one encoding for training, scoring and evaluating them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.data.token_bytes import token_bytes
from distill_jax.data.tokenizer import FastTokenizer


@dataclass(frozen=True)
class StepSettings:
    """How a solution is cut into steps, and what marks the end of one."""

    separator: str = setting("\n", "Text between the steps of a solution.")
    token: str = setting(
        "\n", "Text of the one token put after each step, whose state is scored; e.g. <extra_0>."
    )

    def __post_init__(self) -> None:
        for name in ("separator", "token"):
            if not getattr(self, name):
                raise ConfigError(f"steps.{name} is empty", wanted="a text")


class Encoded(NamedTuple):
    """A prompt and its steps as one row: tokens, each step followed by the step token; ends, the
    places of those; dropped, steps that the row had no room for; start, the prompt's tokens."""

    tokens: list[int]
    ends: list[int]
    dropped: int = 0
    start: int = 0


def step_token_id(tok: FastTokenizer, text: str) -> int:
    """The id of the step token.

    Raises:
        ConfigError: the tokenizer has no such token, or splits it.
    """
    ids = tok.encode(text, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tok.unk_token_id:
        pieces = ", ".join(map(repr, tok.convert_ids_to_tokens(ids)))
        raise ConfigError(
            f"steps.token={text!r} is {len(ids)} tokens of this tokenizer: {pieces}",
            wanted="exactly one token",
            fix="set steps.token to a text that is one token: a line break is one of Qwen's and of "
            "Llama 3's, but not of Mistral's",
        )
    return int(ids[0])


def split_text(text: str, separator: str) -> list[str]:
    """The steps of a text, stripped; blank ones are none."""
    return [step.strip() for step in text.split(separator) if step.strip()]


class Step(NamedTuple):
    """A step of a completion: its token ids, and the place in the completion where it ends: that
    of the last token that belongs to it, its separator included."""

    tokens: list[int]
    stop: int


def split_tokens(tok: FastTokenizer, ids: Sequence[int], separator: str) -> list[Step]:
    """The steps of a completion's tokens; nothing is decoded and tokenised again.

    A step ends with the token in which a separator ends, e.g. with ".\\n\\n", which is one token
    of Qwen's. Blank tokens at a step's ends are dropped, and so are steps without other tokens
    and the added tokens of the tokenizer (EOS).
    """
    return [step for step, _ in _parts(tok, ids, separator) if step.tokens]


def first_step(tok: FastTokenizer, ids: Sequence[int], separator: str) -> int | None:
    """The number of tokens up to where the first step ends, its separator included.

    None where no separator ends a step; blank steps are none. What follows splits into the steps
    that it has in the whole.
    """
    parts = _parts(tok, ids, separator)
    return next((step.stop + 1 for step, closed in parts if closed and step.tokens), None)


def _parts(tok: FastTokenizer, ids: Sequence[int], separator: str) -> Iterator[tuple[Step, bool]]:
    """(a step, blank ones too; whether a separator ends it)."""
    mark, added = separator.encode(), tok.added_tokens_decoder
    step: list[tuple[int, bytes]] = []
    read = b""
    for place, (index, piece) in enumerate(zip(ids, token_bytes(tok, ids), strict=True)):
        if index in added:
            continue
        step.append((index, piece))
        before, read = len(read), read + piece
        # The part that may hold a separator which ends in this token.
        if mark in read[max(0, before - len(mark) + 1) :]:
            yield Step(_without_blanks(step), place), True
            step, read = [], b""
    yield Step(_without_blanks(step), len(ids) - 1), False


def step_of_tokens(steps: Sequence[Step], length: int) -> list[int]:
    """The step that each of a completion's tokens belongs to; tokens after the last, to that."""
    out: list[int] = []
    for number, step in enumerate(steps):
        out += [number] * (step.stop + 1 - len(out))
    return (out + [max(len(steps) - 1, 0)] * (length - len(out)))[:length]


def _without_blanks(step: list[tuple[int, bytes]]) -> list[int]:
    kept = [i for i, (_, piece) in enumerate(step) if piece.strip()]
    return [index for index, _ in step[kept[0] : kept[-1] + 1]] if kept else []


def tokenise(tok: FastTokenizer, steps: Sequence[str]) -> list[list[int]]:
    """Token ids of steps given as texts.

    Raises:
        DataError: a step is blank.
    """
    blank = [number for number, step in enumerate(steps) if not step.strip()]
    if blank:
        raise DataError(f"step {blank[0]} is blank", wanted="a text", fix="drop the step")
    return tok([step.strip() for step in steps], add_special_tokens=False)["input_ids"]


def encode(
    prompt: Sequence[int], steps: Sequence[Sequence[int]], step_id: int, max_length: int
) -> Encoded:
    """Prompt and steps, each followed by the step token.

    Args:
        prompt: token ids up to where the response begins.
        steps: token ids of each step, none empty.
        step_id: of the step token.
        max_length: most tokens of a row; steps beyond it are dropped whole, from the end.
    """
    tokens = list(prompt)
    ends: list[int] = []
    for number, step in enumerate(steps):
        if len(tokens) + len(step) + 1 > max_length:
            return Encoded(tokens, ends, len(steps) - number, len(prompt))
        tokens += [*step, step_id]
        ends.append(len(tokens) - 1)
    return Encoded(tokens, ends, 0, len(prompt))
