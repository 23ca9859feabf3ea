"""The endpoint: its key and its address are never kept; what is missing is named."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, MissingExtraError
from distill_jax.synthesis import client
from distill_jax.synthesis.settings import (
    EndpointSettings,
)
from tests.synthesis.buyer import (
    SECRET,
    buy,
    outcomes,
    settings,
)
from tests.synthesis.scripted import Say, question, serving


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
