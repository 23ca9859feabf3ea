"""How near a student's next-token distribution is to its teacher's, on the same prefixes."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.batching import filled, round_up
from distill_jax.core.errors import CheckpointError
from distill_jax.data import batching, padding
from distill_jax.data.chat import Example
from distill_jax.evaluation import intervals, subjects
from distill_jax.evaluation.held_out import (
    evaluate_stage,
    greedy_answers,
    greedy_outputs,
    held_out,
)
from distill_jax.models.head.comparison import TokenComparison, head_comparison
from distill_jax.models.qwen import QwenModel
from distill_jax.rollout import completions
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run
from distill_jax.training.distillation import response_hidden

# Measures between 0 and 1; the others have no upper bound to cut an interval at.
SHARES = ("cosine", "top1_agreement")


def compare(
    run: Run,
    student: Loaded,
    teacher: Loaded,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    batch: int,
    multiple: int,
    outputs: Sequence[Sequence[Any]] | None = None,
    tick: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """KL both ways, Jensen-Shannon, cosine and top-1 agreement on given responses: see `summary`.

    Args:
        run: mesh, vocabulary.
        student, teacher: Q and P; of the same tokenizer.
        prompts, responses: token ids of N each; responses as drawn, EOS counted, none empty.
        batch: answers compared at a time.
        multiple: row lengths are multiples of this, of at most six (`padding.plan`).
        outputs: in each response, as `completions.Output`: then each turn of the model counts as a
            response, given all before it.
        tick: called with the number of responses just compared.
    """
    if outputs is not None:
        prompts, responses = _turns(prompts, responses, outputs)
    size = round_up(min(batch, len(prompts)), sharding.batch_shards(run.mesh))
    # Rows of similar length share a batch.
    pairs = zip(prompts, responses, strict=True)
    lengths_N2 = np.array([(len(p) + len(r), len(r)) for p, r in pairs])
    order = np.argsort(lengths_N2[:, 0], kind="stable")
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    chosen = padding.plan(lengths_N2, batches, multiple=multiple).chosen
    found: list[tuple[TokenComparison, np.ndarray]] = []
    for rows in batches:
        # The repeats that fill the last batch are dropped below.
        examples = [Example(list(prompts[i]), list(responses[i])) for i in filled(rows, size)]
        packed = batching.pack_examples(
            examples, pad_id=run.data.pad_id, multiple=multiple, chosen=chosen
        )
        placed = sharding.place(packed, sharding.batch_sharding(run.mesh))
        scores = sharding.fetch(compare_on_responses(student, teacher, placed, run.data.vocab))
        host = TokenComparison(*(x_BR[: len(rows)] for x_BR in scores))
        found.append((host, packed["response_len_B"][: len(rows)]))
        if tick is not None:
            tick(len(rows))
    return summary(found)


def _turns(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[Any]],
) -> tuple[list[list[int]], list[list[int]]]:
    """Each turn of the model, with all tokens before it as its prompt."""
    pairs = [
        ([*prompt, *response[:start]], list(response[start:stop]))
        for prompt, response, between in zip(prompts, responses, outputs, strict=True)
        for start, stop in completions.turns(len(response), between)
    ]
    return [prompt for prompt, _ in pairs], [turn for _, turn in pairs]


def compare_all(run: Run, names: Sequence[str], answers_of: str) -> dict[str, Any]:
    """Each pair of the subjects `names` that exist, on the greedy answers of one of them.

    Returns:
        JSON-able {"answers_of", "problems", "pairs": [{"p", "q", and what `summary` gives: forward
        KL is KL(p‖q)}]}.

    Raises:
        CheckpointError: fewer than two models, or no kept answers of that one.
    """
    stage = evaluate_stage(run)
    found = {s.name: s for s in subjects.find(run, stage.settings) if s.name in names}
    for name in names:
        if name not in found and name not in run.config.plan and Path(name).is_dir():
            found[name] = subjects.student(run, name)  # the start of a stage
    if len(found) < 2 or answers_of not in found:
        known = ", ".join(found) or "none"
        raise CheckpointError(
            f"answers of {answers_of} with {known} in {run.workdir}",
            wanted=f"two of {', '.join(names)}, and answers of one of them",
            fix=run.run_first(stage.name),
        )
    data = held_out(run, stage.settings)
    answers = greedy_answers(run, stage, found[answers_of], data)
    outputs = greedy_outputs(run, stage, answers_of)

    @functools.cache
    def load(name: str) -> Loaded:
        return found[name].load()

    how: dict[str, Any] = {
        "batch": stage.settings.compare_batch,
        "multiple": stage.settings.batch_multiple,
        "outputs": outputs,
    }
    pairs = []
    for p, q in itertools.combinations([name for name in names if name in found], 2):
        run.say(f"{q} against {p}")
        one = compare(run, load(q), load(p), data.prompts, answers, **how)
        pairs.append({"p": p, "q": q, **one})
    return {"answers_of": answers_of, "problems": len(answers), "pairs": pairs}


def compare_on_responses(
    student: Loaded, teacher: Loaded, batch: Mapping[str, Any], vocab: int
) -> TokenComparison:
    """Compares both distributions at every response token, teacher-forced on given responses.

    The token at place t is compared in the distributions one place before it, which have not seen
    it. One compiled program for all checkpoints of a student.

    Args:
        student, teacher: Q and P; may differ in width and in the number of logit rows.
        batch: of `pack_examples`.
        vocab: tokens that exist in both; logit rows beyond never enter.

    Returns:
        float32 [B, R] of each measure; values beyond a response's length mean nothing.
    """
    read = {name: batch[name] for name in ("tokens_BT", "prompt_len_B", "targets_BR")}
    return _compare(student.model, teacher.model, vocab, student.params, teacher.params, read)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compare(
    student: QwenModel,
    teacher: QwenModel,
    vocab: int,
    student_params: Any,
    teacher_params: Any,
    batch: dict[str, jax.Array],
) -> TokenComparison:
    scores = head_comparison(
        response_hidden(student, student_params, batch),
        student.whole_head_VD(student_params),
        response_hidden(teacher, teacher_params, batch),
        teacher.whole_head_VD(teacher_params),
        valid_vocab=vocab,
        shards=student.shards,
    )
    return TokenComparison(*(x_N.reshape(batch["targets_BR"].shape) for x_N in scores))


def response_means(scores: TokenComparison, length_B: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of each measure over the tokens of each response, float64 [B]; nan for an empty one."""
    mask_BR = np.arange(scores.cosine.shape[1]) < length_B[:, None]
    out = {}
    for name, x_BR in scores._asdict().items():
        # Chosen, not multiplied: what is behind a response may be anything.
        total_B = np.where(mask_BR, np.asarray(x_BR, np.float64), 0.0).sum(axis=1)
        out[name] = np.divide(
            total_B, length_B, out=np.full(len(length_B), np.nan), where=length_B > 0
        )
    return out


def token_means(
    batches: Sequence[tuple[TokenComparison, np.ndarray]],
) -> dict[str, float | int | None]:
    """Mean of each measure over all response tokens of batches (scores [B, R], response_len_B).

    Divergences are in nats; None without a token. Also "tokens" and "responses", their numbers.
    """
    tokens = int(sum(length_B.sum() for _, length_B in batches))
    total = dict.fromkeys(TokenComparison._fields, 0.0)
    for scores, length_B in batches:
        for name, mean_B in response_means(scores, length_B).items():
            total[name] += float(np.sum(np.where(length_B > 0, mean_B * length_B, 0.0)))
    means = {name: x / tokens if tokens else None for name, x in total.items()}
    return {**means, "tokens": tokens, "responses": sum(len(length_B) for _, length_B in batches)}


def summary(batches: Sequence[tuple[TokenComparison, np.ndarray]]) -> dict[str, Any]:
    """The means of `token_means`, no response empty, with their 95% intervals over responses.

    Returns:
        JSON-able {"tokens", "responses", measure: {"mean", "low", "high"}}; None without a
        response.
    """
    size_N = np.concatenate([length_B for _, length_B in batches]) if batches else np.zeros(0)
    each = [response_means(scores, length_B) for scores, length_B in batches]
    out: dict[str, Any] = {"tokens": int(size_N.sum()), "responses": len(size_N)}
    for name in TokenComparison._fields:
        estimate: dict[str, Any] = dict.fromkeys(intervals.Estimate._fields)
        if len(size_N):
            total_N = np.concatenate([one[name] for one in each]) * size_N
            most = 1.0 if name in SHARES else np.inf
            estimate = intervals.ratio_interval(total_N, size_N, most)._asdict()
        out[name] = estimate
    return out
