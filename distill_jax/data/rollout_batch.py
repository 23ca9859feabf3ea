"""RolloutBatch: completions as arrays, for scoring and training."""

from typing import Any

import flax.struct


@flax.struct.dataclass
class RolloutBatch:
    """Completions as compact rows, prompt ++ response ++ pad, with response-aligned arrays.

    Attributes:
        tokens_BT: int32.
        prompt_len_B: int32.
        response_len_B: int32, outputs between the model's turns included.
        response_mask_BR: f32, 1 on sampled tokens, EOS included; 0 on outputs.
        targets_BR: int32, the response tokens.
        ended_B: bool, whether the completion ended with EOS.
        behaviour_logp_BR: f32, under the distribution that was drawn from; 0 on outputs.
        prompts_PS: int32, right padded; row p is the prompt of rows p·G … (p+1)·G − 1, G = B / P,
            which a model computes once for them. None: each row is computed whole.
    """

    tokens_BT: Any
    prompt_len_B: Any
    response_len_B: Any
    response_mask_BR: Any
    targets_BR: Any
    ended_B: Any
    behaviour_logp_BR: Any
    prompts_PS: Any | None = None

    def to_score(self) -> dict[str, Any]:
        """The arrays that a teacher's scorer reads, by name; prompts_PS if it is set."""
        names = ("tokens_BT", "prompt_len_B", "response_len_B", "targets_BR", "prompts_PS")
        found = {name: getattr(self, name) for name in names}
        return {name: array for name, array in found.items() if array is not None}
