"""A server in this process, on loopback, of a small random model; and plain HTTP to it."""

import asyncio
import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from distill_jax.serving import server
from distill_jax.serving.engine import Engine
from distill_jax.serving.served import Served
from distill_jax.serving.slots import Decoding, Slots


class Running(NamedTuple):
    port: int
    engine: Engine
    served: Served

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.contextmanager
def running(served: Served, **how: Any) -> Iterator[Running]:
    """A server that ends with the block; how: of ServeSettings."""
    settings = server.ServeSettings(**{"port": 0, "rows": 4, **how})
    with contextlib.closing(server.bound(settings.host, 0)) as listening:
        engine = server.engine_of(served, settings)
        made = server._Server(served, engine, settings, listening, lambda text: None)
        engine.start()
        thread = threading.Thread(target=lambda: asyncio.run(made.serve(sockets=[listening])))
        thread.start()
        try:
            wait(lambda: made.started)
            yield Running(listening.getsockname()[1], engine, served)
        finally:
            made.should_exit = True
            thread.join()
            engine.close()


def wait(reached: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


class Reply(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


def ask(
    server: Running,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request; body: bytes as they are, or what is sent as JSON."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    with contextlib.closing(connection):
        connection.request(method or ("GET" if raw is None else "POST"), path, raw, headers or {})
        response = connection.getresponse()
        text = response.read().decode()
    shown = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, json.loads(text) if text else None, shown)


def drawn(served: Served, prompt: list[int], hows: list[Decoding], room: int) -> list[list[int]]:
    """What rows of their own draw, without a server."""
    slots = Slots(
        served.model, served.weights, rows=len(hows), prompt=served.prompt, new=32, steps=8
    )
    slots.begin(range(len(hows)), prompt, hows)
    parts = [slots.segment()[0] for _ in range(-(-room // 8))]
    rows = np.concatenate(parts, axis=1)[:, :room].tolist()
    ends = set(served.ends)
    return [[*itertools.takewhile(lambda t: t not in ends, row)] for row in rows]


def decoded(served: Served, tokens: list[int]) -> str:
    return served.tokenizer.decode(tokens, skip_special_tokens=True)
