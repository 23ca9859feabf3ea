"""Raw responses by class: nothing that a server sends raises."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.synthesis import failures
from distill_jax.synthesis.failures import Response, Usage


def raw(content: Any = "an answer", finish: Any = "stop", **more: Any) -> str:
    message = {"content": content, **more.pop("message", {})}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more})


FULL = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (raw(), Response("ok", "an answer")),
        (raw(usage=FULL), Response("ok", "an answer", Usage(9, 4, 7, 3))),
        (
            raw(usage={"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": None}),
            Response("ok", "an answer", Usage(9, 0, 7, 0)),
        ),
        (raw(usage={"prompt_tokens": 9}), Response("ok", "an answer")),
        (raw(usage={"prompt_tokens": -1, "completion_tokens": True}), Response("ok", "an answer")),
        (raw("half \ud83d"), Response("ok", "half \ufffd")),
        (raw(finish="length"), Response("length", "an answer")),
        (raw(None, finish="length"), Response("length")),
        (raw(finish="content_filter"), Response("content_filter", "an answer")),
        (raw(None, message={"refusal": "no"}), Response("content_filter")),
        (raw(" \n"), Response("empty", " \n")),
        (raw(None, message={"reasoning_content": "thought"}), Response("empty")),
        (raw([{"type": "text"}]), Response("malformed")),
        ("", Response("malformed")),
        ("<html>", Response("malformed")),
        ("[]", Response("malformed")),
        ("{}", Response("malformed")),
        ('{"choices": []}', Response("malformed")),
        ('{"choices": [{"message": null}]}', Response("malformed")),
        (raw()[:-4], Response("malformed")),
        ("[" * 100_000, Response("malformed")),
    ],
)
def test_what_a_response_holds(text: str, wanted: Response) -> None:
    assert failures.read(text) == wanted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens"]),
            x,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_body_raises(body: Any) -> None:
    found = failures.read(json.dumps(body))
    assert found.kind in failures.CLASSES
