"""One request's way through the engine: its jobs, their events, and what is made of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from distill_jax.core.errors import DataError
from distill_jax.data.chat import check_no_specials, render_messages
from distill_jax.serving import bodies
from distill_jax.serving.bodies import Token
from distill_jax.serving.engine import STOP, Draw, Drawn, Engine, Event, Failed, Read
from distill_jax.serving.scoring import Scores
from distill_jax.serving.served import Served
from distill_jax.serving.slots import Decoding
from distill_jax.serving.texts import Text
from distill_jax.serving.wanted import Chat, RefusedError, Sampling


class EngineFailedError(Exception):
    """The engine ended before the request."""


@dataclass
class Choice:
    """A completion as it comes."""

    text: Text
    parts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    count: int = 0
    reason: str | None = None


class Jobs:
    """The jobs of one request; to be used in one event loop, and `cancel`led at its end."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._jobs: list[Draw | Read] = []

    def add(self, make: Callable[..., Draw | Read], *parts: Any) -> None:
        """A job of these parts; its events have the number of the job."""
        number = len(self._jobs)

        def put(event: Event) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._events.put_nowait, (number, event))

        self._jobs.append(make(*parts, put))

    def submit(self) -> None:
        """Raises TooManyError, QueueFullError or ClosedError."""
        self._engine.submit(self._jobs)

    async def next(self) -> tuple[int, Drawn | Scores]:
        """The next event with its job's number; raises EngineFailedError."""
        number, event = await self._events.get()
        if isinstance(event, Failed):
            raise EngineFailedError
        return number, event

    def stop(self, number: int) -> None:
        """Frees what one job has."""
        self._jobs[number].cancelled = True

    def cancel(self) -> None:
        """Frees what the request has; jobs that are done do not mind."""
        for job in self._jobs:
            job.cancelled = True


def chat_prompt(served: Served, wanted: Chat) -> list[int]:
    """Token ids of a conversation up to where the answer begins.

    Raises:
        RefusedError: the template refuses it, or a message holds a special token.
    """
    tokenizer = served.tokenizer
    if tokenizer.chat_template is None:
        raise RefusedError("the model has no chat template; use /v1/completions")
    thinking = served.thinking if wanted.thinking is None else wanted.thinking
    try:
        check_no_specials(
            tokenizer, [("request", "message", one["content"]) for one in wanted.messages]
        )
        (tokens,) = render_messages(tokenizer, [wanted.messages], enable_thinking=thinking)
    except DataError as error:
        raise RefusedError("a message holds a special token of the model") from error
    except TemplateError as error:  # as a role that it does not know
        raise RefusedError(f"the chat template refuses the messages: {error}") from error
    return tokens


def text_prompt(served: Served, prompt: str | list[int]) -> list[int]:
    """Token ids of a prompt of completions.

    Raises:
        RefusedError: none, or ids that are no tokens.
    """
    vocab = len(served.tokenizer)
    tokens = served.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
    if not tokens:
        raise RefusedError("the prompt has no token")
    if not all(0 <= token < vocab for token in tokens):
        raise RefusedError(f"token ids must be 0 to {vocab - 1}")
    return list(tokens)


def check_room(tokens: Sequence[int], most: int) -> None:
    """Raises RefusedError for a prompt of more than `most` tokens."""
    if len(tokens) > most:
        raise RefusedError(
            f"the prompt has {len(tokens)} tokens; this server allows {most}",
            code="context_length_exceeded",
        )


def decodings(how: Sampling, prompts: int) -> list[Decoding]:
    """Of the n samples of each prompt, in the order of choices."""
    count = prompts * how.n
    return [Decoding(how.temperature, how.top_p, how.top_k, how.seed, i) for i in range(count)]


async def pieces(
    jobs: Jobs,
    choices: Sequence[Choice],
    served: Served,
    *,
    logprobs: bool,
    scores: dict[int, Scores] | None = None,
) -> AsyncIterator[tuple[int, str, list[Token]]]:
    """(number, new text, new tokens) of the choices, whose jobs have their numbers, as they come.

    A choice's reason is set with its last piece. Scores that come among them go to `scores`, by the
    number of their job.
    """
    left = set(range(len(choices)))
    while left:
        number, event = await jobs.next()
        if isinstance(event, Scores):
            if scores is not None:
                scores[number] = event
            continue
        if number not in left:
            continue  # stopped by a string, a segment too late
        choice = choices[number]
        piece = choice.text.add(event.tokens, last=event.reason is not None)
        event = event._replace(tokens=event.tokens[: piece.taken], logp=event.logp[: piece.taken])
        tokens = bodies.drawn_tokens(served.tokenizer, event) if logprobs else []
        choice.count += piece.taken
        choice.parts.append(piece.text)
        choice.tokens += tokens
        choice.reason = STOP if piece.stopped else event.reason
        if choice.reason is not None:
            left.remove(number)
            jobs.stop(number)
        if piece.text or choice.reason is not None or tokens:
            yield number, piece.text, tokens
