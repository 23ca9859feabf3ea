"""Buying from a scripted server: each failure has its class and end; nothing is bought twice."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_jax.synthesis.journal import ATTEMPTS
from distill_jax.synthesis.settings import (
    PaceSettings,
)
from tests.synthesis.buyer import (
    CUT,
    FAST,
    OK,
    SCENES,
    SECRET,
    WANTED,
    attempts,
    buy,
    outcomes,
    scenes,
    settings,
)
from tests.synthesis.scripted import Say, question, serving


def test_every_failure_has_its_class_and_its_end(tmp_path: Path) -> None:
    with serving(scenes) as server:
        s = settings(server, pace=PaceSettings(timeout_s=0.7, concurrency=4))
        buyer = buy(tmp_path, s, list(SCENES))
        assert buyer.ended == "complete" and outcomes(buyer) == WANTED
        assert buyer.done == len(SCENES) and server.most <= 4
        kinds = Counter(row["class"] for row in attempts(tmp_path))
        assert kinds == {
            "ok": 8, "rate_limit": 1, "server": 5, "connection": 1, "malformed": 2, "timeout": 1,
            "length": 1, "content_filter": 1, "empty": 3, "invalid_request": 1,
        }  # fmt: skip
        (limited,) = [row for row in attempts(tmp_path) if row["class"] == "rate_limit"]
        again = [row for row in attempts(tmp_path) if row["key"] == limited["key"]][1]
        assert limited["retry_after"] == 0.05 and again["t_start"] >= limited["t_end"] + 0.049
        # 12 responses report 15 tokens; of three the tokens are estimated: ⌈8/3⌉+⌈4/3⌉ of "fine",
        # and ⌈9/3⌉ twice of "malformed".
        assert buyer.budget.tokens == 12 * 15 + 5 + 6 and buyer.budget.estimated == 3
        # A second start sends nothing, not even for what failed.
        count = sum(server.asked.values())
        assert buy(tmp_path, s, list(SCENES)).budget.tokens == buyer.budget.tokens
        assert sum(server.asked.values()) == count
        for headers in server.headers:
            assert headers.get("authorization", headers.get("Authorization")) == f"Bearer {SECRET}"


def test_cut_off_answers_are_asked_for_with_a_larger_limit_once(tmp_path: Path) -> None:
    limits: list[int] = []

    def script(body: dict[str, Any], before: int) -> Say:
        limits.append(body["max_tokens"])
        return OK if body["max_tokens"] == 20 and question(body) == "a" else CUT

    with serving(script) as server:
        s = settings(server, pace=PaceSettings(concurrency=1))
        assert outcomes(buy(tmp_path, s, ["a", "b"])) == [("length", "cut")] * 2
        longer = dataclasses.replace(s, longer=20)
        found = buy(tmp_path, longer, ["a", "b"])
        assert outcomes(found) == [("ok", "fine"), ("length", "cut")] and limits == [8, 8, 20, 20]
        assert found.budget.tokens == 4 * 15
        buy(tmp_path, longer, ["a", "b"])
        assert limits == [8, 8, 20, 20]


def test_a_long_retry_after_pauses_everything(tmp_path: Path) -> None:
    def script(body: dict[str, Any], before: int) -> Say:
        if question(body) == "a" and not before:
            return Say(status=429, headers={"retry-after-ms": "400"})
        return OK

    retry, said = dataclasses.replace(FAST, longest_retry_after_s=0.1), list[str]()
    with serving(script) as server:
        s = settings(server, retry=retry, pace=PaceSettings(concurrency=1))
        found = buy(tmp_path, s, ["a", "b", "c"], say=said.append)
        assert outcomes(found) == [("ok", "fine")] * 3
        assert said == ["the endpoint asks to wait: no request for 0 s"]
    refused, *others = attempts(tmp_path)
    assert min(row["t_start"] for row in others) >= refused["t_end"] + 0.399


def test_an_answer_that_trickles_in_is_late_too(tmp_path: Path) -> None:
    say = Say("fine", pieces=10, delay_s=0.2)  # each piece comes in time, the last after 2 s
    with serving(lambda body, before: OK if before else say) as server:
        s = settings(server, pace=PaceSettings(timeout_s=0.8))
        assert outcomes(buy(tmp_path, s, ["a"])) == [("ok", "fine")]
    assert [row["class"] for row in attempts(tmp_path)] == ["timeout", "ok"]


def test_failures_in_a_row_abort_and_the_same_command_goes_on(tmp_path: Path) -> None:
    down = True

    def script(body: dict[str, Any], before: int) -> Say:
        return Say(status=500) if down and question(body) > "b" else OK

    names = list("abcdefghijklmnop")
    with serving(script) as server:
        s = settings(server, pace=PaceSettings(concurrency=2))
        buyer = buy(tmp_path, s, names)
        assert buyer.ended == "aborted" and "5 requests in a row were given up" in buyer.why
        assert "server" in buyer.why and buyer.failed["server"] >= 15
        assert [row for row in attempts(tmp_path) if "aborted" in row]
        down = False
        found = buy(tmp_path, s, names)
        assert found.ended == "complete" and outcomes(found) == [("ok", "fine")] * 16
        assert max(server.sold.values()) == 1


def test_failures_between_answers_do_not_abort(tmp_path: Path) -> None:
    says = {"-": Say(status=400), "c": CUT, "f": Say("half", finish="content_filter"), "o": OK}
    with serving(lambda body, before: says[question(body)[0]]) as server:
        two = dataclasses.replace(FAST, abort_after=2)
        s = settings(server, retry=two, pace=PaceSettings(concurrency=1))
        # An answer that is of no use shows, too, that the endpoint works.
        buyer = buy(tmp_path, s, ["-1", "c", "-2", "f", "-3", "o", "-4"])
        assert buyer.ended == "complete" and buyer.failed["invalid_request"] == 4


def test_fewer_are_in_flight_after_an_overload(tmp_path: Path) -> None:
    running: list[int] = []

    def script(body: dict[str, Any], before: int) -> Say:
        running.append(server.running)
        return Say(status=503, delay_s=0.05)

    with serving(script) as server:
        retry = dataclasses.replace(FAST, abort_after=99)
        s = settings(server, retry=retry, pace=PaceSettings(concurrency=4))
        assert buy(tmp_path, s, list("abcdefgh")).ended == "complete"
    # Four are sent before the first refusal, which halves the limit; later ones halve it again.
    assert len(running) == 24 and max(running[4:]) <= 2


@pytest.mark.parametrize(
    ("say", "kind"),
    [
        (Say(status=401, raw=json.dumps({"error": {"message": f"bad key {SECRET}"}})), "auth"),
        (Say(status=404, raw=json.dumps({"error": {"message": "no model m"}})), "not_found"),
        (
            Say(status=429, raw='{"error": {"code": "insufficient_quota", "message": "pay"}}'),
            "quota",
        ),
    ],
)
def test_a_refused_account_or_model_stops_at_once(tmp_path: Path, say: Say, kind: str) -> None:
    answer = say
    with serving(lambda body, before: answer) as server:
        s = settings(server, pace=PaceSettings(concurrency=2))
        buyer = buy(tmp_path, s, list("abcdefgh"))
        assert buyer.ended == "aborted" and buyer.why.startswith(kind)
        assert sum(server.asked.values()) <= 2
        assert SECRET not in buyer.why + (tmp_path / ATTEMPTS).read_text()
        answer = OK
        assert outcomes(buy(tmp_path, s, list("abcdefgh"))) == [("ok", "fine")] * 8


def test_equal_requests_are_bought_once(tmp_path: Path) -> None:
    with serving(lambda body, before: OK) as server:
        buyer = buy(tmp_path, settings(server), ["a", "a", "b"])
        assert buyer.ended == "complete" and sum(server.asked.values()) == 2
        assert outcomes(buyer) == [("ok", "fine")] * 3 and buyer.budget.tokens == 30


def test_nothing_listens(tmp_path: Path) -> None:
    with serving() as server:
        s = settings(server)
    buyer = buy(tmp_path, s, list("abcdefg"))
    assert buyer.ended == "aborted" and "connection" in buyer.why
