"""Buys the answers that a journal lacks: one loop over a queue, requests in flight, and a clock."""

import asyncio
import heapq
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from distill_jax.synthesis import failures, retry, spending
from distill_jax.synthesis.client import Reply
from distill_jax.synthesis.failures import Response, Usage
from distill_jax.synthesis.journal import Attempt, Journal
from distill_jax.synthesis.pace import Bucket, Flight
from distill_jax.synthesis.requests import Request
from distill_jax.synthesis.retry import Step
from distill_jax.synthesis.settings import EndpointSettings
from distill_jax.synthesis.spending import Budget

# Seconds between two looks at whether to stop.
_TICK_S = 0.1
# How buying ends.
COMPLETE, STOPPED, SPENT, ABORTED = "complete", "stopped", "spent", "aborted"

Send = Callable[[Request], Awaitable[Reply]]


class Wanted(NamedTuple):
    """An answer to buy: its request, and the one with a larger limit; None: there is none."""

    request: Request
    longer: Request | None = None


class Outcome(NamedTuple):
    """What came of an answer: its class ("missing": never asked for), and its last response."""

    kind: str
    response: Response | None = None


class Job(NamedTuple):
    """A request that is due; place: number of its answer among those wanted."""

    place: int
    request: Request


class _Sent(NamedTuple):
    job: Job
    at: float
    booked: Usage


class Buyer:
    """The state of buying; what was bought before is counted first.

    Args:
        wanted: the answers, in the order in which they are asked for.
        journal: holds and takes them.
        s: retries, pace, budget.
        stop: whether to stop, asked ten times a second.
        tick: called with this buyer after each answer.
        say: called with a line for people.
        jitter: uniform in [0, 1).

    Attributes:
        budget: what these answers have cost, before and now.
        done: answers that need nothing more.
        failed: attempts of this start that failed, by class.
        ended: one of COMPLETE, STOPPED, SPENT, ABORTED; "" while it goes on.
        why: reason of an abort.
    """

    def __init__(
        self,
        wanted: Sequence[Wanted],
        journal: Journal,
        s: EndpointSettings,
        *,
        stop: Callable[[], bool] = lambda: False,
        tick: Callable[["Buyer"], None] = lambda buyer: None,
        say: Callable[[str], None] = lambda line: None,
        jitter: Callable[[], float] = random.random,
    ):
        self.journal, self.s, self.wanted = journal, s, wanted
        self._stop, self._tick, self._say, self._jitter = stop, tick, say, jitter
        self.budget = Budget(s.budget)
        self.failed: Counter[str] = Counter()
        self.ended, self.why = "", ""
        self._given_up = 0  # in a row
        due = [self._due(place) for place in range(len(wanted))]
        # Two problems with one question share their requests.
        self._fresh = deque({job.request.key: job for job in due if job is not None}.values())
        self._delayed: list[tuple[float, Job]] = []
        self.done = len(wanted) - len(self._fresh)
        for request in {r.key: r for one in wanted for r in one if r is not None}.values():
            for response in journal.responses(request.key):
                self._spend(request, response)

    async def buy(self, send: Send) -> None:
        """Buys until all is bought, or something ends it; what is in flight then is awaited.

        Raises:
            OSError: an answer cannot be recorded, e.g. the disk is full.
        """
        pace, now = self.s.pace, time.monotonic()
        self._flight = Flight(pace.concurrency)
        self._requests = Bucket(pace.requests_per_minute, now)
        self._tokens = Bucket(pace.tokens_per_minute, now)
        self._paused = 0.0
        running: dict[asyncio.Future[Reply], _Sent] = {}
        unwritten: OSError | None = None
        while True:
            if not self.ended and self._stop():
                self.ended = STOPPED
            wait = self._start(send, running)
            if not running and (self.ended or not (self._fresh or self._delayed)):
                break
            if running:
                await asyncio.wait(running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(wait)
            for task in [task for task in running if task.done()]:
                try:
                    self._take(running.pop(task), task.result())
                except OSError as error:  # the others in flight may still find room
                    unwritten, self.ended = error, STOPPED
        if unwritten is not None:
            raise unwritten
        self.ended = self.ended or COMPLETE

    def outcome(self, place: int) -> Outcome:
        """What came of answer number `place`."""
        request, longer = self.wanted[place]
        for one in (longer, request):
            kinds, response = self.journal.history(one.key) if one is not None else ((), None)
            if kinds:
                return Outcome(kinds[-1], response)
        return Outcome("missing")

    def _start(self, send: Send, running: dict["asyncio.Future[Reply]", _Sent]) -> float:
        """Sends what may be sent now; returns the seconds until more may be."""
        while not self.ended and len(running) < self._flight.limit:
            now = time.monotonic()
            if self._delayed and self._delayed[0][0] <= now:
                job = self._delayed[0][1]
            elif self._fresh:
                job = self._fresh[0]
            elif self._delayed:
                return min(self._delayed[0][0] - now, _TICK_S)
            else:
                break
            booked = spending.estimate(job.request.messages, job.request.max_tokens)
            size = booked.input + booked.output
            wait = max(self._paused - now, self._requests.wait(1, now))
            wait = max(wait, self._tokens.wait(size, now))
            if wait > 0:
                return min(wait, _TICK_S)
            if not self.budget.allows(booked):
                if not running:  # nothing will be settled
                    self.ended = SPENT
                break
            if self._delayed and self._delayed[0][1] is job:
                heapq.heappop(self._delayed)
            else:
                self._fresh.popleft()
            self._requests.book(1, now)
            self._tokens.book(size, now)
            self.budget.book(booked)
            running[asyncio.ensure_future(send(job.request))] = _Sent(job, now, booked)
        return _TICK_S

    def _take(self, sent: _Sent, reply: Reply) -> None:
        """Records an attempt, then decides what follows."""
        job, now = sent.job, time.monotonic()
        self.budget.book(sent.booked, -1)
        key, used = job.request.key, 0
        response = self.journal.add(key, reply.attempt, reply.raw)
        if response is not None:
            used = self._spend(job.request, response)
        self._tokens.settle(sent.booked.input + sent.booked.output, used, now)
        kind = reply.attempt.kind if response is None else response.kind
        kinds = self.journal.history(key).kinds
        step = self._step(job, kinds, reply.attempt)
        self._flight.note(step.flight, sent=sent.at, now=now)
        if now + step.pause_s > max(self._paused, now):
            self._paused = now + step.pause_s
            self._say(f"the endpoint asks to wait: no request for {step.pause_s:.0f} s")
        if kind != failures.OK:
            self.failed[kind] += 1
        longer = self.wanted[job.place].longer
        if step.action == retry.ABORT:
            self._abort(f"{kind}: {reply.attempt.message or f'status {reply.attempt.status}'}")
        elif step.action == retry.RETRY:
            heapq.heappush(self._delayed, (now + step.wait_s, job))
        elif step.action == retry.LONGER and longer is not None:
            self._fresh.appendleft(Job(job.place, longer))
        else:
            self._finish(kind, reply.attempt)

    def _finish(self, kind: str, attempt: Attempt) -> None:
        """An answer needs nothing more."""
        self.done += 1
        answered = kind == failures.OK or kind in failures.ANSWERED
        self._given_up = 0 if answered else self._given_up + 1
        if self._given_up >= self.s.retry.abort_after:
            said = f", the last: {kind} {attempt.message}".rstrip()
            self._abort(f"{self._given_up} requests in a row were given up{said}")
        self._tick(self)

    def _abort(self, why: str) -> None:
        if self.ended != ABORTED:
            self.ended, self.why = ABORTED, why
            self.journal.abort(why)

    def _step(self, job: Job, kinds: Sequence[str], attempt: Attempt | None) -> Step:
        longer = self.wanted[job.place].longer
        return retry.after(
            kinds[-1],
            attempt.status if attempt else None,
            attempt.retry_after if attempt else None,
            tries=len(kinds),
            empties=kinds.count("empty"),
            longer=longer is not None and job.request.key != longer.key,
            jitter=self._jitter(),
            s=self.s.retry,
        )

    def _due(self, place: int) -> Job | None:
        """The request that an answer still needs, by what is known of it; None: it needs none."""
        request, longer = self.wanted[place]
        for job in (Job(place, request), *([Job(place, longer)] if longer is not None else [])):
            kinds = self.journal.history(job.request.key).kinds
            action = self._step(job, kinds, None).action if kinds else retry.RETRY
            if action in (retry.RETRY, retry.ABORT):
                return job
            if action != retry.LONGER:
                return None
        return None

    def _spend(self, request: Request, response: Response) -> int:
        """Counts a response that was paid for; returns its tokens."""
        used = response.usage or spending.of_text(request.messages, response.text)
        self.budget.spend(used, estimated=response.usage is None)
        return used.input + used.output
