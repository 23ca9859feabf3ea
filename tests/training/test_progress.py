"""Progress: plain lines without a terminal, a bar on one, silence elsewhere."""

import io

import pytest
from rich.console import Console

from distill_jax.training.progress import Progress, clock


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("distill_jax.training.progress.time.monotonic", lambda: self.now)


def test_plain_lines_with_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, out = Clock(monkeypatch), io.StringIO()
    with Progress("rl", 100, start=40, console=Console(file=out)) as progress:
        for done in range(41, 61):
            watch.now += 1.0
            progress.update(done, {"reward": 0.5})
    # 10 s between lines; 10 steps in 10 s is 1 step/s, 50 left is 50 s; then 40 left.
    assert out.getvalue().splitlines() == [
        "rl 50/100 50% 1 steps/s · 0:50 left · reward 0.5",
        "rl 60/100 60% 1 steps/s · 0:40 left · reward 0.5",
        "rl 60/100 60% 1 steps/s · 0:40 left",
    ]


def test_the_last_line_says_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, out = Clock(monkeypatch), io.StringIO()
    with Progress("sft", 4, console=Console(file=out), unit="batches") as progress:
        watch.now += 2.0
        progress.update(4)
    assert out.getvalue() == "sft 4/4 100% 2 batches/s · took 0:02\n"


def test_the_first_step_with_its_compilation_is_left_out_of_the_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, out = Clock(monkeypatch), io.StringIO()
    with Progress("rl", 101, console=Console(file=out)) as progress:
        watch.now += 9.0
        progress.update(1)
        watch.now += 2.0
        progress.update(11)
    # 10 steps in 2 s, 90 to go.
    assert out.getvalue().splitlines()[0] == "rl 11/101 10% 5 steps/s · 0:18 left"


def test_high_speeds_are_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, out = Clock(monkeypatch), io.StringIO()
    with Progress("count", 12345, console=Console(file=out)) as progress:
        watch.now += 1.0
        progress.update(12345)
    assert out.getvalue() == "count 12345/12345 100% 12,345 steps/s · took 0:01\n"


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with Progress("rl", 3, console=console) as progress:
        progress.update(2, {"reward": 0.25})
        progress.update(3, {"reward": 0.75})
    text = out.getvalue()
    assert "3/3" in text and "100%" in text and "reward 0.75" in text


def test_nothing_to_do_and_close_twice() -> None:
    out = io.StringIO()
    progress = Progress("rl", 0, console=Console(file=out))
    progress.close()
    progress.close()
    assert out.getvalue() == "rl 0/0 0%\n"


def test_other_processes_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_index", lambda: 1)
    out = io.StringIO()
    with Progress("rl", 2, seconds=0, console=Console(file=out)) as progress:
        progress.update(1)
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01"), (-1, "0:00")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
