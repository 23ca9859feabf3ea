"""Buying from a scripted server: every failure, budgets, stops and kills; nothing bought twice."""

import asyncio
import dataclasses
import errno
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, MissingExtraError
from distill_jax.synthesis import client, requests
from distill_jax.synthesis.buying import Buyer, Wanted
from distill_jax.synthesis.journal import ATTEMPTS, RESPONSES, Journal, Lines
from distill_jax.synthesis.settings import (
    BudgetSettings,
    EndpointSettings,
    PaceSettings,
    RetrySettings,
)
from tests.synthesis.scripted import Say, Server, question, serving

SECRET = "sk-0123456789-not-to-be-seen"
FAST = RetrySettings(attempts=3, backoff_s=0.01, abort_after=5)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


def settings(server: Server, **changes: Any) -> EndpointSettings:
    made = EndpointSettings(model="m", base_url=server.url, label="test", max_tokens=8, retry=FAST)
    return dataclasses.replace(made, **changes)


def wanted(s: EndpointSettings, questions: list[str]) -> list[Wanted]:
    out = []
    for text in questions:
        messages = [{"role": "user", "content": text}]
        longer = requests.make("test", messages, 0, 0.5, s, longer=True) if s.longer else None
        out.append(Wanted(requests.make("test", messages, 0, 0.5, s), longer))
    return out


def buy(directory: Path, s: EndpointSettings, questions: list[str], **how: Any) -> Buyer:
    buyer = Buyer(wanted(s, questions), Journal(directory), s, jitter=lambda: 1.0, **how)

    async def run() -> None:
        async with client.Endpoint(s) as endpoint:
            await buyer.buy(endpoint.send)

    asyncio.run(run())
    return buyer


def outcomes(buyer: Buyer) -> list[tuple[str, str]]:
    found = [buyer.outcome(place) for place in range(len(buyer.wanted))]
    return [(kind, response.text if response else "") for kind, response in found]


def attempts(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / ATTEMPTS).read_text().splitlines()]


def first(*answers: Say) -> Any:
    """These answers, one after another, the last again and again."""
    return lambda before: answers[min(before, len(answers) - 1)]


OK = Say("fine")
CUT = Say("cut", finish="length")
SCENES: dict[str, Any] = {
    "plain": first(OK),
    "limited": first(Say(status=429, headers={"Retry-After": "0.05"}), OK),
    "broken": first(Say(status=500), Say(status=503), OK),
    "torn": first(Say(torn=True), OK),
    "malformed": first(Say(raw="<html>"), Say(raw='{"choices": []}'), OK),
    "slow": first(Say(delay_s=1.5), OK),
    "no usage": first(Say("fine", usage=None)),
    "cut": first(CUT),
    "filtered": first(Say("half", finish="content_filter")),
    "empty once": first(Say(""), OK),
    "empty": first(Say("")),
    "refused": first(Say(status=400)),
    "dead": first(Say(status=500)),
}
KINDS = {
    "cut": ("length", "cut"), "filtered": ("content_filter", "half"), "empty": ("empty", ""),
    "refused": ("invalid_request", ""), "dead": ("server", ""),
}  # fmt: skip
WANTED = [KINDS.get(name, ("ok", "fine")) for name in SCENES]


def scenes(body: dict[str, Any], before: int) -> Say:
    return SCENES[question(body)](before)


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


def test_the_key_is_never_kept_whatever_the_server_repeats(tmp_path: Path) -> None:
    def script(body: dict[str, Any], before: int) -> Say:
        if question(body) == "a":
            return Say(f"Authorization: Bearer {SECRET}")
        return Say(status=400, raw=json.dumps({"error": {"message": f"Bearer {SECRET}?"}}))

    with serving(script) as server:
        buyer = buy(tmp_path, settings(server), ["a", "b"])
        assert outcomes(buyer)[0] == ("ok", "Authorization: Bearer [key]")
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert SECRET not in text and text.count("[key]") == 2


def test_secrets_of_the_address_are_neither_logged_nor_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = {"message": "no /v1?token=query-0123 for user-0123:password-0123"}
    say = Say(status=400, raw=json.dumps({"error": error}))
    with serving(lambda body, before: say) as server, caplog.at_level(logging.DEBUG):
        host = server.url.removeprefix("http://")
        url = f"http://user-0123:password-0123@{host}?token=query-0123"
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_LOG", "debug")
        s = settings(server, base_url="", label="")
        assert client.label(s) == server.url
        buyer = buy(tmp_path, s, ["a"])
        assert outcomes(buyer) == [("invalid_request", "")] and len(server.bodies) == 1
    text = caplog.text + "".join(path.read_text() for path in tmp_path.iterdir())
    assert "0123" not in text.replace(client.label(s), "") and "[key]" in text


def test_a_budget_of_tokens_stops_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    names = list("abcdefgh")
    with serving(lambda body, before: OK) as server:
        # A request books 1 + 8 and uses 15 in all: after two of them 30 + 9 would be over 38.
        budget = BudgetSettings(tokens=38)
        s = settings(server, budget=budget, pace=PaceSettings(concurrency=4))
        buyer = buy(tmp_path, s, names)
        assert buyer.ended == "spent" and [kind for kind, _ in outcomes(buyer)].count("ok") < 8
        assert outcomes(buyer)[-1] == ("missing", "")
        before = sum(server.asked.values())
        assert buy(tmp_path, s, names).ended == "spent" and sum(server.asked.values()) == before
        money = BudgetSettings(money=1.0, input_price=1.0, output_price=10.0)
        rest = buy(tmp_path, dataclasses.replace(s, budget=money), names)
        assert rest.ended == "complete" and set(server.sold.values()) == {1}
        # 8 answers of 10 and 5 tokens: (80·1 + 40·10)/10⁶.
        assert rest.budget.tokens == 120 and rest.budget.money == pytest.approx(480e-6)
        unknown = buy(tmp_path, dataclasses.replace(s, budget=BudgetSettings()), names)
        assert unknown.budget.money is None


def test_what_is_booked_too_high_is_given_back(tmp_path: Path) -> None:
    with serving(lambda body, before: OK) as server:
        # Each books 101 and uses 15: one at a time they fit, 3·15 + 101 for the last.
        s = settings(server, budget=BudgetSettings(tokens=150), max_tokens=100)
        buyer = buy(tmp_path, s, list("abcd"))
        assert buyer.ended == "complete" and buyer.budget.tokens == 60 and server.most == 1


def test_asked_to_stop_it_keeps_what_is_in_flight(tmp_path: Path) -> None:
    with serving(lambda body, before: Say("fine", delay_s=0.3)) as server:
        s = settings(server, pace=PaceSettings(concurrency=3))
        buyer = buy(tmp_path, s, list("abcdefgh"), stop=lambda: sum(server.asked.values()) >= 3)
        assert buyer.ended == "stopped" and 3 <= buyer.done < 8
        kinds = Counter(kind for kind, _ in outcomes(buyer))
        assert kinds == {"ok": sum(server.asked.values()), "missing": 8 - buyer.done}
        assert buy(tmp_path, s, list("abcdefgh")).done == 8 and set(server.sold.values()) == {1}


def test_requests_and_tokens_a_minute(tmp_path: Path) -> None:
    with serving(lambda body, before: OK) as server:
        # 3 at once; the fourth waits for 60/900 s.
        pace = PaceSettings(requests_per_minute=900, concurrency=1)
        buy(tmp_path / "requests", settings(server, pace=pace), ["a"])
        # A token bucket of 30: two requests of 15 empty it, the next books 9 and waits 9/30 min.
        pace = PaceSettings(tokens_per_minute=3000, concurrency=1)
        buy(tmp_path / "tokens", settings(server, pace=pace), ["a"])
        pace = PaceSettings(tokens_per_minute=30, concurrency=1)
        stopped: list[float] = []

        def stop() -> bool:
            stopped.append(0.0)
            return len(stopped) > 12  # some looks of 0.1 s each

        s = settings(server, pace=pace)
        buyer = buy(tmp_path / "few", s, list("abcdef"), stop=stop)
        assert buyer.ended == "stopped" and buyer.done == 2


def test_equal_requests_are_bought_once(tmp_path: Path) -> None:
    with serving(lambda body, before: OK) as server:
        buyer = buy(tmp_path, settings(server), ["a", "a", "b"])
        assert buyer.ended == "complete" and sum(server.asked.values()) == 2
        assert outcomes(buyer) == [("ok", "fine")] * 3 and buyer.budget.tokens == 30


class Killed(BaseException):
    """In place of the process's end."""


def few() -> list[str]:
    return ["plain", "limited", "empty once", "refused"]


def killing(patch: pytest.MonkeyPatch, number: int, share: float) -> None:
    """The write of that number ends the process after a share of its bytes."""
    real, count = Lines.append, [0]

    def append(self: Lines, row: Any) -> None:
        count[0] += 1
        if count[0] == number and share < 1:
            line = (json.dumps(row, separators=(",", ":")) + "\n").encode()
            with self.path.open("ab") as handle:
                handle.write(line[: int(len(line) * share)])
            raise Killed
        real(self, row)
        if count[0] == number:
            raise Killed

    patch.setattr(Lines, "append", append)


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
    for number in (1, 2, 8):
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
            assert sum(server.asked.values()) <= 8


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


def test_nothing_listens(tmp_path: Path) -> None:
    with serving() as server:
        s = settings(server)
    buyer = buy(tmp_path, s, list("abcdefg"))
    assert buyer.ended == "aborted" and "connection" in buyer.why


def test_without_key_or_package_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    s = EndpointSettings(model="m", base_url="http://h/v1")
    with pytest.raises(ConfigError, match=r"no key for http://h/v1: \$OPENAI_API_KEY is not set"):
        client.Endpoint(s)
    assert client.key_of(dataclasses.replace(s, key_variable="")) == ""
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n{SECRET}")
    with pytest.raises(ConfigError, match="holds blanks") as error:
        client.Endpoint(s)
    assert SECRET not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    assert client.key_of(s) == SECRET
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:pw@h/v2?key=1")
    assert client.label(EndpointSettings(model="m")) == "http://h/v2"
    monkeypatch.setenv("OPENAI_BASE_URL", "h/v2")
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL='h/v2'"):
        client.label(EndpointSettings(model="m"))
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[api\]'"):
        client.Endpoint(s)
