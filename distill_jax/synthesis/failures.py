"""Classes of failure: what an attempt came to, read from its status or its raw response."""

import json
from typing import Any, NamedTuple

from distill_jax.core.text import encodable

OK = "ok"
# Of an attempt: worth another one as it is.
TRANSIENT = ("rate_limit", "timeout", "connection", "server", "malformed")
# The endpoint refuses this account or does not know the model: nothing else will succeed.
FATAL = ("auth", "quota", "not_found")
# The endpoint answered, and the answer is of no use.
ANSWERED = ("content_filter", "length", "empty")
# Every class of an attempt. What is read and judged afterwards has classes of its own.
CLASSES = (OK, *TRANSIENT, *FATAL, *ANSWERED, "invalid_request")
_BY_STATUS = {
    401: "auth", 403: "auth", 402: "quota", 404: "not_found", 408: "timeout", 409: "server",
    429: "rate_limit",
}  # fmt: skip


class Usage(NamedTuple):
    """Tokens of an answer: of the prompt, of these cached, of the answer, of these reasoning."""

    input: int
    cached: int
    output: int
    reasoning: int


class Response(NamedTuple):
    """A raw response as read.

    Attributes:
        kind: one of CLASSES.
        text: the answer, "" where there is none.
        usage: None where the endpoint does not report it.
    """

    kind: str
    text: str = ""
    usage: Usage | None = None


def of_status(status: int, code: str = "") -> str:
    """The class of a failed attempt by its HTTP status, and the code of the error's body."""
    if code == "insufficient_quota":
        return "quota"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return "server" if status >= 500 else "invalid_request"


def read(raw: str) -> Response:
    """What a response of status 200 holds; malformed where it is no chat completion."""
    try:
        body = json.loads(raw)
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        text = encodable(content) if isinstance(content, str) else ""
        if content is not None and not isinstance(content, str):
            return Response("malformed")
        finish, usage = choice.get("finish_reason"), _usage(body.get("usage"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Response("malformed")
    if finish == "content_filter" or (refusal and not text.strip()):
        return Response("content_filter", text, usage)
    if finish == "length":
        return Response("length", text, usage)
    return Response(OK if text.strip() else "empty", text, usage)


def _usage(found: Any) -> Usage | None:
    if not isinstance(found, dict):
        return None
    prompt, completion = _count(found, "prompt_tokens"), _count(found, "completion_tokens")
    if prompt is None or completion is None:
        return None
    cached = _count(found.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(found.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(prompt, min(cached or 0, prompt), completion, reasoning or 0)


def _count(group: Any, name: str) -> int | None:
    value = group.get(name) if isinstance(group, dict) else None
    return value if type(value) is int and value >= 0 else None
