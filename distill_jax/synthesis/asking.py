"""Asks a server for the log-probabilities of many rows: all of them, or an error."""

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from distill_jax.core.errors import EndpointError
from distill_jax.synthesis import client, retry, scores
from distill_jax.synthesis.client import Reply
from distill_jax.synthesis.pace import Bucket, Flight
from distill_jax.synthesis.score_settings import ScoreServerSettings
from distill_jax.synthesis.scores import Read, Row

# Seconds between two looks at the deadline and at whether to stop.
_TICK_S = 0.1

Post = Callable[[str, dict[str, Any]], Awaitable[Reply]]


class StoppedError(Exception):
    """Asked to stop while the server fails."""


class _Job(NamedTuple):
    due: float
    place: int
    tries: int


class Asker:
    """The requests of one server, batch after batch.

    Args:
        post: sends one request, as `client.Endpoint.post`.
        s: what is asked, retries, pace, deadline.
        stop: whether to stop where the server fails.
        say: called with a line for people.
        jitter: uniform in [0, 1).

    Attributes:
        failed: attempts that failed so far.
    """

    def __init__(
        self,
        post: Post,
        s: ScoreServerSettings,
        *,
        stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda line: None,
        jitter: Callable[[], float] = random.random,
    ):
        self._post, self._s, self._api = post, s, scores.API[s.api]
        self._stop, self._say, self._jitter = stop, say, jitter
        now = time.monotonic()
        self._flight, self._paused, self.failed = Flight(s.pace.concurrency), 0.0, 0
        self._requests = Bucket(s.pace.requests_per_minute, now)
        self._tokens = Bucket(s.pace.tokens_per_minute, now)
        self._failing = ""  # why, since the last answer

    async def ask(self, rows: Sequence[Row]) -> list[Read]:
        """What the server says of each row, all of kind ok.

        Raises:
            EndpointError: it refuses, answers about other tokens, or still fails after the last
                attempt or the deadline; no score is returned then.
            StoppedError: asked to stop while it fails.
        """
        deadline = time.monotonic() + self._s.deadline_s
        due = [_Job(0.0, place, 1) for place in range(len(rows))]
        found: dict[int, Read] = {}
        running: dict[asyncio.Future[Reply], tuple[_Job, float]] = {}
        try:
            while len(found) < len(rows):
                self._look(deadline, len(rows) - len(found))
                self._start(rows, due, running)
                if not running:
                    await asyncio.sleep(_TICK_S)
                    continue
                await asyncio.wait(running, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    job, sent = running.pop(task)
                    answer = self._take(rows[job.place], job, sent, task.result(), due)
                    if answer is not None:
                        found[job.place] = answer
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return [found[place] for place in range(len(rows))]

    def _look(self, deadline: float, missing: int) -> None:
        if self._failing and self._stop():
            raise StoppedError(self._failing)
        if time.monotonic() > deadline:
            why = f", the last failure: {self._failing}" if self._failing else ""
            raise self._error(
                f"{missing} scores are missing after deadline_s={self._s.deadline_s:g}{why}"
            )

    def _start(
        self, rows: Sequence[Row], due: list[_Job], running: dict[Any, tuple[_Job, float]]
    ) -> None:
        """Sends what may be sent now."""
        while due and len(running) < self._flight.limit:
            now, row = time.monotonic(), rows[due[0].place]
            size = len(row.prompt) + len(row.response)
            wait = max(self._paused, due[0].due) - now
            wait = max(wait, self._requests.wait(1, now), self._tokens.wait(size, now))
            if wait > 0:
                return
            job = heapq.heappop(due)
            self._requests.book(1, now)
            self._tokens.book(size, now)
            body = self._api.body(self._s.model, row)
            running[asyncio.ensure_future(self._post(self._api.path, body))] = (job, now)

    def _take(self, row: Row, job: _Job, sent: float, reply: Reply, due: list[_Job]) -> Read | None:
        """The answer; None where the row is to be asked again."""
        attempt, now = reply.attempt, time.monotonic()
        read = Read(attempt.kind) if reply.raw is None else scores.read(self._api, reply.raw, row)
        if read.kind in (scores.OTHER_TOKENS, scores.UNSUPPORTED):
            raise self._error(
                "it answered about other tokens than it was asked about"
                if read.kind == scores.OTHER_TOKENS
                else "its answer holds no log-probabilities of the prompt's tokens",
                fix="set teacher.endpoint.api and base_url to the server's; it must take token ids "
                "and have the student's tokenizer",
            )
        step = retry.after(
            read.kind, attempt.status, attempt.retry_after, tries=job.tries, empties=0,
            longer=False, jitter=self._jitter(), s=self._s.retry,
        )  # fmt: skip
        self._flight.note(step.flight, sent=sent, now=now)
        if step.action == retry.KEEP:
            if self._failing:
                self._say("the teacher's server answers again")
            self._failing = ""
            return read
        why = f"{read.kind}: {attempt.message or f'status {attempt.status}'}"
        if step.action != retry.RETRY:
            raise self._error(f"{why}, after {job.tries} attempts")
        if not self._failing:
            self._say(f"the teacher's server fails ({why}); asked again for up to "
                      f"{self._s.deadline_s:g} s")  # fmt: skip
        self._failing, self.failed = why, self.failed + 1
        self._paused = max(self._paused, now + step.pause_s)
        heapq.heappush(due, _Job(now + step.wait_s, job.place, job.tries + 1))
        return None

    def _error(self, what: str, fix: str = "") -> EndpointError:
        return EndpointError(
            f"teacher's server {client.label(self._s)}: {what}",
            fix=fix
            or "start the server, then the same command again: it goes on from the last "
            "checkpoint; nothing of this step was trained on",
        )
