"""Buying that is stopped, killed or out of disk space goes on without buying twice."""

import errno
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_jax.synthesis.journal import RESPONSES, Lines
from distill_jax.synthesis.settings import (
    PaceSettings,
)
from tests.synthesis.buyer import (
    SCENES,
    SECRET,
    WANTED,
    Killed,
    buy,
    killing,
    outcomes,
    scenes,
    settings,
)
from tests.synthesis.scripted import Say, question, serving


def test_asked_to_stop_it_keeps_what_is_in_flight(tmp_path: Path) -> None:
    with serving(lambda body, before: Say("fine", delay_s=0.3)) as server:
        s = settings(server, pace=PaceSettings(concurrency=3))
        buyer = buy(tmp_path, s, list("abcdefgh"), stop=lambda: sum(server.asked.values()) >= 3)
        assert buyer.ended == "stopped" and 3 <= buyer.done < 8
        kinds = Counter(kind for kind, _ in outcomes(buyer))
        assert kinds == {"ok": sum(server.asked.values()), "missing": 8 - buyer.done}
        assert buy(tmp_path, s, list("abcdefgh")).done == 8 and set(server.sold.values()) == {1}


def few() -> list[str]:
    return ["plain", "limited", "empty once", "refused"]


def test_killed_after_any_record_it_goes_on_to_the_same_answers(tmp_path: Path) -> None:
    expected = [one for name, one in zip(SCENES, WANTED, strict=True) if name in few()]
    for number in range(1, 20):
        directory = tmp_path / str(number)
        with serving(scenes) as server, pytest.MonkeyPatch.context() as patch:
            s = settings(server, pace=PaceSettings(concurrency=1))
            killing(patch, number, 1.0)
            try:
                buy(directory, s, few())
            except Killed:
                patch.undo()
                patch.setenv("OPENAI_API_KEY", SECRET)
                buyer = buy(directory, s, few())
                assert outcomes(buyer) == expected
                # Of "empty once" the first answer is of no use.
                sold = {question(json.loads(raw)): count for raw, count in server.sold.items()}
                assert sold == {
                    "plain": 1, "limited": 1, "empty once": 2, "refused": 0,
                }  # fmt: skip
            else:
                break
    assert number == 11  # 2 + 3 + 4 + 1 records: each had its turn


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_killed_within_a_record_it_buys_that_one_again(tmp_path: Path, share: float) -> None:
    # Writes 1 and 8 are answers, which are lost and asked for again; 2 is an attempt's record.
    for number, asked in ((1, 7), (2, 6), (8, 7)):
        directory = tmp_path / str(number)
        with serving(scenes) as server, pytest.MonkeyPatch.context() as patch:
            s = settings(server, pace=PaceSettings(concurrency=1))
            killing(patch, number, share)
            with pytest.raises(Killed):
                buy(directory, s, few())
            patch.undo()
            patch.setenv("OPENAI_API_KEY", SECRET)
            buyer = buy(directory, s, few())
            assert [kind for kind, _ in outcomes(buyer)].count("ok") == 3
            assert sum(server.asked.values()) == asked


def test_a_full_disk_ends_it_and_loses_no_other_answer(tmp_path: Path) -> None:
    real = Lines.append
    with serving(lambda body, before: Say("fine", delay_s=0.2)) as server:
        s = settings(server, pace=PaceSettings(concurrency=4))
        with pytest.MonkeyPatch.context() as patch:
            writes: list[int] = []

            def append(self: Lines, row: Any) -> None:
                writes.append(1)
                if len(writes) == 3:
                    raise OSError(errno.ENOSPC, "No space left on device")
                real(self, row)

            patch.setattr(Lines, "append", append)
            with pytest.raises(OSError, match="No space left"):
                buy(tmp_path, s, list("abcdefgh"))
        kept = len((tmp_path / RESPONSES).read_text().splitlines())
        assert kept == sum(server.asked.values()) - 1 >= 3
        assert outcomes(buy(tmp_path, s, list("abcdefgh"))) == [("ok", "fine")] * 8
        assert sorted(server.sold.values()) == [1] * 7 + [2]
