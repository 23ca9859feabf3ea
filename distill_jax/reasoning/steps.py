"""Steps of a solution as token ids: one encoding for training, scoring and evaluating them."""

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.core.text import encodable
from distill_jax.data.token_bytes import text_and_ends, token_bytes
from distill_jax.data.tokenizer import FastTokenizer
from distill_jax.reasoning import program_steps


class Format(NamedTuple):
    """How a solution is cut into steps: see `SPLITS`. separator: of split text."""

    split: str = "text"
    separator: str = "\n"

    def check(self) -> None:
        """Raises ConfigError: an unknown split, an empty separator, one that nothing reads."""
        if self.split not in SPLITS:
            wanted = f"one of {', '.join(SPLITS)}"
            raise ConfigError(f"steps.split={self.split!r}", wanted=wanted)
        if not self.separator:
            raise ConfigError("steps.separator is empty", wanted="a text")
        if self.split != "text" and self.separator != Format().separator:
            raise ConfigError(
                f"steps.separator={self.separator!r} with split={self.split}",
                wanted="split=text: others do not read it",
            )

    @property
    def joint(self) -> str:
        """What joins the texts of steps to a solution."""
        return self.separator if self.split == "text" else ""

    def check_task(self, task: str, name: str) -> None:
        """Raises ConfigError where the run's task, whose setting is `name`, has no such steps."""
        if self.split not in (Format().split, task):
            raise ConfigError(
                f"{name}={self.split} with task={task}", wanted=f"task={self.split}, or split=text"
            )


def split_setting() -> Any:
    """The field that says where steps end, of a class of settings."""
    return setting(
        "text",
        "Where steps end: text, at the separator; program, where groups of top-level statements "
        "do, with task=program.",
        choices=tuple(SPLITS),
    )


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


def split_text(text: str, how: Format) -> list[str]:
    """The steps of a text: stripped, blank ones are none; of split=program all of it, in parts."""
    if how.split == "text":
        return [step.strip() for step in text.split(how.separator) if step.strip()]
    places = [0, *(one.place for one in program_steps.begins(text)), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(places)]


class Step(NamedTuple):
    """A step of a completion: its token ids, and the place in the completion where it ends: that
    of the last token that belongs to it, its separator included."""

    tokens: list[int]
    stop: int


def split_tokens(tok: FastTokenizer, ids: Sequence[int], how: Format) -> list[Step]:
    """The steps of a completion's tokens; nothing is decoded and tokenised again.

    A step ends with the token in which it ends as bytes: that of the separator's last byte, e.g.
    ".\\n\\n", which is one token of Qwen's; or that of the byte before the next group of
    statements. Blank tokens at a step's ends are dropped, and so are steps without other tokens
    and the added tokens of the tokenizer (EOS).
    """
    return [step for step, _ in SPLITS[how.split](tok, ids, how) if step.tokens]


def next_step(
    tok: FastTokenizer, written: Sequence[int], new: Sequence[int], how: Format
) -> int | None:
    """The number of new tokens up to where a step ends first, its separator included.

    None where no step ends; blank steps are none. What follows splits into the steps that it has
    in the whole.

    Args:
        tok: of the tokens.
        written: tokens before the new ones, up to where a step ended.
        new: tokens drawn so far.
        how: what ends a step.
    """
    first = len(written)
    parts = SPLITS[how.split](tok, [*written, *new], how)
    stops = (step.stop for step, closed in parts if closed and step.tokens and step.stop >= first)
    return next((stop + 1 - first for stop in stops), None)


def _by_separator(
    tok: FastTokenizer, ids: Sequence[int], how: Format
) -> Iterator[tuple[Step, bool]]:
    mark, added = how.separator.encode(), tok.added_tokens_decoder
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


def _by_statement(
    tok: FastTokenizer, ids: Sequence[int], how: Format
) -> Iterator[tuple[Step, bool]]:
    del how
    text, ends = text_and_ends(tok, ids)
    pieces, added = token_bytes(tok, ids), tok.added_tokens_decoder
    first, read, at = 0, 0, 0  # token of the step; characters and bytes of the text before it
    for place, sure in [*program_steps.begins(text), (len(text), False)]:
        at += len(text[read:place].encode("utf-8", "surrogateescape"))
        read = place
        stop = len(ids) - 1 if place == len(text) else bisect.bisect_left(ends, at)
        # A step within one token belongs to the step before: it has no token of its own.
        own = zip(ids[first : stop + 1], pieces[first : stop + 1], strict=True)
        step = [(index, piece) for index, piece in own if index not in added]
        yield Step(_without_blanks(step), stop), sure
        first = stop + 1


# Name -> what gives (a step, blank ones too; whether it surely ends there) of a completion's
# tokens. A step that surely ends in a part of a completion ends there in the whole.
SPLITS: dict[str, Callable[..., Iterator[tuple[Step, bool]]]] = {
    "text": _by_separator,
    "program": _by_statement,
}


@dataclass(frozen=True)
class StepSettings:
    """How a solution is cut into steps, and what marks the end of one."""

    split: str = split_setting()
    separator: str = setting("\n", "Text between the steps of a solution; of split=text.")
    token: str = setting(
        "\n", "Text of the one token put after each step, whose state is scored; e.g. <extra_0>."
    )

    def __post_init__(self) -> None:
        self.how.check()
        if not self.token:
            raise ConfigError("steps.token is empty", wanted="a text")

    @property
    def how(self) -> Format:
        """How a solution is cut."""
        return Format(self.split, self.separator)


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
    return tok([encodable(step.strip()) for step in steps], add_special_tokens=False)["input_ids"]


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
