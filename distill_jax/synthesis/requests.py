"""One request: the body that is sent, and the key under which its answer is kept."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distill_jax.synthesis.settings import EndpointSettings

# Raised where equal messages must be asked again.
PROMPT_VERSION = 1

Messages = Sequence[Mapping[str, str]]


class Request(NamedTuple):
    """A sample of an answer to one problem.

    Attributes:
        key: of this request in a journal.
        body: JSON-able, without the sample's number, which the endpoint does not see.
        max_tokens: limit on the answer.
    """

    key: str
    body: dict[str, Any]
    max_tokens: int

    @property
    def messages(self) -> str:
        """The messages' text, for estimates."""
        return "\n".join(str(one["content"]) for one in self.body["messages"])


def make(
    label: str,
    messages: Messages,
    sample: int,
    temperature: float | None,
    s: EndpointSettings,
    *,
    longer: bool = False,
) -> Request:
    """The request of a sample; longer: with the limit for answers that were cut off.

    Args:
        label: of the endpoint.
        messages: {role, content} each.
        sample: number of the sample, from 0.
        temperature: None is not sent.
    """
    limit = s.longer if longer else s.max_tokens
    sampling = {
        "temperature": temperature,
        "top_p": s.top_p,
        s.limit_name: limit,
        "seed": None if s.seed is None else s.seed + sample,
    }
    sent = {name: value for name, value in sampling.items() if value is not None} | s.fields()
    body = {"model": s.model, "messages": [dict(one) for one in messages], **sent}
    made_from = {
        "endpoint": label,
        "model": s.model,
        "messages": body["messages"],
        "sampling": sent,
        "sample": sample,
        "prompt_version": PROMPT_VERSION,
    }
    return Request(key_of(made_from), body, limit)


def key_of(made_from: Mapping[str, Any]) -> str:
    """sha256 (hex) of canonical JSON: sorted names, no blanks, ASCII."""
    text = json.dumps(made_from, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
