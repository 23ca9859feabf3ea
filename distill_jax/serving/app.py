"""The endpoint: routes, limits, key, and the answers to requests that are wrong."""

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from distill_jax.serving import answers, bodies, wanted
from distill_jax.serving.engine import ClosedError, Engine, QueueFullError, TooManyError
from distill_jax.serving.requests import EngineFailedError, Jobs
from distill_jax.serving.served import Served
from distill_jax.serving.wanted import RefusedError

# Seconds that a body may take to arrive.
_BODY_S = 30.0
_DONE = b"data: [DONE]\n\n"
_BUSY = "the queue is full; ask again later"
_ENDED = "the server is shutting down"
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Door:
    """What stands between clients and the engine.

    Attributes:
        served, engine: the model and its engine.
        key: that clients must send; "" for none.
        body_bytes: of the largest body.
    """

    served: Served
    engine: Engine
    key: str = ""
    body_bytes: int = 2_000_000

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/v1/models", self._guarded(self.models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._guarded(self.models), methods=["GET"]),
            Route("/v1/chat/completions", self._guarded(self.chat), methods=["POST"]),
            Route("/v1/completions", self._guarded(self.completions), methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {HTTPException: _http_error, Exception: _defect}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def health(self, request: Request) -> Response:
        """200 while the engine runs; no key is asked for."""
        del request
        failed = self.engine.failed
        found = {"status": "failed" if failed else "ok", "waiting": self.engine.waiting,
                 "running": self.engine.running}  # fmt: skip
        return JSONResponse(found, 503 if failed else 200)

    async def models(self, request: Request) -> Response:
        """The one model, listed or by its name."""
        one = {"id": self.served.name, "object": "model", "created": 0, "owned_by": "distill_jax",
               "max_model_len": self.served.prompt + self.served.new}  # fmt: skip
        name = request.path_params.get("name")
        if name is None:
            return JSONResponse({"object": "list", "data": [one]})
        self._check_model({"model": name})
        return JSONResponse(one)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await self._body(request)
        asked = wanted.chat(body, self.served.new, self.served.new)
        jobs = Jobs(self.engine)
        made = answers.Chat(self.served, jobs, asked)
        return await self._answer(request, jobs, made, asked.sampling.stream)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await self._body(request)
        asked = wanted.completion(body, self.served.new)
        jobs = Jobs(self.engine)
        made = answers.Completions(self.served, jobs, asked)
        return await self._answer(request, jobs, made, asked.sampling.stream)

    async def _answer(
        self, request: Request, jobs: Jobs, made: answers.Answer, stream: bool
    ) -> Response:
        jobs.submit()
        if stream:
            return _Streamed(_events(made), jobs)
        try:
            found = await _while_there(request, made.whole())
        finally:
            jobs.cancel()
        # Nobody reads the answer to a client that has gone.
        return Response(status_code=499) if found is None else JSONResponse(found)

    async def _body(self, request: Request) -> dict[str, Any]:
        """The body, of the model that is served; RefusedError where it is too large or wrong."""
        said = request.headers.get("content-length", "")
        too_large = RefusedError(f"the body has more than {self.body_bytes} bytes", status=413)
        if said.isdecimal() and int(said) > self.body_bytes:
            raise too_large
        raw = bytearray()
        try:
            async with asyncio.timeout(_BODY_S):
                async for chunk in request.stream():
                    raw += chunk
                    if len(raw) > self.body_bytes:
                        raise too_large
        except TimeoutError as error:
            raise RefusedError(f"no body within {_BODY_S:g} seconds", status=408) from error
        body = wanted.parse(bytes(raw))
        self._check_model(body)
        return body

    def _check_model(self, body: dict[str, Any]) -> None:
        name = body.get("model")
        if name is None:
            raise RefusedError(
                f"the request has no field model; wanted: {self.served.name!r}",
                status=404,
                code="model_not_found",
            )
        if name != self.served.name:
            raise RefusedError(
                f"no model {name!r} here; this server has {self.served.name!r}",
                status=404,
                code="model_not_found",
            )

    def _guarded(self, handler: Handler) -> Handler:
        """The handler behind the key; what it raises on purpose becomes an answer."""

        async def guarded(request: Request) -> Response:
            if self.key and not self._has_key(request):
                return _error("no such key", 401, headers={"www-authenticate": "Bearer"})
            try:
                return await handler(request)
            except RefusedError as error:
                return _error(error.message, error.status, error.code)
            except TooManyError as error:
                most = f"the queue of this server holds {self.engine.queue}"
                return _error(f"{error} completions in one request: {most}", 400)
            except QueueFullError:
                return _error(_BUSY, 429, headers={"retry-after": "1"})
            except (ClosedError, EngineFailedError):
                return _error(_ENDED, 503)
            except ClientDisconnect:
                return Response(status_code=499)

        return guarded

    def _has_key(self, request: Request) -> bool:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self.key.encode())
        return kind.lower() == "bearer" and same


class _Streamed(StreamingResponse):
    """Server-sent events; frees what the request has when it ends in whatever way."""

    def __init__(self, content: AsyncIterator[bytes], jobs: Jobs):
        super().__init__(content, media_type="text/event-stream")
        self.headers["cache-control"] = "no-cache"
        self._jobs = jobs

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._jobs.cancel()


async def _events(made: answers.Answer) -> AsyncIterator[bytes]:
    try:
        async for body in made.chunks():
            yield f"data: {json.dumps(body, allow_nan=False)}\n\n".encode()
    except EngineFailedError:
        yield f"data: {json.dumps(bodies.error(_ENDED, 503))}\n\n".encode()
        return
    yield _DONE


async def _while_there(request: Request, work: Awaitable[Any]) -> Any:
    """What the work gives; None where the client hangs up before."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, gone):
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError, EngineFailedError):
                await one


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(
    message: str, status: int, code: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    return JSONResponse(bodies.error(message, status, code), status, headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Paths and methods that are not there."""
    said = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers) if error.headers else None
    return _error(said, error.status_code, headers=headers)


async def _defect(request: Request, error: Exception) -> Response:
    """What nobody expected; the server's log has the traceback, the client has none."""
    del request, error
    return _error("internal error", 500)
