"""The endpoint itself, through the package openai: one attempt, never retried by the package.

The key comes from the environment and leaves this module only in the request's header.
"""

import asyncio
import logging
import os
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from distill_jax.core.errors import ConfigError, MissingExtraError
from distill_jax.synthesis import failures, retry
from distill_jax.synthesis.journal import Attempt
from distill_jax.synthesis.requests import Request
from distill_jax.synthesis.score_settings import ScoreServerSettings
from distill_jax.synthesis.settings import EndpointSettings, clean

_OPENAI = "https://api.openai.com/v1"
_ADDRESS = "OPENAI_BASE_URL"
_MESSAGE = 300  # characters kept of an error's message
_CONNECT_S = 10.0
_OK = 200
_HIDDEN = "[key]"
# They log addresses and bodies of requests.
_LOGGERS = ("openai", "httpx", "httpx2")
# Shorter values of a query are no secrets, and replacing them would spoil texts.
_SECRET_LENGTH = 8
Server = EndpointSettings | ScoreServerSettings


class Reply(NamedTuple):
    """What came of an attempt; raw: the body of a response of status 200, without the key."""

    attempt: Attempt
    raw: str | None = None


def library() -> Any:
    """The package openai.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise MissingExtraError(
            "an endpoint needs the package openai", fix="pip install -e '.[api]'"
        ) from error
    return openai


def address(s: Server) -> str:
    """The endpoint's address, which may hold a secret: of the settings, or of the environment.

    Raises:
        ConfigError: the variable's is none.
    """
    found = s.base_url or os.environ.get(_ADDRESS, "").strip() or _OPENAI
    parts = urllib.parse.urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        got = f"${_ADDRESS}={clean(found)!r}"
        raise ConfigError(got, wanted="http://HOST/PATH or https://HOST/PATH")
    return found


def label(s: Server) -> str:
    """The endpoint's name in keys and rows."""
    return s.label or clean(address(s))


def key_of(s: Server) -> str:
    """The key; "" for an endpoint that needs none.

    Raises:
        ConfigError: the variable is not set, or its value cannot be sent. It is not shown.
    """
    if not s.key_variable:
        return ""
    key = os.environ.get(s.key_variable, "").strip()
    if not key:
        raise ConfigError(
            f"no key for {clean(address(s))}: ${s.key_variable} is not set",
            fix=f"export {s.key_variable}=..., or set key_variable= (empty) for an endpoint that "
            "needs none",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"${s.key_variable} holds blanks or signs that no key has")
    return key


class Endpoint:
    """Sends requests; to be entered in a running event loop.

    Raises:
        MissingExtraError, ConfigError: see `library` and `key_of`.
    """

    def __init__(self, s: Server):
        self._openai = library()
        self._s, self._key = s, key_of(s)
        self._secrets = _secrets(self._key, address(s))
        self._client: Any = None

    async def __aenter__(self) -> "Endpoint":
        openai, pace = self._openai, self._s.pace
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        connect = min(_CONNECT_S, pace.timeout_s)
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=address(self._s),
            timeout=openai.Timeout(pace.timeout_s, connect=connect),
            max_retries=0,
        )
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._client.close()

    async def send(self, request: Request) -> Reply:
        """One attempt. Failures of the endpoint and of the network are returned, not raised."""
        body = dict(request.body)
        model, messages = body.pop("model"), body.pop("messages")
        create = self._client.chat.completions.with_raw_response.create

        async def call() -> tuple[int, str]:
            found = await create(model=model, messages=messages, extra_body=body)
            return found.status_code, found.text

        return await self._attempt(call)

    async def post(self, path: str, body: dict[str, Any]) -> Reply:
        """One attempt at a path below the address that the package has no method for."""

        async def call() -> tuple[int, str]:
            return _OK, await self._client.post(path, cast_to=str, body=body)

        return await self._attempt(call)

    async def _attempt(self, call: Callable[[], Awaitable[tuple[int, str]]]) -> Reply:
        openai, begun = self._openai, time.time()
        try:
            # The package's own limit starts again with each piece that arrives.
            async with asyncio.timeout(self._s.pace.timeout_s):
                status, text = await call()
        except openai.APIStatusError as error:
            code = error.body.get("code") if isinstance(error.body, dict) else None
            kind = failures.of_status(error.status_code, str(code or ""))
            wait = retry.retry_after(error.response.headers, time.time())
            said = "" if kind == "auth" else self._hidden(str(error))[:_MESSAGE]
            return self._failed(begun, error.status_code, kind, wait, said)
        except (openai.APITimeoutError, TimeoutError):
            return self._failed(begun, None, "timeout")
        except openai.APIConnectionError as error:
            said = "" if error.__cause__ is None else self._hidden(str(error.__cause__))[:_MESSAGE]
            return self._failed(begun, None, "connection", None, said)
        raw = self._hidden(text)
        attempt = Attempt(begun, time.time(), status, failures.OK)
        return Reply(attempt, raw)

    def _failed(
        self,
        begun: float,
        status: int | None,
        kind: str,
        wait: float | None = None,
        message: str = "",
    ) -> Reply:
        return Reply(Attempt(begun, time.time(), status, kind, wait, message))

    def _hidden(self, text: str) -> str:
        """The text without the key and the address's secrets, which a server may repeat."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def _secrets(key: str, url: str) -> list[str]:
    """What must not be kept: the key, an address's user and password, values of its query."""
    parts = urllib.parse.urlsplit(url)
    values = [value for _, value in urllib.parse.parse_qsl(parts.query)]
    found = [parts.username or "", parts.password or "", parts.query, *values]
    found = [key, *(one for one in found if len(one) >= _SECRET_LENGTH)]
    return sorted(filter(None, found), key=len, reverse=True)
