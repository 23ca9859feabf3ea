"""Log-probabilities from a server: both forms, every failure as a scene, all rows or none."""

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from distill_jax.core.errors import EndpointError
from distill_jax.synthesis import client
from distill_jax.synthesis.asking import Asker, StoppedError
from distill_jax.synthesis.score_settings import ScoreServerSettings
from distill_jax.synthesis.scores import Row
from distill_jax.synthesis.settings import AttemptSettings, PaceSettings
from tests.synthesis.buyer import SECRET
from tests.synthesis.scoring import script, tokens_of
from tests.synthesis.scripted import Say, Script, Server, serving

ROWS = [Row((1, 2), (3, 4, 5)), Row((1,), (6,)), Row((1, 2, 3, 4), (3, 4)), Row((9,), (9, 9))]
FAST = AttemptSettings(attempts=4, backoff_s=0.01, longest_backoff_s=0.02)


def logp(tokens: Any) -> list[float]:
    """Of each token but the first, by its place and its id: any mix-up shows."""
    return [-(place + token / 100) for place, token in enumerate(tokens)][1:]


WANTED = [[float(x) for x in logp(row.prompt + row.response)][-len(row.response) :] for row in ROWS]
TRUE = script(logp)


def ask(server: Server, rows: Any = ROWS, *, stop: Any = lambda: False, **changes: Any) -> Any:
    s = ScoreServerSettings(model="big", base_url=server.url, retry=FAST)
    s = dataclasses.replace(s, **changes)
    said: list[str] = []

    async def run() -> Any:
        async with client.Endpoint(s) as endpoint:
            asker = Asker(endpoint.post, s, stop=stop, say=said.append, jitter=lambda: 1.0)
            return await asker.ask(rows), asker.failed, said

    return asyncio.run(run())


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_every_row_gets_its_own(api: str) -> None:
    with serving(TRUE) as server:
        found, failed, said = ask(server, api=api)
    assert [list(read.logp) for read in found] == WANTED
    assert failed == 0 and not said


def bad(first: Say) -> Script:
    """This answer to the first request about each row, then the true one."""
    return lambda body, before: first if before == 0 else TRUE(body, before)


@pytest.mark.parametrize(
    ("say", "kind"),
    [
        (Say(status=429, headers={"retry-after-ms": "5"}), "rate_limit"),
        (Say(status=500), "server"),
        (Say(status=503), "server"),
        (Say(torn=True, raw="{}" * 40), "connection"),
        (Say(raw='{"choices": [{"prompt_log'), "malformed"),
        (Say(raw=json.dumps({"choices": [{"prompt_logprobs": [None] * 9}]}), delay_s=0.8), "late"),
    ],
)
def test_it_is_asked_again(say: Say, kind: str) -> None:
    pace = PaceSettings(timeout_s=0.5) if kind == "late" else PaceSettings()
    with serving(bad(say)) as server:
        found, failed, said = ask(server, pace=pace)
    assert [list(read.logp) for read in found] == WANTED and failed >= len(ROWS)
    assert kind == "late" or f"fails ({kind}" in said[0]
    assert said[-1].endswith("answers again")


@pytest.mark.parametrize("value", [float("nan"), 0.5, None, True, "-1"])
@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_what_is_no_log_probability_is_never_returned(value: Any, api: str) -> None:
    def say(body: dict[str, Any], before: int) -> Say:
        raw = str(TRUE(body, before).raw)
        written = json.dumps(WANTED[0][1])
        return Say(raw=raw.replace(written, json.dumps(value)) if before == 0 else raw)

    with serving(say) as server:
        found, failed, _ = ask(server, ROWS[:1], api=api)
    assert list(found[0].logp) == WANTED[0] and failed == 1


@pytest.mark.parametrize(
    ("api", "answered"),
    [
        ("vllm", [1, 2, 3, 4, 8]),
        ("vllm", [2, 3, 4, 5]),
        ("vllm", [0, 1, 2, 3, 4, 5]),  # with a token that begins a text
        # It answers from a place on: what comes before it cannot be seen.
        ("sglang", [1, 2, 3, 4, 8]),
        ("sglang", [1, 2, 3, 4]),
    ],
)
def test_other_tokens_end_it(api: str, answered: list[int]) -> None:
    name = {"vllm": "prompt", "sglang": "input_ids"}[api]
    with serving(lambda body, before: TRUE({**body, name: answered}, 0)) as server:
        with pytest.raises(EndpointError, match="about other tokens than it was asked") as error:
            ask(server, ROWS[:1], api=api)
        assert len(server.bodies) == 1 and "student's tokenizer" in error.value.fix


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_an_answer_without_them_ends_it(api: str) -> None:
    for raw in ('{"choices": [{"text": "x", "prompt_logprobs": null}]}', "[]", '{"meta_info": {}}'):
        with serving(lambda body, before, raw=raw: Say(raw=raw)) as server:
            with pytest.raises(EndpointError, match="holds no log-probabilities"):
                ask(server, ROWS[:1], api=api)
            assert len(server.bodies) == 1


def test_all_rows_or_none() -> None:
    def say(body: dict[str, Any], before: int) -> Say:
        return Say(status=500) if tokens_of(body)[0] == 9 else TRUE(body, before)

    with serving(say) as server:
        with pytest.raises(EndpointError, match="server: .*500, after 4 attempts; .*nothing of"):
            ask(server)
        slow = AttemptSettings(attempts=100, backoff_s=0.05, longest_backoff_s=0.05)
        with pytest.raises(EndpointError, match=r"1 scores are missing after deadline_s=0\.3, the"):
            ask(server, deadline_s=0.3, retry=slow)
        with pytest.raises(StoppedError, match="server: "):
            ask(server, stop=lambda: True)


def test_refusals_end_it_and_the_key_is_not_shown() -> None:
    for status, kind in ((401, "auth"), (404, "not_found"), (400, "invalid_request")):
        say = Say(status=status, raw=json.dumps({"error": {"message": f"no {SECRET}"}}))
        with serving(lambda body, before, say=say: say) as server:
            with pytest.raises(EndpointError, match=kind) as error:
                ask(server, ROWS[:1], key_variable="OPENAI_API_KEY")
            assert len(server.bodies) == 1 and SECRET not in str(error.value)
            assert SECRET in server.headers[0]["authorization"]


def test_no_more_are_in_flight_than_allowed() -> None:
    def say(body: dict[str, Any], before: int) -> Say:
        return dataclasses.replace(TRUE(body, before), delay_s=0.02)

    rows = [Row((1,), (token,)) for token in range(2, 18)]
    with serving(say) as server:
        found, _, _ = ask(server, rows, pace=PaceSettings(concurrency=3))
        assert 1 < server.most <= 3
    assert [read.logp[0] for read in found] == [logp((1, token))[0] for token in range(2, 18)]
