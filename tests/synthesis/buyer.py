"""Buying from a scripted server: requests by a question, every failure as a scene, kills."""

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from distill_jax.synthesis import client, requests
from distill_jax.synthesis.buying import Buyer, Wanted
from distill_jax.synthesis.journal import ATTEMPTS, Journal, Lines
from distill_jax.synthesis.settings import (
    EndpointSettings,
    RetrySettings,
)
from tests.synthesis.scripted import Say, Server, question

SECRET = "sk-0123456789-not-to-be-seen"

FAST = RetrySettings(attempts=3, backoff_s=0.01, abort_after=5)


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


class Killed(BaseException):
    """In place of the process's end."""


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
