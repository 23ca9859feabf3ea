"""The settings of a server that gives log-probabilities of given tokens, and how it is asked."""

from dataclasses import dataclass, field
from functools import partial

from distill_jax.core.settings import setting
from distill_jax.synthesis.settings import AttemptSettings, PaceSettings, check_address

APIS = ("vllm", "sglang")


@dataclass(frozen=True)
class ScoreServerSettings:
    """A server that gives log-probabilities of given tokens (extra api): vLLM or SGLang."""

    api: str = setting(
        "vllm",
        "vllm: POST /completions with prompt_logprobs, the address ends in /v1; sglang: POST "
        "/generate, the address has no /v1.",
        choices=APIS,
        affects="nothing",
    )
    model: str = setting("", "Name of the model at the server; it must share the student's tokens.")
    base_url: str = setting(
        "",
        "Address, e.g. http://localhost:8000/v1; empty: $OPENAI_BASE_URL. User, password and query "
        "are refused: settings are saved; give such an address in the variable.",
        affects="nothing",
    )
    label: str = setting(
        "",
        "Name of the server in keys of cached scores; empty: its address without user and query.",
        affects="nothing",
    )
    key_variable: str = setting(
        "",
        "Environment variable of the key; empty: the server needs none.",
        affects="nothing",
    )
    deadline_s: float = setting(
        600.0,
        "Seconds for all scores of a step, attempts included; then the run stops.",
        above=0.0,
        affects="nothing",
    )
    tolerance: float = setting(
        0.02,
        "Nats by which a token's log-probability may differ when a sequence is asked again, alone "
        "or with others in flight: checked before the first stage begins.",
        above=0.0,
        affects="nothing",
    )
    retry: AttemptSettings = field(
        default_factory=partial(AttemptSettings, attempts=30, longest_backoff_s=30.0)
    )
    pace: PaceSettings = field(default_factory=PaceSettings)

    def __post_init__(self) -> None:
        check_address(self.base_url)
