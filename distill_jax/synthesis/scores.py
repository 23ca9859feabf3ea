"""Log-probabilities of given tokens: the requests of vLLM and SGLang, and what they answer."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from distill_jax.synthesis import failures

# The server answers about other tokens, or not with log-probabilities: asking again is no use.
OTHER_TOKENS, UNSUPPORTED = "other_tokens", "unsupported"
# Rounding may lift the logarithm of a probability of 1 by this much.
_ABOVE_ZERO = 1e-3


class Row(NamedTuple):
    """Token ids of a prompt, at least one, and of the response whose tokens are scored."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


class Read(NamedTuple):
    """What a raw response came to: `failures.OK`, malformed, OTHER_TOKENS or UNSUPPORTED; with the
    log-probability of each response token, and its text where the server gives it."""

    kind: str
    logp: tuple[float, ...] = ()
    texts: tuple[str | None, ...] = ()


class Api(NamedTuple):
    """How a server is asked: path below its address, (model, row) -> body, (body, row) -> Read."""

    path: str
    body: Callable[[str, Row], dict[str, Any]]
    read: Callable[[Any, Row], Read]


def read(api: Api, raw: str, row: Row) -> Read:
    """What a response of status 200 says of a row's response tokens."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return Read("malformed")
    try:
        found = api.read(body, row)
    except (LookupError, TypeError, AttributeError, ValueError):
        return Read(UNSUPPORTED)
    if found.kind == failures.OK and not all(map(_is_log_probability, found.logp)):
        return Read("malformed")
    return found


def _is_log_probability(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value <= _ABOVE_ZERO


def _vllm_body(model: str, row: Row) -> dict[str, Any]:
    # One token is drawn and ignored: some versions refuse none.
    return {
        "model": model, "prompt": [*row.prompt, *row.response], "max_tokens": 1,
        "temperature": 1.0, "prompt_logprobs": 0,
    }  # fmt: skip


def _vllm_read(body: Any, row: Row) -> Read:
    """One dictionary a prompt token, {id: {logprob, decoded_token}}; of the first there is none."""
    entries = body["choices"][0]["prompt_logprobs"]
    if len(entries) != len(row.prompt) + len(row.response):
        return Read(OTHER_TOKENS)
    pairs = list(zip(row.response, entries[len(row.prompt) :], strict=True))
    if not all(str(token) in entry for token, entry in pairs):
        return Read(OTHER_TOKENS)
    own = [entry[str(token)] for token, entry in pairs]
    texts = tuple(one.get("decoded_token") for one in own)
    return Read(failures.OK, tuple(one["logprob"] for one in own), texts)


def _sglang_body(model: str, row: Row) -> dict[str, Any]:
    del model  # the server has one
    return {
        "input_ids": [*row.prompt, *row.response],
        "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
        "return_logprob": True,
        # Of the token there, the prompt's last, no log-probability is given.
        "logprob_start_len": len(row.prompt) - 1,
    }


def _sglang_read(body: Any, row: Row) -> Read:
    """[log-probability, id, text] of each token from logprob_start_len on."""
    entries = body["meta_info"]["input_token_logprobs"][-len(row.response) :]
    if tuple(entry[1] for entry in entries) != row.response:
        return Read(OTHER_TOKENS)
    texts = tuple(entry[2] if len(entry) > 2 else None for entry in entries)
    return Read(failures.OK, tuple(entry[0] for entry in entries), texts)


API = {
    "vllm": Api("/completions", _vllm_body, _vllm_read),
    "sglang": Api("/generate", _sglang_body, _sglang_read),
}
