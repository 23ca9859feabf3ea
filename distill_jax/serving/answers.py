"""What is answered to a request: as a whole, or in chunks."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from distill_jax.serving import bodies, wanted
from distill_jax.serving.bodies import Token
from distill_jax.serving.engine import LENGTH, STOP, Draw, Read
from distill_jax.serving.requests import (
    Choice,
    Jobs,
    chat_prompt,
    check_room,
    decodings,
    pieces,
    text_prompt,
)
from distill_jax.serving.scoring import Scores
from distill_jax.serving.served import Served
from distill_jax.serving.texts import Text


class Answer(Protocol):
    """Its jobs are added when it is made; they are to be submitted before it is asked."""

    async def whole(self) -> dict[str, Any]:
        """The body."""

    def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The bodies of a stream's events."""


class Chat:
    """A chat completion.

    Raises:
        RefusedError: messages that cannot be put to the model.
    """

    def __init__(self, served: Served, jobs: Jobs, asked: wanted.Chat):
        self._served, self._jobs, self._asked = served, jobs, asked
        self._head, how = bodies.head("chatcmpl", served.name), asked.sampling
        self._prompt = chat_prompt(served, asked)
        check_room(self._prompt, served.prompt)
        self._choices = [Choice(Text(served.tokenizer, how.stops)) for _ in range(how.n)]
        for decoding in decodings(how, 1):
            jobs.add(Draw, self._prompt, how.room, decoding)

    def _pieces(self) -> Any:
        return pieces(self._jobs, self._choices, self._served, logprobs=self._asked.logprobs)

    def _usage(self) -> dict[str, int]:
        return bodies.usage(len(self._prompt), sum(one.count for one in self._choices))

    async def whole(self) -> dict[str, Any]:
        """See `Answer`."""
        async for _ in self._pieces():
            pass
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": "".join(one.parts)},
                "logprobs": bodies.chat_logprobs(one.tokens) if self._asked.logprobs else None,
                "finish_reason": one.reason,
            }
            for number, one in enumerate(self._choices)
        ]
        return self._head.body("chat.completion", choices=choices, usage=self._usage())

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """See `Answer`."""
        for number in range(len(self._choices)):
            yield self._chunk(number, {"role": "assistant", "content": ""})
        async for number, text, tokens in self._pieces():
            reason = self._choices[number].reason
            yield self._chunk(number, {"content": text} if text else {}, tokens, reason)
        if self._asked.sampling.usage:
            yield self._head.body("chat.completion.chunk", choices=[], usage=self._usage())

    def _chunk(
        self, number: int, delta: dict[str, str], tokens: Any = (), reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = bodies.chat_logprobs(tokens) if tokens else None
        choice = {
            "index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason,
        }  # fmt: skip
        return self._head.body("chat.completion.chunk", choices=[choice])


class Completions:
    """Completions of one or more prompts, n of each, prompt-major.

    Raises:
        RefusedError: a prompt that cannot be put to the model.
    """

    def __init__(self, served: Served, jobs: Jobs, asked: wanted.Completion):
        self._served, self._jobs, self._asked = served, jobs, asked
        self._head, how = bodies.head("cmpl", served.name), asked.sampling
        self._prompts = [text_prompt(served, prompt) for prompt in asked.prompts]
        # One token after the prompt comes of the pass that scores it.
        self._draws = how.room > asked.reads
        most = served.prompt if self._draws else served.prompt + served.new
        for tokens in self._prompts:
            check_room(tokens, most)
        hows = decodings(how, len(self._prompts))
        self._choices = [Choice(Text(served.tokenizer, how.stops)) for _ in hows]
        if self._draws:
            for number, decoding in enumerate(hows):
                jobs.add(Draw, self._prompts[number // how.n], how.room, decoding)
        if asked.reads:
            tops = bool(asked.logprobs or asked.prompt_logprobs)
            for tokens, decoding in zip(self._prompts, hows, strict=True):
                jobs.add(Read, tokens, tops, decoding)

    async def whole(self) -> dict[str, Any]:
        """See `Answer`."""
        scores: dict[int, Scores] = {}
        first = len(self._choices) if self._draws else 0  # number of the first job that reads
        if self._draws:
            async for _ in self._pieces(scores):
                pass
        while len(scores) < len(self._prompts) * self._asked.reads:
            number, event = await self._jobs.next()
            if isinstance(event, Scores):
                scores[number] = event
        found = {number - first: one for number, one in scores.items()}
        if not self._draws:
            self._end_after_reading(found)
        choices = [self._choice(number, found.get(number)) for number in range(len(self._choices))]
        return self._head.body("text_completion", choices=choices, usage=self._usage())

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """See `Answer`."""
        async for number, text, tokens in self._pieces({}):
            logprobs = None
            if self._asked.logprobs is not None:
                earlier = self._choices[number].tokens[: -len(tokens) or None]
                before = sum(len(one.text) for one in earlier)
                logprobs = bodies.completion_logprobs(tokens, 0, before)
            choice = {
                "index": number, "text": text, "logprobs": logprobs,
                "finish_reason": self._choices[number].reason,
            }  # fmt: skip
            yield self._head.body("text_completion", choices=[choice])
        if self._asked.sampling.usage:
            yield self._head.body("text_completion", choices=[], usage=self._usage())

    def _pieces(self, scores: dict[int, Scores]) -> Any:
        wants = self._asked.logprobs is not None
        return pieces(self._jobs, self._choices, self._served, logprobs=wants, scores=scores)

    def _usage(self) -> dict[str, int]:
        prompt = sum(map(len, self._prompts))
        return bodies.usage(prompt, sum(one.count for one in self._choices))

    def _end_after_reading(self, scores: dict[int, Scores]) -> None:
        """Choices of at most one token, which was drawn in the pass over the prompt."""
        for number, one in enumerate(self._choices):
            one.reason = LENGTH
            if self._asked.sampling.room and number in scores:
                token = scores[number].next_token
                one.count = 1
                one.parts.append(one.text.add([token], last=True).text)
                if token in self._served.ends or one.text.stopped:
                    one.reason = STOP

    def _choice(self, number: int, scores: Scores | None) -> dict[str, Any]:
        asked, one, tokenizer = self._asked, self._choices[number], self._served.tokenizer
        prompt = self._prompts[number // asked.sampling.n]
        tokens: list[Token] = one.tokens
        if scores is not None and asked.echo:
            read = bodies.read_tokens(tokenizer, prompt, scores)
            tokens = read[: len(prompt) + (0 if self._draws else one.count)] + tokens
        elif scores is not None and not self._draws:
            read = bodies.read_tokens(tokenizer, prompt, scores)
            tokens = read[len(prompt) : len(prompt) + one.count]
        text = "".join(one.parts)
        if asked.echo:
            given = asked.prompts[number // asked.sampling.n]
            text = (given if isinstance(given, str) else str(tokenizer.decode(prompt))) + text
        found: dict[str, Any] = {
            "index": number, "text": text, "logprobs": None, "finish_reason": one.reason,
        }  # fmt: skip
        if asked.logprobs is not None:
            found["logprobs"] = bodies.completion_logprobs(tokens, asked.logprobs)
        if asked.prompt_logprobs is not None and scores is not None:
            count = asked.prompt_logprobs
            found["prompt_logprobs"] = bodies.prompt_logprobs(tokenizer, prompt, scores, count)
        return found
