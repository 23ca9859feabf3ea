"""What a request asks for: bodies of the endpoint, read and refused in words."""

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from distill_jax.core.text import encodable

TOP = 5  # most probable tokens that can be listed
_STOPS, _PROMPTS, _MOST_N = 16, 256, 128
_STOP_CHARACTERS = 256
# Below it float32 logits overflow when they are divided by the temperature.
_COLDEST = 1e-5
_DEFAULT_TOKENS = 16  # of OpenAI's completions
# Settings that would change the answer and are not known here, and the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": (None, []), "functions": (None, []), "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}), "presence_penalty": (None, 0), "frequency_penalty": (None, 0),
    "repetition_penalty": (None, 1), "best_of": (None, 1), "suffix": (None, ""),
    "min_p": (None, 0), "min_tokens": (None, 0), "ignore_eos": (None, False),
    "top_logprobs": (None, 0), "use_beam_search": (None, False), "modalities": (None, ["text"]),
}  # fmt: skip


class RefusedError(Exception):
    """A request that gets an answer of this status, with OpenAI's form of error."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.message, self.status, self.code = message, status, code


class Sampling(NamedTuple):
    """How completions are drawn and sent; a request without a seed gets another one each time."""

    room: int
    n: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stops: tuple[str, ...]
    stream: bool
    usage: bool


@dataclass(frozen=True)
class Chat:
    """Messages, and whether the log-probabilities of the drawn tokens are asked for."""

    messages: list[dict[str, str]]
    logprobs: bool
    thinking: bool | None
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """Prompts as texts or tokens; logprobs: None, or how many most probable tokens are listed;
    prompt: whether the prompts' log-probabilities are asked for in vLLM's form."""

    prompts: list[str | list[int]]
    echo: bool
    logprobs: int | None
    prompt_logprobs: int | None
    sampling: Sampling

    @property
    def reads(self) -> bool:
        """Whether log-probabilities of the prompts are asked for."""
        return self.prompt_logprobs is not None or (self.echo and self.logprobs is not None)


def parse(raw: bytes) -> dict[str, Any]:
    """The object in a body.

    Raises:
        RefusedError: no JSON object.
    """
    try:
        found = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # a wrong byte is a ValueError, too
        raise RefusedError("the body is no JSON in UTF-8") from error
    if not isinstance(found, dict):
        raise RefusedError("the body is no JSON object")
    for name, neutral in _NEUTRAL.items():
        if not any(found.get(name) == value for value in neutral):
            raise RefusedError(f"{name} is not supported here", code="unsupported")
    return found


def chat(body: Mapping[str, Any], most: int, default: int) -> Chat:
    """A chat request; most: new tokens allowed, default: where none are given.

    Raises:
        RefusedError: with a sentence on what is wrong.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError("messages must be a list of at least one message")
    given = body.get("max_completion_tokens")
    room = _integer(body, "max_tokens", default) if given is None else given
    thinking = body.get("chat_template_kwargs") or {}
    if not isinstance(thinking, dict) or set(thinking) - {"enable_thinking"}:
        raise RefusedError("chat_template_kwargs may hold enable_thinking alone")
    wants = thinking.get("enable_thinking")
    if wants is not None and not isinstance(wants, bool):
        raise RefusedError("enable_thinking must be true or false")
    how = _sampling({**body, "max_tokens": room}, most, default, least=1)
    return Chat(list(map(_message, messages)), _flag(body, "logprobs"), wants, how)


def completion(body: Mapping[str, Any], most: int) -> Completion:
    """A completions request; see `chat`."""
    how = _sampling(body, most, min(_DEFAULT_TOKENS, most), least=0)
    echo, asked = _flag(body, "echo"), _optional(body, "prompt_logprobs")
    found = Completion(_prompts(body.get("prompt")), echo, _optional(body, "logprobs"), asked, how)
    if how.room == 0 and not echo and asked is None:
        raise RefusedError("max_tokens=0 is for echo or prompt_logprobs alone")
    if how.stream and (echo or asked is not None):
        raise RefusedError("stream with echo or prompt_logprobs is not supported")
    if how.n > 1 and found.reads:
        raise RefusedError("n above 1 with log-probabilities of the prompt is not supported")
    if found.logprobs and not (found.reads and how.room <= 1):
        raise RefusedError(
            f"logprobs={found.logprobs}: of drawn tokens logprobs=0 alone is supported, which "
            "gives their own; more needs echo and max_tokens of at most 1"
        )
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _message(one: Any) -> dict[str, str]:
    if not isinstance(one, dict) or not isinstance(one.get("role"), str):
        raise RefusedError("each message must be an object with role and content")
    content = one.get("content")
    if isinstance(content, list):
        parts = [p for p in content if isinstance(p, dict) and p.get("type") == "text"]
        texts = [text for p in parts if isinstance(text := p.get("text"), str)]
        if len(texts) != len(content):
            raise RefusedError("content must be a text, or parts of type text")
        content = "".join(texts)
    if not isinstance(content, str):
        raise RefusedError("content must be a text, or parts of type text")
    return {"role": encodable(one["role"]), "content": encodable(content)}


def _prompts(given: Any) -> list[str | list[int]]:
    """OpenAI's four forms: a text, texts, tokens, lists of tokens."""
    if isinstance(given, str):
        return [encodable(given)]
    if isinstance(given, list) and given and len(given) <= _PROMPTS:
        if all(isinstance(one, str) for one in given):
            return [encodable(one) for one in given]
        if _is_tokens(given):
            return [given]
        if all(isinstance(one, list) and one and _is_tokens(one) for one in given):
            return list(given)
    raise RefusedError(
        f"prompt must be a text, token ids, or at most {_PROMPTS} of one kind of them, none empty"
    )


def _is_tokens(given: Sequence[Any]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) for one in given)


def _sampling(body: Mapping[str, Any], most: int, default: int, *, least: int) -> Sampling:
    room = _integer(body, "max_tokens", default)
    if not least <= room <= most:
        raise RefusedError(f"max_tokens={room}: this server allows {least} to {most}")
    n = _integer(body, "n", 1)
    if not 1 <= n <= _MOST_N:
        raise RefusedError(f"n={n} must be 1 to {_MOST_N}")
    stops = body.get("stop")
    stops = [stops] if isinstance(stops, str) else [] if stops is None else stops
    if not isinstance(stops, list) or not all(isinstance(x, str) for x in stops):
        raise RefusedError("stop must be a text or a list of texts")
    if len(stops) > _STOPS:
        raise RefusedError(f"stop may hold at most {_STOPS} texts")
    if any(len(one) > _STOP_CHARACTERS for one in stops):
        raise RefusedError(f"a text of stop may have at most {_STOP_CHARACTERS} characters")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise RefusedError("stream_options must be an object")
    seed = body.get("seed")
    top_k = _integer(body, "top_k", 0)
    temperature = _number(body, "temperature", 1.0, 0.0, 100.0)
    return Sampling(
        room=room,
        n=n,
        temperature=temperature if temperature >= _COLDEST else 0.0,
        top_p=_number(body, "top_p", 1.0, 0.0, 1.0),
        top_k=min(max(top_k, 0), 2**31 - 1),  # vLLM's −1 is off
        seed=secrets.randbits(31) if seed is None else _integer(body, "seed", 0) % 2**31,
        stops=tuple(encodable(one) for one in stops),
        stream=_flag(body, "stream"),
        usage=_flag(options, "include_usage"),
    )


def _integer(body: Mapping[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise RefusedError(f"{name} must be a whole number")
    return value


def _number(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(f"{name} must be a number")
    if not (low <= value <= high and math.isfinite(value)):
        raise RefusedError(f"{name} must be {low:g} to {high:g}")
    return float(value)


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RefusedError(f"{name} must be true or false")
    return bool(value)


def _optional(body: Mapping[str, Any], name: str) -> int | None:
    """A number of most probable tokens, or None."""
    if body.get(name) is None:
        return None
    value = _integer(body, name, 0)
    if not 0 <= value <= TOP:
        raise RefusedError(f"{name} must be 0 to {TOP}")
    return value
