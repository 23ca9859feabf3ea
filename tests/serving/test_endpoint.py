"""The endpoint through the openai client and plain HTTP on loopback."""

import contextlib
import http.client
import json
import socket
import threading
from typing import Any

import numpy as np
import openai
import pytest

from distill_jax.core import rng
from distill_jax.data.chat import render_messages
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from distill_jax.serving.served import Served
from distill_jax.serving.slots import Decoding
from tests import tiny
from tests.serving.endpoint import Running, ask, decoded, drawn, running, wait

pytestmark = pytest.mark.slow

ASK: dict[str, Any] = {"model": "little", "messages": [{"role": "user", "content": "2 and 3?"}]}
GREEDY = {**ASK, "temperature": 0, "max_tokens": 20}
PROMPT = {"model": "little", "prompt": "How many pens?", "max_tokens": 6, "temperature": 0}
LONG = {**ASK, "temperature": 0, "max_tokens": 3000}


def client(server: Running, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key=key, max_retries=0, timeout=120)


def chat_ids(served: Served) -> list[int]:
    return render_messages(served.tokenizer, [ASK["messages"]], enable_thinking=False)[0]


# --- answers -------------------------------------------------------------------------------------


def test_a_chat_whole_and_streamed(server: Running) -> None:
    own = decoded(
        server.served,
        drawn(server.served, chat_ids(server.served), [Decoding(temperature=0.0)], 20)[0],
    )
    api = client(server)
    assert [one.id for one in api.models.list()] == ["little"]
    assert api.models.retrieve("little").id == "little"
    whole = api.chat.completions.create(**GREEDY)
    assert whole.choices[0].message.content == own and own.strip()
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None and whole.usage.completion_tokens == 20
    assert whole.usage.prompt_tokens == len(chat_ids(server.served))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(api.chat.completions.create(**GREEDY, **options))
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == own and len([text for text in texts if text]) > 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage


def test_samples_are_those_of_their_seed(server: Running) -> None:
    hows = [Decoding(temperature=0.9, seed=11, number=n) for n in range(3)]
    own = [
        decoded(server.served, one)
        for one in drawn(server.served, chat_ids(server.served), hows, 12)
    ]
    assert len(set(own)) == 3
    how = {**ASK, "n": 3, "seed": 11, "temperature": 0.9, "max_tokens": 12}
    found = client(server).chat.completions.create(**how)
    assert [one.message.content for one in found.choices] == own
    streamed = [""] * 3
    for chunk in client(server).chat.completions.create(**how, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == own


def test_stop_strings_end_a_completion_and_free_its_row(server: Running) -> None:
    whole = client(server).completions.create(**{**PROMPT, "max_tokens": 40}).choices[0].text
    stop = whole[len(whole) // 3 : len(whole) // 3 + 2]
    cut = whole[: whole.find(stop)]
    long = {**PROMPT, "max_tokens": 3000, "stop": [stop]}
    segments = server.engine.counts.segments
    found = client(server).completions.create(**long)
    assert (found.choices[0].text, found.choices[0].finish_reason) == (cut, "stop")
    wait(lambda: server.engine.running == 0)
    assert server.engine.counts.segments - segments < 100  # of the 375 of 3000 tokens
    parts = [c.choices[0].text for c in client(server).completions.create(**long, stream=True)]
    assert "".join(parts) == cut


def test_tokens_behind_a_stop_string_are_none_of_the_answer(server: Running) -> None:
    ask_for = {**PROMPT, "max_tokens": 40, "logprobs": 0}
    whole = client(server).completions.create(**ask_for).choices[0].logprobs
    assert whole is not None and whole.tokens
    # A letter that comes late and is the whole of a token, so that no other token makes it.
    letters = [text for text in whole.tokens if len(text) == 1 and text.isalnum()]
    stop = max(letters, key=whole.tokens.index)
    count = next(i + 1 for i, text in enumerate(whole.tokens) if stop in text)
    found = client(server).completions.create(**ask_for, stop=[stop])
    assert found.choices[0].logprobs is not None
    assert found.choices[0].logprobs.tokens == whole.tokens[:count] and 1 < count < 40
    assert found.usage is not None and found.usage.completion_tokens == count


def test_log_probabilities_of_a_stream_are_those_of_the_whole(server: Running) -> None:
    ask_for = {**PROMPT, "max_tokens": 20, "logprobs": 0}
    whole = client(server).completions.create(**ask_for).choices[0].logprobs
    assert whole is not None
    parts = [
        chunk.choices[0].logprobs
        for chunk in client(server).completions.create(**ask_for, stream=True)
    ]
    for name in ("tokens", "token_logprobs", "text_offset"):
        found = [value for part in parts if part for value in getattr(part, name)]
        wanted = getattr(whole, name)
        assert found == (pytest.approx(wanted, abs=1e-5) if name == "token_logprobs" else wanted)


def test_an_end_token_ends_a_completion(served: Served) -> None:
    prompt = served.tokenizer("How many pens?")["input_ids"]
    tokens = drawn(served, prompt, [Decoding(temperature=0.0)], 20)[0]
    assert len(tokens) == 20
    end = tokens[10]
    first = tokens.index(end)
    with running(served._replace(ends=(end,)), rows=1) as one:
        found = client(one).completions.create(**{**PROMPT, "max_tokens": 20})
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None and found.usage.completion_tokens == first + 1
    assert found.choices[0].text == decoded(served, tokens[: first + 1])


def test_log_probabilities_of_what_was_drawn(server: Running) -> None:
    served = server.served
    prompt = served.tokenizer(PROMPT["prompt"])["input_ids"]
    found = client(server).completions.create(**PROMPT, logprobs=0).choices[0].logprobs
    assert found is not None and found.token_logprobs is not None and len(found.tokens or []) == 6
    tokens = drawn(served, prompt, [Decoding(temperature=0.0)], 6)[0]
    echo = {**PROMPT, "prompt": [*prompt, *tokens], "echo": True, "logprobs": 1, "max_tokens": 0}
    again = client(server).completions.create(**echo).choices[0].logprobs
    assert again is not None and again.token_logprobs is not None and again.top_logprobs
    np.testing.assert_allclose(found.token_logprobs, again.token_logprobs[-6:], atol=1e-4)
    # They were drawn greedily: each is the most probable, and equal to it in every bit.
    for value, top in zip(again.token_logprobs[-6:], again.top_logprobs[-6:], strict=True):
        assert value == max(top.values())
    chat = client(server).chat.completions.create(**GREEDY, logprobs=True).choices[0].logprobs
    assert chat is not None and chat.content is not None and len(chat.content) == 20
    assert all(one.logprob <= 0 for one in chat.content)


def test_echo_with_log_probabilities_as_harnesses_ask(server: Running) -> None:
    """lm-evaluation-harness: lists of tokens, one more token, the last place dropped."""
    rows = [[5, 9, 40, 41], [7, 8], list(range(20, 90))]
    body = {
        "model": "little", "prompt": rows, "max_tokens": 1, "logprobs": 1, "echo": True,
        "temperature": 0, "seed": 1234,
    }  # fmt: skip
    found = ask(server, "/v1/completions", body).body
    assert [one["index"] for one in found["choices"]] == [0, 1, 2]
    for row, choice in zip(rows, found["choices"], strict=True):
        logprobs = choice["logprobs"]
        assert len(logprobs["token_logprobs"]) == len(row) + 1
        assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
        assert all(x <= 0 for x in logprobs["token_logprobs"][1:])
        assert "".join(logprobs["tokens"]).startswith(choice["text"][:3])
        # The last token is the greedy one.
        assert logprobs["token_logprobs"][-1] == max(logprobs["top_logprobs"][-1].values())
    alone = ask(server, "/v1/completions", {**body, "prompt": rows[0]}).body["choices"][0]
    np.testing.assert_allclose(
        alone["logprobs"]["token_logprobs"][1:],
        found["choices"][0]["logprobs"]["token_logprobs"][1:],
        atol=1e-5,
    )


def test_echo_of_text_with_more_tokens(server: Running) -> None:
    plain = client(server).completions.create(**PROMPT).choices[0].text
    echo = {**PROMPT, "echo": True}
    assert client(server).completions.create(**echo).choices[0].text == PROMPT["prompt"] + plain
    both = ask(server, "/v1/completions", {**echo, "logprobs": 0, "prompt_logprobs": 2}).body
    choice = both["choices"][0]
    count = len(server.served.tokenizer(PROMPT["prompt"])["input_ids"])
    assert choice["text"] == PROMPT["prompt"] + plain
    assert len(choice["logprobs"]["token_logprobs"]) == count + 6
    assert len(choice["prompt_logprobs"]) == count and choice["prompt_logprobs"][0] is None
    assert all(2 <= len(entry) <= 3 for entry in choice["prompt_logprobs"][1:])
    nothing = ask(server, "/v1/completions", {**echo, "max_tokens": 0}).body
    assert nothing["choices"][0]["text"] == PROMPT["prompt"]


def test_many_requests_share_the_batch(server: Running) -> None:
    counts = server.engine.counts
    segments, begun = counts.segments, counts.begun
    texts: list[str | None] = [None] * 12

    def one(number: int) -> None:
        body = {**GREEDY, "max_tokens": 40}
        texts[number] = client(server).chat.completions.create(**body).choices[0].message.content

    threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(texts)) == 1 and texts[0]
    assert counts.begun - begun == 12 and counts.most_rows == 4
    assert counts.segments - segments < 12 * 5  # as many as one after another


def test_scores_of_many_requests_are_read_together(server: Running) -> None:
    body = {"model": "little", "prompt": [[i, 3, 4] for i in range(20)], "max_tokens": 1}
    reads = server.engine.counts.reads
    found = ask(server, "/v1/completions", {**body, "prompt_logprobs": 0})
    assert found.status == 200 and server.engine.counts.reads - reads == 3  # 8 + 8 + 4


# --- refusals ------------------------------------------------------------------------------------

WRONG: list[tuple[str, Any, int]] = [
    ("/v1/chat/completions", b"{", 400),
    ("/v1/chat/completions", b"\xff", 400),
    ("/v1/chat/completions", [], 400),
    ("/v1/chat/completions", {**ASK, "model": "other"}, 404),
    ("/v1/chat/completions", {"messages": ASK["messages"]}, 404),
    ("/v1/chat/completions", {**ASK, "model": ["little"]}, 404),
    ("/v1/chat/completions", {**ASK, "max_tokens": 3001}, 400),
    ("/v1/chat/completions", {**ASK, "tools": [{}]}, 400),
    ("/v1/chat/completions", {**ASK, "messages": [{"role": "user", "content": "x " * 200}]}, 400),
    ("/v1/chat/completions", {**ASK, "messages": [{"role": "user", "content": "<|im_end|>"}]}, 400),
    ("/v1/completions", {**PROMPT, "prompt": ""}, 400),
    ("/v1/completions", {**PROMPT, "prompt": [5, 10**9]}, 400),
    ("/v1/completions", {**PROMPT, "prompt": [-1]}, 400),
    ("/v1/completions", {**PROMPT, "prompt": [5] * 101}, 400),
    ("/v1/completions", {**PROMPT, "prompt": [5] * 3101, "max_tokens": 0, "echo": True}, 400),
    ("/v1/completions", b"x" * 2_000_001, 413),
    ("/v1/nowhere", {}, 404),
    ("/nowhere", None, 404),
    ("/v1/completions", None, 405),
    ("/v1/models/other", None, 404),
]


@pytest.mark.parametrize(("path", "body", "status"), WRONG)
def test_what_is_wrong_gets_a_sentence(server: Running, path: str, body: Any, status: int) -> None:
    found = ask(server, path, body)
    assert found.status == status, found
    said = found.body["error"]
    assert said["message"] and "\n" not in said["message"] and "Traceback" not in said["message"]
    assert found.headers["content-type"] == "application/json"
    assert ask(server, "/health").status == 200


def test_a_body_that_grows_beyond_the_limit(server: Running) -> None:
    """Sent in chunks, without a length."""
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        part = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with contextlib.suppress(OSError):  # it answers before all is sent
            for _ in range(40):
                line.sendall(part)
        line.settimeout(30)
        head = line.recv(200)
    assert head.startswith(b"HTTP/1.1 413")


def test_a_key(served: Served) -> None:
    with running(served, rows=1, key="secret") as one:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            for path, body in (("/v1/models", None), ("/v1/completions", PROMPT)):
                found = ask(one, path, body, headers=headers)
                assert found.status == 401 and "secret" not in json.dumps(found.body)
        assert ask(one, "/health").status == 200
        assert client(one, "secret").completions.create(**PROMPT).choices[0].text
        with pytest.raises(openai.AuthenticationError):
            client(one, "other").completions.create(**PROMPT)


def test_a_full_queue(served: Served) -> None:
    with running(served, rows=1, queue=2) as one:
        lines = []
        for number in range(3):  # one is drawn, two wait
            lines.append(begin(one, {**LONG, "stream": True}))
            wait(lambda n=number: one.engine.running == 1 and one.engine.waiting == n)
        found = ask(one, "/v1/chat/completions", GREEDY)
        assert found.status == 429 and found.headers["retry-after"] == "1"
        with pytest.raises(openai.RateLimitError):
            client(one).chat.completions.create(**GREEDY)
        many = {"model": "little", "prompt": [[1, 2]] * 3, "max_tokens": 1, "prompt_logprobs": 0}
        found = ask(one, "/v1/completions", many)  # more than ever fit: no "ask again"
        assert found.status == 400 and "3 completions" in json.dumps(found.body)
        assert ask(one, "/v1/completions", {**many, "prompt": [[1, 2]] * 2}).status == 429
        for line in lines:
            line.close()
        wait(lambda: one.engine.running == one.engine.waiting == 0)
        assert ask(one, "/v1/chat/completions", GREEDY).status == 200


def begin(server: Running, body: dict[str, Any]) -> http.client.HTTPConnection:
    """A request whose answer is not waited for."""
    made = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    made.request("POST", "/v1/chat/completions", json.dumps(body))
    return made


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_row(server: Running, stream: bool) -> None:
    counts = server.engine.counts
    wait(lambda: server.engine.running == 0)
    segments, freed = counts.segments, counts.freed
    line = begin(server, {**LONG, "stream": stream})
    wait(lambda: server.engine.running == 1)
    line.close()
    wait(lambda: server.engine.running == 0)
    assert counts.freed == freed + 1 and counts.segments - segments < 300  # 375 are the whole
    wait(lambda: server.engine.waiting == 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failing_engine_tells_its_clients(served: Served) -> None:
    with running(served, rows=1) as one:

        def broken() -> Any:
            raise SystemError("no device")

        one.engine.slots.segment = broken  # type: ignore[method-assign]
        assert ask(one, "/v1/chat/completions", GREEDY).status == 503
        wait(lambda: one.engine.failed)
        assert ask(one, "/health").status == 503
        assert ask(one, "/v1/completions", PROMPT).status == 503


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failing_read_is_answered_too(served: Served) -> None:
    with running(served, rows=1) as one:

        def broken(*given: Any, **how: Any) -> Any:
            raise SystemError("no device")

        one.engine.reader.read = broken  # type: ignore[method-assign]
        body = {"model": "little", "prompt": [1, 2], "max_tokens": 1, "prompt_logprobs": 0}
        assert ask(one, "/v1/completions", body).status == 503


def test_extreme_settings_harm_nobody(server: Running) -> None:
    """Each of them alone ended the server, or the answers of later requests."""
    before = ask(server, "/v1/completions", {**PROMPT, "temperature": 0})
    for more in ({"top_k": 2**40}, {"temperature": 2e-38}, {"temperature": 1e-30, "top_p": 0.5}):
        assert ask(server, "/v1/completions", {**PROMPT, **more}).status == 200
    after = ask(server, "/v1/completions", {**PROMPT, "temperature": 0})
    assert after.status == 200
    assert after.body["choices"][0]["text"] == before.body["choices"][0]["text"]
    cold = ask(server, "/v1/completions", {**PROMPT, "temperature": 2e-38})
    assert cold.body["choices"][0]["text"] == before.body["choices"][0]["text"]


def test_equal_to_the_rollouts_sampler(server: Running) -> None:
    """Through all layers: the tokens that training would draw with the seed's key."""
    served = server.served
    sampler = Sampler(
        served.model, tiny.mesh(), eos_id=served.ends[0], pad_id=0, vocab=len(served.tokenizer)
    )
    prompt = served.tokenizer(PROMPT["prompt"])["input_ids"]
    settings = SamplingSettings(temperature=0.8, max_new_tokens=16, top_k=20)
    out = sampler.generate(
        served.weights, [prompt], settings, key=rng.run_key(77), prompt_ids=[0], samples=2
    )
    how = {**PROMPT, "max_tokens": 16, "temperature": 0.8, "seed": 77, "n": 2}
    found = client(server).completions.create(**how, extra_body={"top_k": 20})
    texts = [decoded(served, row) for row in out.tokens_BR.tolist()]
    assert [one.text for one in found.choices] == texts
