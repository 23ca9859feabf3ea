"""The teacher's part of a policy's loss, exactly: `rl.rewards.credit=exact`.

    L = L_policy + w·mean_t KL_t,   KL_t = Σ_a π_S(a)·(log π_S(a) − log π_T(a))

Token credit with γ = 0 and s = 1 gives the sampled token a_t the advantage log π_T − log π_S. Its
gradient, averaged over the tokens that may be drawn in that state, is −∇KL_t; here the average is
taken by formula (Rao and Blackwell), so the noise of the one token drawn is gone. That of the
states, which the student's samples lead to, stays; and as there, no gradient goes through which
states they are. L_policy is of all other terms. KDRL (arXiv 2506.02208) has this sum.

π_S is the student at the sampling temperature, as in L_policy, and π_T the teacher at 1, as in the
intrinsic reward. Of a truncated sampler (top_p, top_k) it is the whole distribution.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from distill_jax.core import sharding
from distill_jax.core.masked import masked_sum
from distill_jax.kernels.policy_losses import Normaliser
from distill_jax.models.head.loss import head_loss
from distill_jax.models.qwen import QwenModel
from distill_jax.training import losses
from distill_jax.training.algorithms import Algorithm
from distill_jax.training.batch import PolicyBatch
from distill_jax.training.distillation import DistillLossSettings, compared
from distill_jax.training.state import join
from distill_jax.training.step import LossFn, Metrics, TotalsFn

_REVERSE = DistillLossSettings("reverse", temperature=1.0, kd_weight=1.0, ce_weight=0.0)
# Sums over the tokens that end completions, and what is logged of them.
_MASS_OF_ENDS, _ENDS, _MASS_AT_END = "teacher/mass_of_ends", "teacher/ends", "teacher/mass_at_end"


@flax.struct.dataclass
class ExactBatch:
    """A policy's batch, and what the KL to the teacher needs besides it.

    Attributes:
        policy: of the algorithm's loss; the KL is over its loss mask.
        end_BR: f32, 1 on the token with which a completion ended, trained on or not.
        teacher: "teacher_tokens_BT", or "teacher_prompts_PS" in groups, and "teacher_prompt_len_B",
            int32: the same responses behind the teacher's own prompts; {} where it reads the
            student's.
    """

    policy: PolicyBatch
    end_BR: Any
    teacher: dict[str, Any]


@functools.lru_cache(maxsize=32)
def policy(
    model: QwenModel,
    algorithm: Algorithm,
    settings: Any,
    *,
    teacher: QwenModel,
    weight: float,
    temperature: float,
    vocab: int,
) -> tuple[LossFn, TotalsFn]:
    """`losses.policy` plus weight·KL(π_S‖π_T), nats, a mean over the batch's trained tokens.

    The batch is an ExactBatch; `frozen` holds the teacher's parameters under "teacher". The student
    runs once; its head is applied twice, for log-probabilities and for distributions.

    Args:
        model, algorithm, settings, temperature, vocab: as for `losses.policy`; vocab tokens exist
            in both models, which may differ in width and logit rows.
        teacher: π_T.
        weight: w.

    Metrics besides the policy's: "teacher/kl", the mean KL; "teacher/mass", the mean of π_T of the
    tokens; sums from which `logged` makes "teacher/mass_at_end".
    """
    totals = losses.policy(model, algorithm, settings, temperature=temperature, vocab=vocab)[1]

    def loss(trainable: Any, frozen: Any, batch: ExactBatch, norm: Normaliser, key: jax.Array):
        del key
        value, metrics, hidden_BRD = losses.of_policy(
            model, algorithm, settings, trainable, frozen, batch.policy, norm,
            temperature=temperature, vocab=vocab,
        )  # fmt: skip
        # logits/τ = (hidden/τ)·headᵀ: the kernel's own temperature would divide the teacher's, too.
        # In bfloat16 with τ ≠ 1 this rounds the states once more.
        hidden_ND = hidden_BRD.reshape(-1, hidden_BRD.shape[-1]) / temperature
        head_VD = model.whole_head_VD(join(trainable, frozen))
        mask_BR = batch.policy.loss_mask_BR
        given = {
            "tokens_BT": batch.policy.tokens_BT,
            "prompts_PS": batch.policy.prompts_PS,
            "prompt_len_B": batch.policy.prompt_len_B,
            "targets_BR": batch.policy.targets_BR,
            **batch.teacher,
        }
        mean_N = weight * mask_BR.reshape(-1) / norm.tokens
        term = compared(_REVERSE, teacher, frozen, given, mean_N, own=True)
        exact, (value_N2,) = head_loss(
            hidden_ND, head_VD, [term], valid_vocab=vocab, shards=model.shards
        )
        kl_BR, logp_BR = (x_N.reshape(mask_BR.shape) for x_N in value_N2.T)
        return value + exact, {**metrics, **_figures(kl_BR, logp_BR, batch, norm)}

    return loss, lambda batch: totals(batch.policy)


def _figures(kl_BR: jax.Array, logp_BR: jax.Array, batch: ExactBatch, norm: Normaliser) -> Metrics:
    mask_BR, mass_BR = batch.policy.loss_mask_BR, jnp.exp(logp_BR)
    return {
        "teacher/kl": masked_sum(kl_BR, mask_BR) / norm.tokens,
        "teacher/mass": masked_sum(mass_BR, mask_BR) / norm.tokens,
        _MASS_OF_ENDS: masked_sum(mass_BR, batch.end_BR),
        _ENDS: jnp.sum(batch.end_BR),
    }


def logged(metrics: Metrics) -> dict[str, Any]:
    """The metrics of an update, or means over several, as they are logged.

    "teacher/mass_at_end" is the mean of π_T of the end token where the student ended; without such
    a completion there is none. Metrics of another loss are returned as they are.
    """
    if _ENDS not in metrics:
        return metrics
    sums = sharding.fetch({name: metrics[name] for name in (_MASS_OF_ENDS, _ENDS)})
    out: dict[str, Any] = {name: value for name, value in metrics.items() if name not in sums}
    if sums[_ENDS]:
        out[_MASS_AT_END] = float(sums[_MASS_OF_ENDS] / sums[_ENDS])
    return out
