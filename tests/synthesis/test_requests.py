"""Bodies and keys: what changes an answer changes its key, and nothing else does."""

import dataclasses
import hashlib

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.synthesis import requests
from distill_jax.synthesis.settings import EndpointSettings, PaceSettings, clean

MESSAGES = [{"role": "user", "content": "2+2? é"}]
S = EndpointSettings(model="m", base_url="http://h/v1", max_tokens=50)


def test_body_and_key_by_hand() -> None:
    made = requests.make("h", MESSAGES, 3, 0.5, S)
    assert made.body == {"model": "m", "messages": MESSAGES, "temperature": 0.5, "max_tokens": 50}
    text = (
        '{"endpoint":"h","messages":[{"content":"2+2? \\u00e9","role":"user"}],"model":"m",'
        '"prompt_version":1,"sample":3,"sampling":{"max_tokens":50,"temperature":0.5}}'
    )
    assert made.key == hashlib.sha256(text.encode()).hexdigest()
    assert made.max_tokens == 50 and made.messages == "2+2? é"


def test_what_makes_another_key() -> None:
    change = dataclasses.replace
    made = [
        requests.make("h", MESSAGES, 0, 0.5, S),
        requests.make("other", MESSAGES, 0, 0.5, S),
        requests.make("h", MESSAGES, 1, 0.5, S),
        requests.make("h", MESSAGES, 0, None, S),
        requests.make("h", [*MESSAGES, *MESSAGES], 0, 0.5, S),
        requests.make("h", MESSAGES, 0, 0.5, change(S, model="n")),
        requests.make("h", MESSAGES, 0, 0.5, change(S, max_tokens=51)),
        requests.make("h", MESSAGES, 0, 0.5, change(S, longer=99), longer=True),
        requests.make("h", MESSAGES, 0, 0.5, change(S, top_p=0.9)),
        requests.make("h", MESSAGES, 0, 0.5, change(S, seed=7)),
        requests.make("h", MESSAGES, 0, 0.5, change(S, extra='{"min_p": 0.1}')),
        requests.make("h", MESSAGES, 0, 0.5, change(S, limit_name="max_completion_tokens")),
    ]
    assert len({one.key for one in made}) == len(made)
    same = change(
        S, key_variable="K", pace=PaceSettings(concurrency=1), longer=99, directory="somewhere"
    )
    assert requests.make("h", MESSAGES, 0, 0.5, same).key == made[0].key
    assert made[9].body["seed"] == 7 and made[10].body["min_p"] == 0.1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"extra": "{"}, "wanted: a JSON object"),
        ({"extra": "[1]"}, "wanted: a JSON object without"),
        ({"extra": '{"max_tokens": 1}'}, "without max_completion_tokens, max_tokens"),
        ({"extra": '{"stream": true}'}, "a JSON object without"),
        ({"longer": 50, "max_tokens": 50}, "longer=50 with max_tokens=50"),
        ({"base_url": "localhost:8000"}, "wanted: http://HOST/PATH"),
        ({"base_url": "http://u:SECRET@h/v1"}, "base_url=http://h/v1 with a user, a password or"),
        ({"base_url": "http://h/v1?key=SECRET"}, "export OPENAI_BASE_URL"),
        ({"base_url": "ftp://u:SECRET@h/v1"}, "base_url='ftp://h/v1'"),
    ],
)
def test_refused_settings(how: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        EndpointSettings(**how)  # type: ignore[arg-type]
    assert message in str(error.value) and "SECRET" not in str(error.value)


def test_addresses_without_secrets() -> None:
    assert clean("https://u:p@h:8/v1/?k=1#f") == "https://h:8/v1"
