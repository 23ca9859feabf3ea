"""Bodies of answers, in OpenAI's form, and vLLM's for log-probabilities of prompts."""

import functools
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from distill_jax.serving.engine import Drawn
from distill_jax.serving.scoring import Scores


class Head(NamedTuple):
    """What all parts of one answer have in common."""

    id: str
    created: int
    model: str

    def body(self, kind: str, **more: Any) -> dict[str, Any]:
        """A body of a kind of object."""
        named = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**named, **more}


def head(prefix: str, model: str) -> Head:
    """A new answer's."""
    return Head(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), model)


def error(message: str, status: int, code: str | None = None) -> dict[str, Any]:
    """An error's body."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Tokens of all prompts and completions."""
    return {
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }  # fmt: skip


class Token(NamedTuple):
    """A token of an answer; logp None where nothing stands before it; top: (text, logp), the most
    probable at its place, most probable first."""

    text: str
    logp: float | None
    top: Sequence[tuple[str, float]] = ()


def texts(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """The text of each token by itself."""
    return [_text(tokenizer, token) for token in tokens]


@functools.lru_cache(maxsize=1 << 18)
def _text(tokenizer: Any, token: int) -> str:
    # Prompts with their most probable tokens are millions of them.
    return str(tokenizer.decode([token]))


def drawn_tokens(tokenizer: Any, event: Drawn) -> list[Token]:
    """The tokens of an event."""
    return list(map(Token, texts(tokenizer, event.tokens), event.logp))


def read_tokens(tokenizer: Any, tokens: Sequence[int], scores: Scores) -> list[Token]:
    """A prompt's tokens, and the token that was drawn after them.

    A token that is listed among the most probable has its log-probability from there: clients
    compare the two for equality.
    """
    every = [*tokens, scores.next_token]
    own: list[float | None] = [None, *scores.logp, scores.next_logp]
    listed_at = zip(scores.top_ids, scores.top_logp, strict=True)
    tops: list[dict[int, float]] = [{}, *(dict(zip(*one, strict=True)) for one in listed_at)]
    found = []
    for place, (token, text) in enumerate(zip(every, texts(tokenizer, every), strict=True)):
        listed = tops[place] if place < len(tops) else {}
        pairs = list(zip(texts(tokenizer, list(listed)), listed.values(), strict=True))
        found.append(Token(text, listed.get(token, own[place]), pairs))
    return found


def completion_logprobs(tokens: Sequence[Token], count: int, before: int = 0) -> dict[str, Any]:
    """`logprobs` of a choice of completions.

    count: of most probable tokens listed; before: letters of the tokens before these.
    """
    tops: list[dict[str, float] | None] = []
    offsets, offset = [], before
    for token in tokens:
        listed: dict[str, float] = {}
        for text, logp in [*token.top[:count], (token.text, token.logp)]:
            if logp is not None:
                listed.setdefault(text, logp)  # of tokens with one text the most probable
        tops.append(listed if token.logp is not None and count else None)
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logp for token in tokens],
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """`logprobs` of a choice of chat completions."""
    content = [
        {
            "token": one.text, "logprob": one.logp, "bytes": list(one.text.encode()),
            "top_logprobs": [],
        }
        for one in tokens
    ]  # fmt: skip
    return {"content": content}


def prompt_logprobs(
    tokenizer: Any, tokens: Sequence[int], scores: Scores, count: int
) -> list[dict[str, Any] | None]:
    """`prompt_logprobs` of vLLM: of each prompt token {id: {logprob, rank, decoded_token}}."""
    found: list[dict[str, Any] | None] = [None]
    names = texts(tokenizer, tokens)
    for place, (token, logp) in enumerate(zip(tokens[1:], scores.logp, strict=True)):
        own = {"logprob": logp, "rank": None, "decoded_token": names[place + 1]}
        entry = {str(token): own}
        if count:
            listed = zip(scores.top_ids[place][:count], scores.top_logp[place][:count], strict=True)
            for rank, (id, value) in enumerate(listed, 1):
                text = _text(tokenizer, id)
                entry[str(id)] = {"logprob": value, "rank": rank, "decoded_token": text}
        found.append(entry)
    return found
