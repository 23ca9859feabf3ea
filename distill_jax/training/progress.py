"""Progress of long work: a bar with speed and time left, or plain lines without a terminal."""

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress


class Progress(contextlib.AbstractContextManager["Progress"]):
    """Shows how far a piece of work is; only process 0 shows anything.

    On a terminal a bar is redrawn in place. Elsewhere (a file, CI) a plain line is printed at most
    every `seconds`, and at the end.

    Args:
        name: what is done, e.g. "rl".
        total: steps in all.
        start: steps done before (a resumed run); they do not count towards the speed.
        unit: what is counted, e.g. "steps".
        seconds: least time between plain lines.
        console: rich console; standard error when None, so that standard output stays clean.
    """

    def __init__(
        self,
        name: str,
        total: int,
        *,
        start: int = 0,
        unit: str = "steps",
        seconds: float = 10.0,
        console: Console | None = None,
    ):
        self.name, self.total, self.unit, self.seconds = name, total, unit, seconds
        self.console = console or Console(file=sys.stderr)
        self.active = jax.process_index() == 0
        self._start = self._done = start
        self._begun = self._last_line = time.monotonic()
        # Steps and time after the first report: that one holds the compilation.
        self._first: tuple[int, float] | None = None
        self._bar: RichProgress | None = None
        if self.active and self.console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task(name, total=total, completed=start, note="")
            self._bar.start()

    def update(self, done: int, figures: Mapping[str, Any] | None = None) -> None:
        """Reports that `done` steps are complete, those before `start` included.

        `figures` are a few numbers to show with it, e.g. {"loss": 1.2}.
        """
        if not self.active:
            return
        self._done = done
        if self._first is None:
            self._first = done, time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=self._note(figures))
        elif done < self.total and time.monotonic() - self._last_line >= self.seconds:
            self._line(figures)

    def close(self) -> None:
        """Ends the display; a plain last line says how long it took."""
        if not self.active:
            return
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        else:
            self._line(None)
        self.active = False

    def _line(self, figures: Mapping[str, Any] | None) -> None:
        self._last_line = time.monotonic()
        share = 100 * self._done // max(self.total, 1)
        text = f"{self.name} {self._done}/{self.total} {share}% {self._note(figures)}"
        print(text.rstrip(), file=self.console.file, flush=True)

    def _note(self, figures: Mapping[str, Any] | None) -> str:
        now = time.monotonic()
        spent = now - self._begun
        steps, seconds = self._done - self._start, spent
        if self._first is not None and self._done > self._first[0]:
            steps, seconds = self._done - self._first[0], now - self._first[1]
        parts = []
        if steps > 0 and seconds > 0:
            rate = steps / seconds
            speed = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
            parts.append(f"{speed} {self.unit}/s")
            left = (self.total - self._done) / rate
            parts.append(f"{clock(left)} left" if left > 0 else f"took {clock(spent)}")
        parts += [f"{name} {float(value):.4g}" for name, value in (figures or {}).items()]
        return " · ".join(parts)

    def __exit__(self, *_: object) -> None:
        self.close()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class PartTimes:
    """Wall time of a step's parts on the host."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, name: str, work: Any = None) -> None:
        """The time since the last note belongs to `name`; waits for work that is given."""
        jax.block_until_ready(work)
        now = time.perf_counter()
        self.times[name] = now - self._last
        self._last = now
