"""The settings of an OpenAI-compatible endpoint: what is asked, how fast, for how much."""

import json
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread

LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
# Names of the body that other settings set; `stream` would change the form of the response.
_TAKEN = {"model", "messages", "temperature", "top_p", "seed", "n", "stream", *LIMIT_NAMES}


@dataclass(frozen=True)
class AttemptSettings:
    """When a request is sent again."""

    attempts: int = setting(6, "Attempts of a request at most.", low=1, affects="nothing")
    backoff_s: float = setting(
        0.5, "First wait after a failure, drawn from 0 to it; doubled each time.",
        above=0.0, affects="nothing",
    )  # fmt: skip
    longest_backoff_s: float = setting(60.0, "Longest such wait.", above=0.0, affects="nothing")
    longest_retry_after_s: float = setting(
        120.0,
        "A longer Retry-After pauses all requests for that time, not the one.",
        low=0.0,
        affects="nothing",
    )


@dataclass(frozen=True)
class RetrySettings(AttemptSettings):
    """When a request is sent again, and when the whole stage is stopped."""

    abort_after: int = setting(
        20, "Requests given up in a row after which the stage stops.", low=1, affects="nothing"
    )


@dataclass(frozen=True)
class PaceSettings:
    """How many requests, and how fast."""

    concurrency: int = setting(
        32,
        "Requests in flight at most; fewer while the endpoint fails or refuses.",
        low=1,
        affects="nothing",
    )
    requests_per_minute: int = setting(0, "Requests a minute; 0: no limit.", low=0,
                                       affects="nothing")  # fmt: skip
    tokens_per_minute: int = setting(
        0, "Tokens a minute, of prompts and answers; 0: no limit.", low=0, affects="nothing"
    )
    timeout_s: float = setting(600.0, "Seconds for an answer.", above=0.0, affects="nothing")


@dataclass(frozen=True)
class BudgetSettings:
    """What may be spent, and what tokens cost. No price is known unless it is set here."""

    UNREAD: ClassVar = (
        Unread(("spent",), ("tokens", "money"), lambda tokens, money: not (tokens or money)),
        Unread(("cached_price",), ("input_price",), lambda price: price is None),
    )

    tokens: int = setting(0, "Tokens at most, of prompts and answers; 0: no limit.", low=0,
                          affects="nothing")  # fmt: skip
    money: float = setting(
        0.0, "Money at most, in the unit of the prices; 0: no limit.", low=0.0, affects="nothing"
    )
    spent: str = setting(
        "stop",
        "When the budget is spent: stop, to go on later with a larger one; or finish with the "
        "answers that there are.",
        choices=("stop", "finish"),
        affects="nothing",
    )
    input_price: float | None = setting(
        None, "Price of a million prompt tokens; None: unknown.", low=0.0, affects="nothing"
    )
    cached_price: float | None = setting(
        None, "Price of a million cached prompt tokens; None: as the others.", low=0.0,
        affects="nothing",
    )  # fmt: skip
    output_price: float | None = setting(
        None, "Price of a million tokens of answers; None: unknown.", low=0.0, affects="nothing"
    )

    def __post_init__(self) -> None:
        if self.money and None in (self.input_price, self.output_price):
            raise ConfigError(
                f"money={self.money} with input_price={self.input_price}, "
                f"output_price={self.output_price}",
                wanted="both prices: without them no cost is known",
                fix="set the prices of a million tokens, or limit tokens instead",
            )


@dataclass(frozen=True)
class EndpointSettings:
    """An OpenAI-compatible endpoint (extra api), and what it is asked."""

    model: str = setting("", "Name of the model at the endpoint.")
    base_url: str = setting(
        "",
        "Address, e.g. http://localhost:8000/v1; empty: $OPENAI_BASE_URL, else OpenAI's. User, "
        "password and query are refused: settings are saved; give such an address in the "
        "variable.",
    )
    label: str = setting(
        "",
        "Name of the endpoint in keys of answers; empty: its address without user and query. Set "
        "it where one server changes its address.",
    )
    key_variable: str = setting(
        "OPENAI_API_KEY",
        "Environment variable of the key; empty: the endpoint needs none.",
        affects="nothing",
    )
    system: str | None = setting(
        None, "System message; None: as the student is asked; empty: none."
    )
    instruction: str | None = setting(
        None, "Text below the question; None: as the student is asked."
    )
    top_p: float | None = setting(None, "Nucleus; None: not sent.", above=0.0, high=1.0)
    max_tokens: int = setting(4096, "Tokens of an answer at most.", low=1)
    longer: int = setting(
        0, "Answers cut off are asked for once more with this limit; 0: they are not.", low=0
    )
    limit_name: str = setting(
        LIMIT_NAMES[0], "The endpoint's name of that limit.", choices=LIMIT_NAMES
    )
    seed: int | None = setting(
        None, "Sent as seed, plus the number of the sample; None: not sent.", low=0
    )
    extra: str = setting(
        "", 'Further fields of the request, a JSON object, e.g. {"reasoning_effort": "low"}.'
    )
    directory: str = setting(
        "",
        "Where answers are kept, so that other runs need not buy them again; empty: bought/ of "
        "the work directory.",
        affects="nothing",
    )
    retry: RetrySettings = field(default_factory=RetrySettings)
    pace: PaceSettings = field(default_factory=PaceSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)

    def __post_init__(self) -> None:
        check_address(self.base_url)
        if self.longer and self.longer <= self.max_tokens:
            raise ConfigError(
                f"longer={self.longer} with max_tokens={self.max_tokens}",
                wanted="more than max_tokens: the same request would be cut off again",
            )
        self.fields()

    def fields(self) -> dict[str, Any]:
        """The further fields of a request.

        Raises:
            ConfigError: not a JSON object, or one that sets what other settings set.
        """
        try:
            found = json.loads(self.extra) if self.extra else {}
        except ValueError as error:
            raise ConfigError(f"extra={self.extra!r}: {error}", wanted="a JSON object") from error
        if not isinstance(found, dict) or _TAKEN & found.keys():
            raise ConfigError(
                f"extra={self.extra!r}", wanted=f"a JSON object without {', '.join(sorted(_TAKEN))}"
            )
        return found


def check_address(url: str) -> None:
    """Raises ConfigError for an address in the settings that may hold a secret, or is none.

    The message does not repeat the secret.
    """
    if not url:
        return
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"base_url={clean(url)!r}", wanted="http://HOST/PATH or https://HOST/PATH"
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"base_url={clean(url)} with a user, a password or a query",
            wanted="none of them: settings are saved in the work directory",
            fix="leave base_url empty, export OPENAI_BASE_URL=..., and set a label",
        )


def clean(url: str) -> str:
    """An address without user, password, query and fragment, for logs and keys."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
