"""The process that serves: a socket, an engine, and an end that lets requests finish."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

import uvicorn

from distill_jax.core.errors import EXIT_INTERRUPTED, ConfigError
from distill_jax.serving.app import Door
from distill_jax.serving.engine import Engine
from distill_jax.serving.scoring import Reader
from distill_jax.serving.served import Served
from distill_jax.serving.slots import Slots
from distill_jax.serving.wanted import TOP

# Tokens of a segment: how long a request waits for a row, and how far apart the parts of a stream.
_STEPS = 8
_BACKLOG = 256
_ENGINE_FAILED = 1


class ServeSettings(NamedTuple):
    """host, port: where; 0 is any free port. rows: completions drawn at a time. queue: requests
    that may wait. key: that clients must send, "" for none. drain_s: most seconds that requests in
    flight are given after SIGTERM."""

    host: str = "127.0.0.1"
    port: int = 8000
    rows: int = 8
    queue: int = 256
    key: str = ""
    drain_s: int = 300


def engine_of(served: Served, settings: ServeSettings) -> Engine:
    """The engine of a model, not started; the programs that decode are compiled."""
    slots = Slots(
        served.model, served.weights, rows=settings.rows, prompt=served.prompt, new=served.new,
        steps=_STEPS,
    )  # fmt: skip
    longest = served.prompt + served.new
    reader = Reader(served.model, served.weights, longest=longest, top=TOP)
    slots.warm_up()
    return Engine(slots, reader, ends=served.ends, queue=settings.queue)


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; ConfigError where there can be none."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot listen at {host}:{port}: {said}",
            wanted="an address of this machine and a free port",
            fix="give another --host or --port",
        ) from error


def run(served: Served, settings: ServeSettings, say: Callable[[str], None]) -> int:
    """Serves until SIGTERM or Ctrl-C; returns the exit code, 0 or 130, 1 where the engine failed.

    Raises:
        ConfigError: the address cannot be had.
    """
    with contextlib.closing(bound(settings.host, settings.port)) as listening:
        engine = engine_of(served, settings)
        server = _Server(served, engine, settings, listening, say)
        engine.start()
        try:
            asyncio.run(server.until_asked())
        finally:
            engine.close()
        return server.exit_code


class _Server(uvicorn.Server):
    """uvicorn's, whose end is ours: it would end the process by the signal."""

    def __init__(
        self,
        served: Served,
        engine: Engine,
        settings: ServeSettings,
        listening: socket.socket,
        say: Callable[[str], None],
    ):
        app = Door(served, engine, settings.key).app()
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", loop="asyncio", access_log=False,
            log_level="warning", server_header=False,
            timeout_graceful_shutdown=settings.drain_s,
        )  # fmt: skip
        super().__init__(config)
        self._listening, self._say, self._name = listening, say, served.name
        self._engine, self.exit_code = engine, 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to `until_asked`."""
        yield

    async def until_asked(self) -> None:
        """Serves until a signal or the engine's failure."""
        loop = asyncio.get_running_loop()

        def failed() -> None:
            loop.call_soon_threadsafe(self._end, _ENGINE_FAILED)

        self._engine.on_failure = failed
        loop.add_signal_handler(signal.SIGTERM, self._end, 0)
        loop.add_signal_handler(signal.SIGINT, self._end, EXIT_INTERRUPTED)
        await self.serve(sockets=[self._listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then says where it is."""
        await super().startup(sockets)
        host, port = self._listening.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        self._say(f"serving {self._name} at http://{host}:{port}/v1")

    def _end(self, code: int) -> None:
        # A second request to stop does not wait for those in flight.
        self.force_exit = self.should_exit
        self.exit_code = self.exit_code or code
        if not self.should_exit:
            self._say(
                f"stopping: {self._engine.running} running answers and those that wait end first"
            )
        self.should_exit = True
