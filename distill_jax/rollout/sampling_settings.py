"""How completions are drawn: settings of the sampler."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are drawn."""

    UNREAD: ClassVar = (Unread(("output_tokens",), ("rounds",), lambda rounds: rounds == 1),)

    temperature: float = setting(1.0, "Divides the logits; 0 decodes greedily.", low=0.0)
    top_p: float = setting(1.0, "Nucleus mass kept; 1 is off.", above=0.0, high=1.0)
    top_k: int = setting(0, "Most probable tokens kept; 0 is off.", low=0)
    max_new_tokens: int = setting(512, "Longest completion, EOS included.", low=1)
    rounds: int = setting(
        1,
        "Turns of the model in a completion; between two of them a task that runs programs puts "
        "the output of the program before.",
        low=1,
    )
    output_tokens: int = setting(
        400, "Longest such output; the middle of a longer one is cut out and marked.", low=64
    )
    segment: int = setting(
        32, "Decode steps between two checks which rows have ended.", low=1, affects="rounding"
    )
    row_counts: int = setting(
        0,
        "Different numbers of rows that a batch is decoded with, at most: while its rows end it "
        "shrinks to a quarter, once a segment. 0: to halves, as far as they go.",
        low=0,
        affects="rounding",
    )
    prompt_multiple: int = setting(
        64, "Prompts are padded to a multiple of this.", low=1, affects="rounding"
    )
    merge_lora: bool = setting(
        True, "Fold LoRA into a copy of the weights for decoding.", affects="rounding"
    )

    @property
    def response_tokens(self) -> int:
        """Longest response: what the model draws, and the outputs between its turns."""
        return self.max_new_tokens + (self.rounds - 1) * self.output_tokens

    def whole(self, temperature: float) -> "SamplingSettings":
        """The same limits, drawn from the whole distribution at a temperature; 0 is greedy."""
        return dataclasses.replace(self, temperature=temperature, top_p=1.0, top_k=0)
