"""A scripted server of log-probabilities on loopback, in the forms of vLLM and of SGLang."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.synthesis.scripted import Say, Script

# Tokens of a sequence -> the log-probability of each but the first.
LogP = Callable[[Sequence[int]], Sequence[float]]


def tokens_of(body: dict[str, Any]) -> list[int]:
    return list(body.get("prompt") or body["input_ids"])


def answer(body: dict[str, Any], logp: Sequence[float], text: Callable[[int], str | None]) -> str:
    """The body of a response: SGLang's to a request with input_ids, else vLLM's."""
    tokens = tokens_of(body)
    pairs = list(zip(tokens[1:], logp, strict=True))
    if "input_ids" in body:
        assert body["return_logprob"] and body["sampling_params"]["max_new_tokens"] == 0
        start = body["logprob_start_len"]
        entries = [[None, tokens[start], None]]
        entries += [[value, token, text(token)] for token, value in pairs[start:]]
        return json.dumps({"text": "", "meta_info": {"input_token_logprobs": entries}})
    assert body["prompt_logprobs"] == 0 and body["max_tokens"] == 1 and body["model"] == "big"
    found: list[Any] = [None]
    for token, value in pairs:
        found.append({str(token): {"logprob": value, "rank": 3, "decoded_token": text(token)}})
    return json.dumps({"choices": [{"text": "x", "prompt_logprobs": found}]})


def script(logp: LogP, text: Callable[[int], str | None] = lambda token: None) -> Script:
    def say(body: dict[str, Any], before: int) -> Say:
        del before
        return Say(raw=answer(body, [float(x) for x in logp(tokens_of(body))], text))

    return say
