"""Scores of the steps of solutions by a process reward model: one forward pass over many rows."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.batching import filled, round_up
from distill_jax.core.errors import CheckpointError, NonFiniteError
from distill_jax.data import chat
from distill_jax.data import tokenizer as tokenizers
from distill_jax.data.chat import Prompts
from distill_jax.kernels import process_reward
from distill_jax.models import process_head, reward_model_io
from distill_jax.models.qwen import QwenModel
from distill_jax.models.reward_model_io import PRMConfig
from distill_jax.reasoning import steps
from distill_jax.reasoning.steps import Encoded
from distill_jax.run.run import Run

# Rows of a forward pass.
BATCH = 64
# Smallest extents of rows and steps; others are these doubled, so that few programs are compiled.
_TOKENS, _STEPS = 32, 8


class ProcessScorer:
    """A process reward model, ready to score.

    Args:
        model, params: the trunk, {"base", "lora"} on the mesh.
        score: parameters of the head on the mesh.
        about: how it reads steps.
        tokenizer: of the completions.
        step_id: the step token's.
        mesh: rows are split over it.
        batch: rows of a forward pass.

    Attributes:
        separator: text between steps.
    """

    def __init__(
        self,
        model: QwenModel,
        params: Any,
        score: Any,
        about: PRMConfig,
        tokenizer: Any,
        step_id: int,
        mesh: Mesh,
        *,
        batch: int = BATCH,
    ):
        self.model, self.params, self.head, self.about = model, params, score, about
        self.tokenizer, self.step_id, self.mesh, self.batch = tokenizer, step_id, mesh, batch
        self.separator = about.step_separator
        positions = model.config.max_position_embeddings
        self.max_length = min(about.max_length or positions, positions)

    def encode(self, prompt: Sequence[int], completion: Sequence[int]) -> Encoded:
        """The row of a prompt and a completion, as in training."""
        split = steps.split_tokens(self.tokenizer, completion, self.separator)
        return steps.encode(prompt, [one.tokens for one in split], self.step_id, self.max_length)

    def score(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> list[np.ndarray]:
        """P(right) of each step of each completion.

        Args:
            prompts: token ids, one prompt a completion.
            completions: token ids without padding; EOS may be there.

        Returns:
            float32 [S] a completion; NaN for steps that max_length left no room for.

        Raises:
            NonFiniteError: a score is not finite.
        """
        rows = [self.encode(*pair) for pair in zip(prompts, completions, strict=True)]
        found = probabilities(
            self.model, self.params, self.head, rows, mesh=self.mesh, batch=self.batch
        )
        return [
            np.concatenate([one, np.full(row.dropped, np.nan, np.float32)])
            for one, row in zip(found, rows, strict=True)
        ]

    def aggregate(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """One score a completion by the model's aggregation, float32 [N]; NaN without a score."""
        if not scores:
            return np.zeros(0, np.float32)
        score_NS = np.full((len(scores), _doubled(max(map(len, scores)), _STEPS)), np.nan)
        for row, one in enumerate(scores):
            score_NS[row, : len(one)] = one
        there_NS = np.isfinite(score_NS)
        kept_NS = np.where(there_NS, score_NS, 0).astype(np.float32)
        how = self.about.aggregation
        return np.asarray(process_reward.aggregate(jnp.asarray(kept_NS), there_NS, how))


def load(run: Run, reference: str, *, batch: int = BATCH) -> ProcessScorer:
    """The scorer of a reward model that a reference names: a stage or a directory.

    It computes in the student's dtypes.

    Raises:
        DataError: there is none.
        CheckpointError: damaged files; a step token with another id than its tokenizer has.
        ConfigError: a step token that its tokenizer does not have.
        TokenizerMismatchError: its tokenizer is not the run's. The step token's text may differ:
            tokenizers of released models rename one of the student's unused tokens.
    """
    directory = run.reward_model(reference)
    own, tokenizer = tokenizers.load_tokenizer(directory), run.data.tokenizer
    geometry, about = reward_model_io.load_config(directory)
    step_id = steps.step_token_id(own, about.step_token)
    if about.step_token_id not in (None, step_id):
        raise CheckpointError(
            f"{directory / reward_model_io.PRM_CONFIG} has step_token_id={about.step_token_id}",
            wanted=f"{step_id}, the id of {about.step_token!r} in the tokenizer there",
        )
    tokenizers.check_same_tokenizer(own, tokenizer, name="reward model", apart=step_id)
    run.models.check_rows(str(directory), geometry)
    found = reward_model_io.load(
        directory,
        param_dtype=run.config.student.param_dtype,
        shardings=run.models.base_shardings,
    )
    model = run.models.build("student", geometry, lora=None)
    head = sharding.place(found.score, sharding.replicated(run.mesh))
    params = {"base": found.base, "lora": {}}
    return ProcessScorer(model, params, head, about, tokenizer, step_id, run.mesh, batch=batch)


def read_by(run: Run, scorer: Any, data: Prompts) -> list[list[int]]:
    """The problems' prompts for a reward model: with the system message that it was trained with,
    where it records one. Released models have one of their own."""
    own = scorer.about.system_prompt if isinstance(scorer, ProcessScorer) else None
    if own is None or own == run.config.data.chat.system_prompt:
        return data.prompts
    settings = dataclasses.replace(run.config.data.chat, system_prompt=own)
    return chat.render_prompts(run.data.tokenizer, data.problems, settings)


def probabilities(
    model: QwenModel,
    params: Any,
    score: Any,
    rows: Sequence[Encoded],
    *,
    mesh: Mesh,
    batch: int = BATCH,
) -> list[np.ndarray]:
    """P(right) at the steps' ends of each row, float32.

    Rows of similar length share a forward pass; extents are doubled until they hold the rows, so
    that a few compiled programs serve all.

    Args:
        model, params: the trunk, {"base", "lora"} on the mesh.
        score: parameters of the head on the mesh.
        rows: encoded steps; rows without any are not computed.
        mesh: rows are split over it.
        batch: rows of a forward pass.

    Raises:
        NonFiniteError: a probability is not finite.
    """
    found = [np.zeros(0, np.float32)] * len(rows)
    kept = [i for i in np.argsort([len(r.tokens) for r in rows], kind="stable") if rows[i].ends]
    if not kept:
        return found
    size = round_up(min(batch, _doubled(len(kept), 1)), sharding.batch_shards(mesh))
    where = sharding.batch_sharding(mesh)
    for start in range(0, len(kept), size):
        index = kept[start : start + size]
        chosen = [rows[i] for i in filled(index, size)]
        arrays = sharding.place(_padded(chosen), where)
        right_BS = sharding.fetch(_program(model)(params, score, *arrays))
        for i, right_S in zip(index, right_BS, strict=False):
            found[i] = right_S[: len(rows[i].ends)]
    if not all(np.isfinite(one).all() for one in found):
        raise NonFiniteError(
            "the reward model's scores are not finite",
            wanted="probabilities",
            fix="look at its weights; set student.compute_dtype=float32",
        )
    return found


def _padded(rows: Sequence[Encoded]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens_BT, end_BS) int32, right-padded with zeros: nothing reads what stands there."""
    T = _doubled(max(len(row.tokens) for row in rows), _TOKENS)
    S = _doubled(max(len(row.ends) for row in rows), _STEPS)
    tokens_BT = np.zeros((len(rows), T), np.int32)
    end_BS = np.zeros((len(rows), S), np.int32)
    for number, row in enumerate(rows):
        tokens_BT[number, : len(row.tokens)] = row.tokens
        end_BS[number, : len(row.ends)] = row.ends
    return tokens_BT, end_BS


def _doubled(least: int, size: int) -> int:
    while size < least:
        size *= 2
    return size


@functools.lru_cache(maxsize=8)
def _program(model: QwenModel) -> Any:
    @jax.jit
    def right(params: Any, score: Any, tokens_BT: jax.Array, end_BS: jax.Array) -> jax.Array:
        hidden_BTD = model.hidden(params, tokens_BT)
        logit_BSC = process_head.apply(score, process_reward.gather_steps(hidden_BTD, end_BS))
        return process_reward.right_probability(logit_BSC)

    return right
