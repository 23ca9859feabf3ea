"""Bodies of requests: what is read, and what is refused with a sentence."""

import json

import pytest

from distill_jax.serving import wanted
from distill_jax.serving.wanted import RefusedError

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"3", b"null", b'"x"', b"\xff\xfe", b'{"a": NaN}', b'{"a": 1e999, }',
        b"[" * 100_000, b'{"a":' * 100_000, b'{"seed": ' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_bodies_that_are_no_object(raw: bytes) -> None:
    with pytest.raises(RefusedError) as error:
        wanted.parse(raw)
    assert error.value.status == 400 and "\n" not in error.value.message


@pytest.mark.parametrize(
    "more",
    [
        {"messages": None}, {"messages": []}, {"messages": "hello"}, {"messages": [3]},
        {"messages": [{"role": "user"}]}, {"messages": [{"content": "x"}]},
        {"messages": [{"role": 1, "content": "x"}]}, {"messages": [{"role": "u", "content": 3}]},
        {"messages": [{"role": "u", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {"messages": [{"role": "u", "content": [{"type": "text", "text": 3}]}]},
        {"max_tokens": 0}, {"max_tokens": -1}, {"max_tokens": 101}, {"max_tokens": "9"},
        {"max_tokens": 1.5}, {"max_tokens": True}, {"max_completion_tokens": "x"},
        {"max_tokens": 10**30}, {"temperature": -1}, {"temperature": "hot"},
        {"temperature": 1e400}, {"top_p": 2}, {"top_p": None, "top_k": "x"}, {"n": 0}, {"n": 1000},
        {"stop": 3}, {"stop": [3]}, {"stop": ["x"] * 17}, {"stream": "yes"}, {"stream_options": 3},
        {"stream_options": {"include_usage": 1}}, {"seed": 1.5}, {"seed": 2**70},
        {"logprobs": 3}, {"chat_template_kwargs": [1]}, {"chat_template_kwargs": {"other": 1}},
        {"chat_template_kwargs": {"enable_thinking": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_chats_that_are_refused(more: dict) -> None:
    with pytest.raises(RefusedError) as error:
        wanted.chat({**HELLO, **more}, 100, 50)
    assert error.value.status == 400 and error.value.message


@pytest.mark.parametrize(
    "more",
    [
        {"prompt": None}, {"prompt": 3}, {"prompt": []}, {"prompt": [[]]}, {"prompt": [1, "x"]},
        {"prompt": [True]}, {"prompt": [[1], "x"]}, {"prompt": ["x"] * 257}, {"prompt": {"a": 1}},
        {"max_tokens": 0}, {"logprobs": 6, "echo": True}, {"logprobs": -1}, {"logprobs": "x"},
        {"prompt_logprobs": 6}, {"echo": 1}, {"echo": True, "stream": True},
        {"logprobs": 1}, {"logprobs": 1, "echo": True, "max_tokens": 2},
        {"echo": True, "logprobs": 0, "n": 2},
    ],
    ids=str,
)  # fmt: skip
def test_completions_that_are_refused(more: dict) -> None:
    with pytest.raises(RefusedError) as error:
        wanted.completion({"prompt": "x", **more}, 100)
    assert error.value.status == 400 and error.value.message


@pytest.mark.parametrize(
    "name", ["tools", "response_format", "logit_bias", "presence_penalty", "best_of", "suffix"]
)
def test_what_would_change_the_answer_and_is_not_known(name: str) -> None:
    with pytest.raises(RefusedError, match=f"{name} is not supported"):
        wanted.parse(json.dumps({name: 2}).encode())
    assert wanted.parse(json.dumps({name: None, "other": 2}).encode())["other"] == 2


def test_neutral_values_are_taken() -> None:
    body = {"tools": [], "presence_penalty": 0.0, "response_format": {"type": "text"}, "best_of": 1}
    assert wanted.parse(json.dumps(body).encode()) == body


def test_a_chat() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b\ud800"}]
    body = {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": parts}],
        "max_completion_tokens": 7, "max_tokens": 9, "temperature": 0, "top_k": -1, "stop": "x",
        "seed": -3, "stream": True, "stream_options": {"include_usage": True}, "logprobs": True,
    }  # fmt: skip
    found = wanted.chat(body, 100, 50)
    assert found.messages[1] == {"role": "user", "content": "ab�"}
    how = found.sampling
    assert (how.room, how.temperature, how.top_k, how.stops) == (7, 0.0, 0, ("x",))
    assert how.stream and how.usage and found.logprobs and how.seed == 2**31 - 3
    assert wanted.chat(HELLO, 100, 50).sampling.room == 50


def test_what_float32_and_int32_hold() -> None:
    how = wanted.completion({"prompt": "a", "top_k": 2**40, "temperature": 2e-38}, 100).sampling
    assert (how.top_k, how.temperature) == (2**31 - 1, 0.0)
    with pytest.raises(RefusedError, match="at most 256 characters"):
        wanted.completion({"prompt": "a", "stop": ["x", "y" * 257]}, 100)


def test_completions() -> None:
    for given, prompts in (
        ("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]),
    ):  # fmt: skip
        assert wanted.completion({"prompt": given}, 100).prompts == prompts
    found = wanted.completion({"prompt": "a", "echo": True, "logprobs": 5, "max_tokens": 0}, 100)
    assert found.reads and found.sampling.room == 0
    assert not wanted.completion({"prompt": "a", "logprobs": 0}, 100).reads
    seeds = {wanted.completion({"prompt": "a"}, 100).sampling.seed for _ in range(4)}
    assert len(seeds) == 4  # without a seed another one each time
