"""The thread that computes: takes requests from a queue, batches them, and tells what came out.

Between two segments of decoding it reads a batch of rows to score and lets waiting requests begin
in free rows; cancelled ones leave. So a request waits for others by a segment, not by an answer.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from distill_jax.serving.scoring import Reader, Scores
from distill_jax.serving.slots import Decoding, Slots

STOP, LENGTH = "stop", "length"


class Drawn(NamedTuple):
    """Tokens since the last such event with log-probabilities, the end token included; reason:
    STOP or LENGTH where the completion has ended."""

    tokens: list[int]
    logp: list[float]
    reason: str | None = None


class Failed(NamedTuple):
    """The engine has ended before the request."""


Event = Drawn | Scores | Failed


@dataclass
class Draw:
    """A completion to draw; put is called from the engine's thread."""

    prompt: Sequence[int]
    room: int
    how: Decoding
    put: Callable[[Event], None]
    cancelled: bool = False


@dataclass
class Read:
    """Tokens to score; tops: with the most probable tokens at each place."""

    tokens: Sequence[int]
    tops: bool
    how: Decoding
    put: Callable[[Event], None]
    cancelled: bool = False


class QueueFullError(Exception):
    """No room for more waiting requests."""


class TooManyError(Exception):
    """More completions in one request than the queue holds; asking again does not help."""


class ClosedError(Exception):
    """The engine takes no requests any more."""


@dataclass
class _Row:
    job: Draw
    count: int = 0


@dataclass
class Counts:
    """What the engine has done: passes over rows to score, segments, requests, rows in use."""

    reads: int = 0
    segments: int = 0
    begun: int = 0
    freed: int = 0
    most_rows: int = 0
    rows_read: list[int] = field(default_factory=list)


class Engine:
    """Computes in its own thread from `start` to `close`.

    Args:
        slots, reader: of one model.
        ends: tokens that end a completion.
        queue: most requests that wait.
        on_failure: called where the thread ends by an exception.
    """

    def __init__(
        self,
        slots: Slots,
        reader: Reader,
        *,
        ends: Sequence[int],
        queue: int,
        on_failure: Callable[[], None] = lambda: None,
    ):
        self.slots, self.reader, self.ends, self.queue = slots, reader, frozenset(ends), queue
        self.counts, self.failed, self.on_failure = Counts(), False, on_failure
        self._draws: deque[Draw] = deque()
        self._reads: deque[Read] = deque()
        self._reading: list[Read] = []
        self._rows: dict[int, _Row] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; requests that are not done get `Failed`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def submit(self, jobs: Sequence[Draw | Read]) -> None:
        """Adds requests, all or none.

        Raises:
            TooManyError: more than ever may wait.
            QueueFullError: too many would wait.
            ClosedError: the engine has ended.
        """
        with self._changed:
            if self._closed or self.failed:
                raise ClosedError
            if len(jobs) > self.queue:
                raise TooManyError(len(jobs))
            if self.waiting + len(jobs) > self.queue:
                raise QueueFullError
            for job in jobs:
                if isinstance(job, Draw):
                    self._draws.append(job)
                else:
                    self._reads.append(job)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        with self._changed:
            return sum(not job.cancelled for queue in (self._draws, self._reads) for job in queue)

    @property
    def running(self) -> int:
        """Rows in use."""
        return len(self._rows)

    def _run(self) -> None:
        done = False
        try:
            while self._wait():
                self._read()
                self._begin()
                self._segment()
            done = True
        finally:
            with self._changed:
                self.failed = not done
                left: list[Draw | Read] = [
                    *self._draws,
                    *self._reads,
                    *self._reading,
                    *(row.job for row in self._rows.values()),
                ]
                self._draws.clear()
                self._reads.clear()
                self._rows.clear()
            for job in left:
                job.put(Failed())
            if not done:
                self.on_failure()

    def _wait(self) -> bool:
        """Waits for work; False where the engine is closed."""
        with self._changed:
            while not (self._closed or self._draws or self._reads or self._rows):
                self._changed.wait()
            return not self._closed

    def _read(self) -> None:
        """Reads one batch of rows of one padded width and kind, the longest waiting first."""
        batch: list[Read] = []
        with self._changed:
            waiting = [job for job in self._reads if not job.cancelled]
            if waiting:
                kind = self._kind(waiting[0])
                batch = [job for job in waiting if self._kind(job) == kind][: self.reader.rows]
            chosen = set(map(id, batch))
            self._reads = deque(job for job in waiting if id(job) not in chosen)
            self._reading = batch
        if not batch:
            return
        self.counts.reads += 1
        self.counts.rows_read.append(len(batch))
        del self.counts.rows_read[:-100]
        hows = [job.how for job in batch]
        rows = [job.tokens for job in batch]
        for job, scores in zip(
            batch, self.reader.read(rows, hows, tops=batch[0].tops), strict=True
        ):
            job.put(scores)
        self._reading = []

    def _kind(self, job: Read) -> tuple[int, bool]:
        return min(w for w in self.reader.widths if w >= len(job.tokens)), job.tops

    def _begin(self) -> None:
        """Lets waiting completions begin; those of one prompt are prefilled once."""
        free = self.slots.free
        while free:
            with self._changed:
                while self._draws and self._draws[0].cancelled:
                    self._draws.popleft()
                group: list[Draw] = []
                while (
                    self._draws
                    and len(group) < len(free)
                    and (not group or self._draws[0].prompt is group[0].prompt)
                ):
                    group.append(self._draws.popleft())
                rows = free[: len(group)]
                self._rows |= {row: _Row(job) for row, job in zip(rows, group, strict=True)}
            if not group:
                return
            free = free[len(group) :]
            self.slots.begin(rows, group[0].prompt, [job.how for job in group])
            self.counts.begun += len(group)
            self.counts.most_rows = max(self.counts.most_rows, len(self._rows))

    def _segment(self) -> None:
        """Draws a segment, and passes on what each request has of it."""
        for row in [row for row, one in self._rows.items() if one.job.cancelled]:
            self._free(row)
        if not self._rows:
            return
        tokens_BN, logp_BN = self.slots.segment()
        self.counts.segments += 1
        for row, one in list(self._rows.items()):
            event = self._taken(one, tokens_BN[row].tolist(), logp_BN[row].tolist())
            if event.reason is not None:
                self._free(row)
            one.job.put(event)

    def _taken(self, one: _Row, tokens: list[int], logp: list[float]) -> Drawn:
        """The part of a row's segment that belongs to its completion."""
        left = one.job.room - one.count
        end = next((i + 1 for i, token in enumerate(tokens[:left]) if token in self.ends), None)
        count = min(left, len(tokens)) if end is None else end
        one.count += count
        reason = STOP if end is not None else LENGTH if one.count == one.job.room else None
        return Drawn(tokens[:count], logp[:count], reason)

    def _free(self, row: int) -> None:
        self.slots.end(row)
        with self._changed:
            del self._rows[row]
        self.counts.freed += 1
