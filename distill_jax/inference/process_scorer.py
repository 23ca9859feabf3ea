"""Scores of the steps of solutions by a process reward model: one forward pass over many rows.

An implicit model takes two passes: one of the policy, one of its reference.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distill_jax.core import sharding
from distill_jax.core.errors import CheckpointError
from distill_jax.data import chat
from distill_jax.data import tokenizer as tokenizers
from distill_jax.data.chat import Prompts
from distill_jax.inference import implicit_scores
from distill_jax.inference.step_batches import (
    BATCH,
    STEPS,
    TOKENS,
    doubled,
    in_batches,
    padded,
    refused_unless_finite,
)
from distill_jax.kernels import process_reward
from distill_jax.models import implicit_io, peft_io, process_head, reward_model_io
from distill_jax.models.qwen import QwenModel
from distill_jax.models.reward_model_io import IMPLICIT, PRM_CONFIG, PRMConfig
from distill_jax.reasoning import steps
from distill_jax.reasoning.steps import Encoded, Format
from distill_jax.run.run import Run


class ProcessScorer:
    """A process reward model, ready to score.

    Args:
        model, params: the trunk, {"base", "lora"} on the mesh.
        head: parameters of the head on the mesh; for an implicit model, the reference's params.
        about: how the model reads steps.
        tokenizer: of the completions.
        step_id: id of the step token.
        mesh: rows are split over it.
        batch: rows of a forward pass.

    Attributes:
        how: where steps end.
        max_length: most tokens of a row.
    """

    def __init__(
        self,
        model: QwenModel,
        params: Any,
        head: Any,
        about: PRMConfig,
        tokenizer: Any,
        step_id: int,
        mesh: Mesh,
        *,
        batch: int = BATCH,
    ):
        self.model, self.params, self.head, self.about = model, params, head, about
        self.tokenizer, self.step_id, self.mesh, self.batch = tokenizer, step_id, mesh, batch
        self.how = Format(about.step_split, about.step_separator)
        positions = model.config.max_position_embeddings
        self.max_length = min(about.max_length or positions, positions)

    def encode(self, prompt: Sequence[int], completion: Sequence[int]) -> Encoded:
        """The row of a prompt and a completion, as in training."""
        split = steps.split_tokens(self.tokenizer, completion, self.how)
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
        found = self.probabilities(rows)
        return [
            np.concatenate([one, np.full(row.dropped, np.nan, np.float32)])
            for one, row in zip(found, rows, strict=True)
        ]

    def probabilities(self, rows: Sequence[Encoded]) -> list[np.ndarray]:
        """P(right) at the steps' ends of each row, float32.

        Raises:
            NonFiniteError: a probability is not finite.
        """
        how: Any = {"mesh": self.mesh, "batch": self.batch}
        if self.about.beta is None:
            return probabilities(self.model, self.params, self.head, rows, **how)
        how["vocab"] = len(self.tokenizer)
        policy, reference = (
            implicit_scores.step_logps(self.model, params, rows, **how)
            for params in (self.params, self.head)
        )
        return implicit_scores.probabilities(policy, reference, beta=self.about.beta)

    def aggregate(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Scores of completions by the model's aggregation, float32 [N]; NaN without a step."""
        if not scores:
            return np.zeros(0, np.float32)
        score_NS = np.full((len(scores), doubled(max(map(len, scores)), STEPS)), np.nan)
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
        DataError: no such reward model.
        CheckpointError: damaged files; see `check`.
        ConfigError, TokenizerMismatchError: see `check`.
    """
    directory, about, step_id = check(run, reference)
    rest = (about, run.data.tokenizer, step_id, run.mesh)
    if about.head == IMPLICIT:
        loaded = run.models.load_whole(_base_of(run, directory, about))
        adapters = implicit_io.load(directory, loaded.model.config)
        model = loaded.model.replace(lora=adapters.lora)
        policy, start = (
            {**loaded.params, "lora": run.models.place_lora(jax.device_get(tree))}
            for tree in (adapters.policy, adapters.reference)
        )
        return ProcessScorer(model, policy, start, *rest, batch=batch)
    found = reward_model_io.load(
        directory,
        param_dtype=run.config.student.param_dtype,
        shardings=run.models.base_shardings,
    )
    model = run.models.build("student", found.geometry, lora=None)
    head = sharding.place(found.score, sharding.replicated(run.mesh))
    return ProcessScorer(model, {"base": found.base, "lora": {}}, head, *rest, batch=batch)


def check(run: Run, reference: str, *, base: bool = True) -> tuple[Path, PRMConfig, int]:
    """(directory, how the model reads steps, id of the step token); reads no weights.

    base: whether the base model of an implicit model's adapters must exist.

    Raises:
        DataError: no such reward model.
        CheckpointError: damaged files; a step token with another id than in its tokenizer; a
            split that is not known; an implicit model whose base model is another one, or missing.
        ConfigError: a step token that its tokenizer does not have; steps that the run's task does
            not have.
        TokenizerMismatchError: its tokenizer is not the run's. The step token's text may differ:
            tokenizers of released models rename one of the student's unused tokens.
    """
    directory = run.reward_model(reference)
    own, tokenizer = tokenizers.load_tokenizer(directory), run.data.tokenizer
    if reward_model_io.is_implicit(directory):
        about = reward_model_io.read_about(directory / PRM_CONFIG)
    else:
        geometry, about = reward_model_io.load_config(directory)
        run.models.check_rows(str(directory), geometry)
    if about.step_split not in steps.SPLITS:
        raise CheckpointError(
            f"{directory / PRM_CONFIG} has step_split={about.step_split!r}",
            wanted=f"one of {', '.join(steps.SPLITS)}",
        )
    how = Format(about.step_split, about.step_separator)
    how.check_task(run.config.task, f"{directory / PRM_CONFIG}: step_split")
    step_id = steps.step_token_id(own, about.step_token)
    if about.step_token_id not in (None, step_id):
        raise CheckpointError(
            f"{directory / PRM_CONFIG} has step_token_id={about.step_token_id}",
            wanted=f"{step_id}, the id of {about.step_token!r} in the tokenizer there",
        )
    tokenizers.check_same_tokenizer(own, tokenizer, name="reward model", apart=step_id)
    if about.head == IMPLICIT and base:
        _base_of(run, directory, about)
    return directory, about, step_id


def _base_of(run: Run, directory: Path, about: PRMConfig) -> Path:
    """The base model of an implicit model's adapters: as they name it, or the run's student.

    Raises:
        CheckpointError: neither is the one that they were trained on.
    """
    wanted = (about.reference or {}).get("student")
    named = peft_io.base_of(directory)
    tried = [named, run.models.path("student")] if named else [run.models.path("student")]
    for path in tried:
        if path is not None and run.digest(path) == wanted:
            return path
    raise CheckpointError(
        f"{directory} was trained on another model than {', '.join(map(str, tried))}",
        wanted=f"the model of digest {wanted}",
        fix=f"set base_model_name_or_path in {directory / peft_io.CONFIG} to its directory",
    )


def read_by(run: Run, scorer: Any, data: Prompts) -> list[list[int]]:
    """The problems' prompts for a reward model, with the system message that it was trained with.

    A model that records no system message reads the run's prompts.
    """
    own = scorer.about.system_prompt if isinstance(scorer, ProcessScorer) else None
    if own is None or own == run.config.data.chat.system_prompt:
        return data.prompts
    settings = dataclasses.replace(run.data.task.chat, system_prompt=own)
    return chat.render_prompts(run.data.tokenizer, data.problems, settings)


def probabilities(
    model: QwenModel,
    params: Any,
    head: Any,
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
        head: parameters of the head on the mesh.
        rows: encoded solutions; those without a step are not computed.
        mesh: rows are split over it.
        batch: rows of a forward pass.

    Raises:
        NonFiniteError: a probability is not finite.
    """

    def arrays(chosen: Sequence[Encoded]) -> tuple[np.ndarray, np.ndarray]:
        return padded([r.tokens for r in chosen], TOKENS), padded([r.ends for r in chosen], STEPS)

    program = functools.partial(_program(model), params, head)
    right = in_batches(rows, arrays, program, mesh=mesh, batch=batch)
    nothing = np.zeros(0, np.float32)
    found = [right.get(i, nothing)[: len(row.ends)] for i, row in enumerate(rows)]
    return refused_unless_finite(found)


@functools.lru_cache(maxsize=8)
def _program(model: QwenModel) -> Any:
    @jax.jit
    def right(params: Any, head: Any, tokens_BT: jax.Array, end_BS: jax.Array) -> jax.Array:
        hidden_BTD = model.hidden(params, tokens_BT)
        logit_BSC = process_head.apply(head, process_reward.gather_steps(hidden_BTD, end_BS))
        return process_reward.right_probability(logit_BSC)

    return right
