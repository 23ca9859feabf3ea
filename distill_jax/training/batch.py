"""The typed batches of a policy update. Optional arrays are None on purpose, never by omission."""

from typing import Any, TypeVar

import flax.struct
import jax

from distill_jax.core import row_groups

Batch = TypeVar("Batch")


@flax.struct.dataclass
class ScoredRollout:
    """A rollout with its rewards and the scores taken before the update; B = P·G.

    Attributes:
        response_mask_BR: f32, 1 on sampled tokens.
        loss_mask_BR: f32, 1 on the tokens that are trained.
        ended_B: bool, whether the completion ended with EOS.
        reward_PG: f32, reward of each sequence.
        reward_BR: f32 a token; None for group methods.
        terms: (weight, f32 [P, G]) of each term that reward_PG sums, NaN where one does not apply;
            None where the algorithm needs their sum alone.
        old_logp_BR: f32 of the policy before the update; None where nothing needs it.
        ref_logp_BR: f32 of the reference; None without one.
        entropy_BR: f32 of the policy before the update; None where nothing needs it.
        value_BR, end_value_B: f32 of the value head, and of the state after the last token; None
            for group methods.
    """

    response_mask_BR: Any
    loss_mask_BR: Any
    ended_B: Any
    reward_PG: Any
    reward_BR: Any | None
    old_logp_BR: Any | None
    ref_logp_BR: Any | None
    entropy_BR: Any | None
    value_BR: Any | None
    end_value_B: Any | None
    terms: Any | None


@flax.struct.dataclass
class Advantages:
    """What an algorithm makes of a scored rollout, f32.

    Attributes:
        advantage_BR: 0 beyond a response.
        return_BR, old_value_BR: target of the value head, its value; None for group methods.
        top_entropy_BR: 1 on the tokens of highest entropy; None where all are trained.
        policy_B: 0 in steps that train the value head alone, else 1; None without such steps.
    """

    advantage_BR: Any
    return_BR: Any | None = None
    old_value_BR: Any | None = None
    top_entropy_BR: Any | None = None
    policy_B: Any | None = None


@flax.struct.dataclass
class PolicyBatch:
    """What the loss of a policy update is given.

    Attributes:
        tokens_BT: int32, prompt ++ response ++ pad.
        prompts_PS: int32, as in RolloutBatch.
        prompt_len_B: int32.
        targets_BR: int32, the response tokens.
        loss_mask_BR: f32.
        behaviour_logp_BR: f32, under the distribution that was drawn from.
        old_logp_BR: f32; None: the policy of the update is the one that is trained (ratio 1).
        ref_logp_BR: f32; None without a reference.
        advantages: of the algorithm.
    """

    tokens_BT: Any
    prompts_PS: Any | None
    prompt_len_B: Any
    targets_BR: Any
    loss_mask_BR: Any
    behaviour_logp_BR: Any
    old_logp_BR: Any | None
    ref_logp_BR: Any | None
    advantages: Advantages


def needed(array: Any | None, name: str) -> Any:
    """The array; ValueError where an algorithm needs one that was not computed."""
    if array is None:
        raise ValueError(f"{name} is None; the algorithm needs it")
    return array


def take_groups(batch: Batch, index: Any, *, count: int) -> Batch:
    """The batch of some of its `count` groups of consecutive rows, in the order of `index` (int).

    With as many groups as rows: of some of its rows.
    """
    taken = jax.tree.map(lambda leaf: leaf[index], row_groups.nested(batch, count))
    found: Batch = row_groups.flat(taken)
    return found
