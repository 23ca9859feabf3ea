"""The loss of distillation: a student's divergence from its teacher, mixed with cross-entropy."""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError
from distill_jax.core.masked import masked_sum
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.kernels.divergence import KINDS, branch
from distill_jax.kernels.future import cost_to_go, less_other_samples
from distill_jax.models.head.loss import Term, head_loss
from distill_jax.models.head.scores import head_scores
from distill_jax.models.head.terms import cross_entropy, divergence, top_k_divergence
from distill_jax.models.qwen import QwenModel
from distill_jax.models.response import located, response_states
from distill_jax.training.own_tokens import of_examples, on_own_tokens, stored_top_k
from distill_jax.training.state import join
from distill_jax.training.step import LossFn, TotalsFn


@dataclass(frozen=True)
class DistillLossSettings:
    """kd_weight·T²·divergence + ce_weight·cross-entropy, a mean over response tokens."""

    UNREAD: ClassVar = (
        Unread(("divergence", "beta", "temperature", "top_k", "future"), ("kd_weight",), off),
        Unread(("future_discount",), ("future",), off),
    )

    divergence: str = setting(
        "forward", "forward KL(P‖Q) of teacher P, reverse KL(Q‖P), or jsd.", choices=KINDS
    )
    beta: float = setting(
        0.5, "β of jsd: M = βP + (1−β)Q; 0 means forward, 1 reverse.", low=0.0, high=1.0
    )
    temperature: float = setting(
        3.0, "T that divides both models' logits; the divergence is multiplied by T².", above=0.0
    )
    kd_weight: float = setting(
        0.7,
        "Weight of the divergence. 0: cross-entropy alone, and a step runs no teacher; on the "
        "teacher's samples that is hard sequence distillation.",
        low=0.0,
    )
    ce_weight: float = setting(
        0.3,
        "Weight of the cross-entropy (at temperature 1) on given tokens: those of solutions or of "
        "the teacher, never the student's own.",
        low=0.0,
    )
    future: float = setting(
        0.0,
        "Weight of a policy gradient on the divergence of later tokens, on the student's samples: "
        "the loss is myopic without it; 1 with reverse at temperature 1 is the gradient of the "
        "whole answer's KL.",
        low=0.0,
    )
    future_discount: float = setting(
        1.0, "γ: a divergence n tokens later counts γⁿ in the future term.", low=0.0, high=1.0
    )
    top_k: int = setting(
        0,
        "0 compares whole distributions. Else the teacher gives its k most probable tokens and "
        "the mass of all others, a lower bound of the divergence.",
        low=0,
    )

    def __post_init__(self) -> None:
        if self.beta != 0.5 and self.divergence != "jsd":
            raise ConfigError(
                f"beta={self.beta} with divergence={self.divergence}", wanted="divergence=jsd"
            )
        if not (self.kd_weight or self.ce_weight):
            raise ConfigError("kd_weight=0 with ce_weight=0", wanted="one of them above 0")

    @property
    def measure(self) -> str:
        """What the divergence is recorded as: "kl" or "jsd"."""
        return "jsd" if branch(self.divergence, self.beta) == "jsd" else "kl"


def response_hidden(
    model: QwenModel, params: Any, batch: Any, dropout_key: jax.Array | None = None
) -> jax.Array:
    """States that the response tokens are drawn from: [B·R, D]."""
    size = batch["targets_BR"].shape[1]
    hidden_BRD = response_states(model, params, *located(batch), size, dropout_key=dropout_key)
    return hidden_BRD.reshape(-1, hidden_BRD.shape[-1])


# What a model reads of a batch, besides responses, to predict their tokens: whole rows, or groups.
READ = ("tokens_BT", "prompt_len_B")
READ_GROUPS = ("prompts_PS", "prompt_len_B")


def compared(
    settings: DistillLossSettings,
    teacher: QwenModel,
    frozen: Any,
    batch: Any,
    mean_N: jax.Array,
    *,
    own: bool,
) -> Term:
    """The divergence from the teacher, by its parameters or its stored top k.

    frozen, batch: as for `distill`. mean_N: weight of each token in a mean, float32 [B·R].
    own: of the student's tokens, so that the teacher's probability of each is a figure, too.
    """
    weights_N = settings.kd_weight * mean_N
    how: dict[str, Any] = {
        "kind": settings.divergence,
        "beta": settings.beta,
        "temperature": settings.temperature,
    }
    if settings.top_k:
        return top_k_divergence(stored_top_k(batch), weights_N, **how)
    params = frozen["teacher"]
    names = {*READ, *READ_GROUPS}
    own_prompts = {name: batch[f"teacher_{name}"] for name in names if f"teacher_{name}" in batch}
    if own_prompts:
        batch = {**batch, "prompts_PS": None, **own_prompts}
    teacher_NE = response_hidden(teacher, params, batch)
    targets_N = batch["targets_BR"].reshape(-1) if own else None
    return divergence(
        teacher_NE, teacher.whole_head_VD(params), weights_N, targets_N=targets_N, **how
    )


def future_term(
    hidden_ND: jax.Array,
    head_VD: jax.Array,
    value_BR: jax.Array,
    batch: Any,
    tokens: jax.Array,
    *,
    gamma: float,
    samples: int,
    drawn_at: float,
    vocab: int,
    shards: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """(0 with the gradient Σ_t (C_t − b_t)·∇log π(a_t) / tokens, the mean C_t).

    C_t = Σ_{i>t} γ^{i−t}·D_i of divergences D: descent makes tokens rarer that lead where the
    models differ. Added to D's own gradient, with γ = 1 it gives that of E[Σ_t D_t], which for the
    reverse KL at temperature 1 is KL(π_S‖π_T) of whole answers (MiniLLM's objective, arXiv
    2306.08543, with the exact divergence for the log-ratio). b_t is the mean C_t of the prompt's
    other samples: unbiased. The sum is divided by the batch's number of tokens, never by a row's:
    long and short answers keep their weight.

    Args:
        hidden_ND, head_VD: the student's states of the response tokens, B·R of them, and head.
        value_BR: D_t, float32.
        batch: targets_BR, the student's samples, and loss_mask_BR.
        tokens: of the whole batch.
        gamma: γ.
        samples: rows of each prompt, in the order of `kernels.future`.
        drawn_at: temperature that they were drawn at.
        vocab: tokens that exist.
        shards: devices that the rows are split over.
    """
    targets_BR, mask_BR = batch["targets_BR"], batch["loss_mask_BR"]
    to_go_BR = cost_to_go(value_BR, mask_BR, gamma=gamma)
    advantage_BR = less_other_samples(to_go_BR, samples)
    # A masked state may be anything, and 0·NaN is NaN.
    kept_ND = jnp.where(mask_BR.reshape(-1, 1) > 0, hidden_ND, 0.0)
    scores = head_scores(
        kept_ND,
        head_VD,
        targets_BR.reshape(-1),
        temperature=drawn_at,
        valid_vocab=vocab,
        shards=shards,
    )
    logp_BR = scores.logp_N.reshape(mask_BR.shape)
    term = masked_sum(advantage_BR * logp_BR, mask_BR) / tokens
    return term - jax.lax.stop_gradient(term), masked_sum(to_go_BR, mask_BR) / tokens


@functools.lru_cache(maxsize=32)
def distill(
    student: QwenModel,
    teacher: QwenModel,
    settings: DistillLossSettings,
    vocab: int,
    *,
    given: bool,
    samples: int = 1,
    drawn_at: float = 1.0,
) -> tuple[LossFn, TotalsFn]:
    """The loss on response tokens, EOS included: mean over the batch's tokens.

    The batch holds tokens_BT, targets_BR, loss_mask_BR, and prompt_len_B or, where rows hold
    several given examples, segment_BT and at_BR; `frozen` holds the teacher's parameters under
    "teacher". With top_k the batch holds the fields of a
    `TopK` of axes [B, R] instead, as "teacher_ids_XK" and so on. A teacher with its own prompts
    needs the batch's READ arrays a second time, as "teacher_tokens_BT" and so on.

    The gradient goes through the student's distributions at these tokens alone, also where the
    student has drawn them: its choices change what comes after, and only `future` has a term for
    that (arXiv 2306.13649, as TRL's GKD does it): see `future_term`, whose weight is
    kd_weight·T²·future. The loss's value stays that of the divergence.

    Args:
        student, teacher: Q and P; may differ in width and logit rows.
        settings: of the loss.
        vocab: tokens that exist in both.
        given: whether the tokens were given, by solutions or the teacher: then ce_weight counts;
            else `future` does.
        samples: rows of each prompt, in the order of `kernels.future`; for `future` at least 2.
        drawn_at: temperature that the student's samples were drawn at; for `future`.

    Metrics: "kl" or "jsd", the divergence without T², where it counts; "kl_to_go", the mean C_t
    without T², with `future`; "ce", the cross-entropy, where it counts; "rows_B", the divergence
    of each example without T² (with kd_weight 0 the cross-entropy), a mean over its tokens, where
    the batch holds their places, to which microbatches add up: see `own_tokens.of_examples`; and
    those of `own_tokens.on_own_tokens` where the tokens were not given.
    """
    ce_weight = settings.ce_weight if given else 0.0

    def totals(batch: Any) -> jax.Array:
        return jnp.maximum(jnp.sum(batch["loss_mask_BR"]), 1.0)

    def loss(trainable: Any, frozen: Any, batch: Any, tokens: jax.Array, key: jax.Array):
        params = join(trainable, frozen)
        hidden_ND = response_hidden(student, params, batch, key)
        head_VD, mask_BR = student.whole_head_VD(params), batch["loss_mask_BR"]
        mean_N = mask_BR.reshape(-1) / tokens
        terms = {}
        if settings.kd_weight:
            terms["kd"] = compared(settings, teacher, frozen, batch, mean_N, own=not given)
        if ce_weight:
            terms["ce"] = cross_entropy(batch["targets_BR"].reshape(-1), ce_weight * mean_N)
        how = {"valid_vocab": vocab, "shards": student.shards}
        value, values = head_loss(hidden_ND, head_VD, list(terms.values()), **how)
        per_token = dict(zip(terms, values, strict=True))
        metrics: dict[str, jax.Array] = {}
        if "kd" in terms:
            value_NC = per_token["kd"].reshape(mask_BR.size, -1)
            value_BR = value_NC[:, 0].reshape(mask_BR.shape) / settings.temperature**2
            if not given:
                ours = hidden_ND, head_VD
                metrics |= on_own_tokens(settings, ours, batch, value_NC[:, 1:], tokens, vocab)
            metrics[settings.measure] = masked_sum(value_BR, mask_BR) / tokens
            if settings.future and not given:
                term, metrics["kl_to_go"] = future_term(
                    hidden_ND, head_VD, value_BR, batch, tokens,
                    gamma=settings.future_discount, samples=samples, drawn_at=drawn_at, vocab=vocab,
                    shards=student.shards,
                )  # fmt: skip
                value += settings.kd_weight * settings.future * settings.temperature**2 * term
        else:
            value_BR = per_token["ce"].reshape(mask_BR.shape)
        if batch.keys() & {"place_BB", "place_BE"}:
            metrics["rows_B"] = of_examples(value_BR, mask_BR, batch)
        if "ce" in terms:
            metrics["ce"] = masked_sum(per_token["ce"], mask_BR.reshape(-1)) / tokens
        return value, metrics

    return loss, totals
