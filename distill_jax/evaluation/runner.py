"""Runs a model on problems: greedy once and sampled n times, each answer checked against gold."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.evaluation import intervals
from distill_jax.evaluation.kept_answers import Batch, KeptAnswers
from distill_jax.evaluation.measures import measures
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from distill_jax.run.settings import StageSettings
from distill_jax.tasks import Task


@dataclass(frozen=True)
class EvaluateSettings(StageSettings, kind="evaluate", makes="results"):
    """Evaluation of a model on held-out problems."""

    problems: int = setting(500, "Problems of the test split, the first ones.", low=1)
    samples: int = setting(4, "Sampled completions of each problem, for pass@1.", low=1)
    temperature: float = setting(1.0, "Temperature of those samples.", above=0.0)
    batch: int = setting(256, "Completions decoded at a time.", low=1, affects="rounding")
    teacher: bool = setting(True, "Evaluate the teacher too.", affects="nothing")
    checkpoints: str = setting(
        "none",
        "Checkpoints of the last student stage evaluated too: none, all that are kept, or a step.",
        affects="nothing",
    )
    model: str = setting(
        "",
        "Hugging Face directory or hub id, or PEFT adapter of the student, evaluated too.",
        affects="nothing",
    )
    distribution: bool = setting(
        True,
        "Compare each student's next-token distribution with the teacher's, on its answers.",
        affects="nothing",
    )
    compare_batch: int = setting(
        32,
        "Answers on which two models are compared at a time.",
        low=1,
        affects="nothing",
    )
    batch_multiple: int = setting(
        64,
        "Row lengths of that comparison are multiples of this.",
        low=1,
        affects="nothing",
    )

    def __post_init__(self) -> None:
        if self.checkpoints not in ("none", "all") and not self.checkpoints.isdecimal():
            raise ConfigError(
                f"checkpoints={self.checkpoints!r}", wanted="none, all or a step, e.g. 100"
            )

    def shared(self) -> tuple[str, ...]:
        return ("seed", "tokenizer_size", "task", "data", "sampling")

    def splits(self) -> tuple[str, ...]:
        return ("test",)

    def sampled(self, sampling: SamplingSettings) -> SamplingSettings:
        """The limits of `sampling`, drawn from the whole distribution at `temperature`."""
        return dataclasses.replace(sampling, temperature=self.temperature, top_p=1.0, top_k=0)


def greedily(sampling: SamplingSettings) -> SamplingSettings:
    """The limits of `sampling`, decoded greedily."""
    return dataclasses.replace(sampling, temperature=0.0, top_p=1.0, top_k=0)


Tick = Callable[[int], None]


def completions(
    sampler: Sampler,
    weights: Any,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    key: jax.Array,
    samples: int,
    batch: int,
    tick: Tick | None = None,
    kept: KeptAnswers | None = None,
    decoding: str = "",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Completions of all prompts in batches: tokens [B, R], lengths [B], ended [B]; prompt-major.

    A prompt's number seeds its randomness, so the batch size changes nothing but speed. The last
    batch is filled up with repeats, so that one compiled program serves all. Batches that are
    `kept` under this decoding's name are not drawn again; batches are the same at every start,
    so that the rest is drawn as it would have been.
    """
    each = max(1, min(batch // samples, len(prompts)))
    tokens, lengths, ended = [], [], []
    # Prompts of similar length share a batch; the order is undone below.
    order = np.argsort([len(p) for p in prompts], kind="stable")
    for start in range(0, len(prompts), each):
        rows = order[start : start + each]
        known = kept.find(decoding, rows.tolist()) if kept is not None else None
        if known is not None:
            tokens.append(_padded(known.tokens, settings.max_new_tokens, sampler.pad_id))
            lengths.append(np.array([len(row) for row in known.tokens], np.int32))
            ended.append(np.array(known.ended, bool))
            continue
        filled = np.concatenate([rows, np.repeat(rows[-1:], each - len(rows))])
        out = sampler.generate(
            weights,
            [prompts[i] for i in filled],
            settings,
            key=key,
            prompt_ids=filled.tolist(),
            samples=samples,
        )
        count = len(rows) * samples
        tokens.append(out.tokens_BR[:count])
        lengths.append(out.length_B[:count])
        ended.append(out.ended_B[:count])
        if kept is not None:
            drawn = zip(tokens[-1], lengths[-1], strict=True)
            rows_of = [row[:n].tolist() for row, n in drawn]
            kept.add(Batch(decoding, tuple(rows.tolist()), rows_of, ended[-1].tolist()))
        if tick is not None:
            tick(count)
    back = np.argsort(order, kind="stable")

    def undo(parts: list[np.ndarray]) -> np.ndarray:
        whole = np.concatenate(parts)
        grouped = whole.reshape(len(prompts), samples, *whole.shape[1:])[back]
        return grouped.reshape(len(prompts) * samples, *whole.shape[1:])

    return undo(tokens), undo(lengths), undo(ended)


def _padded(rows: Sequence[Sequence[int]], width: int, pad_id: int) -> np.ndarray:
    out = np.full((len(rows), width), pad_id, np.int32)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out


def evaluate(
    sampler: Sampler,
    weights: Any,
    data: Prompts,
    settings: EvaluateSettings,
    sampling: SamplingSettings,
    *,
    key: jax.Array,
    text: Callable[[Any], str],
    task: Task,
    tick: Tick | None = None,
    kept: KeptAnswers | None = None,
) -> dict[str, Any]:
    """Greedy accuracy and pass@1 of a model, overall and per level, with every completion.

    Args:
        sampler: for the model.
        weights: its decode weights.
        data: problems and prompts.
        settings: number of samples, temperature.
        sampling: limits on length; temperature, top-p and top-k are replaced.
        key: typed key; the same for all models compared.
        text: tokens -> text.
        task: judges the answers.
        tick: called with the number of completions just finished.
        kept: where completions are written as they come, and taken from if they are there.

    Returns:
        JSON-able {"num_problems", "samples", "greedy": {...}, "sampled": {...},
        "problems": [...]}; accuracies in [0, 1] with 95% intervals, and of both decodings what
        `measures` gives.
    """
    problems = data.problems
    runs: dict[str, dict[str, Any]] = {}
    for name, how, samples in (
        ("greedy", greedily(sampling), 1),
        ("sampled", settings.sampled(sampling), settings.samples),
    ):
        drawn = completions(
            sampler,
            weights,
            data.prompts,
            how,
            key=key,
            samples=samples,
            batch=settings.batch,
            tick=tick,
            kept=kept,
            decoding=name,
        )
        runs[name] = _judged(problems, drawn, samples, text, task)
    levels = [p.level for p in problems]
    greedy_N = runs["greedy"]["right_PG"][:, 0]
    sampled_N = runs["sampled"]["right_PG"].mean(axis=1)
    return {
        "num_problems": len(problems),
        "samples": settings.samples,
        "temperature": settings.temperature,
        "greedy": {
            "accuracy": intervals.wilson(int(greedy_N.sum()), len(greedy_N))._asdict(),
            "levels": _per_level(levels, greedy_N.astype(float), exact=True),
            **_lengths(runs["greedy"]),
            **runs["greedy"]["measures"],
        },
        "sampled": {
            "pass@1": intervals.mean_interval(sampled_N)._asdict(),
            "levels": _per_level(levels, sampled_N, exact=False),
            **_lengths(runs["sampled"]),
            **runs["sampled"]["measures"],
        },
        "problems": _individual(problems, runs, settings.samples),
    }


def _judged(
    problems: Sequence[Problem],
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
    samples: int,
    text: Callable[[Any], str],
    task: Task,
) -> dict[str, Any]:
    """What the answer check and the measures say of the completions of one decoding."""
    tokens, lengths, ended = drawn
    texts = [text(row[:n]) for row, n in zip(tokens, lengths, strict=True)]
    judged = task.judge([p for p in problems for _ in range(samples)], texts, ended)
    right_PG = judged.right_B.reshape(-1, samples)
    return {
        "right_PG": right_PG,
        "measures": measures(problems, texts, tokens, lengths, ended, right_PG),
        "undecided": float(np.mean(judged.undecided_B)),
        "texts": texts,
        "length": float(np.mean(lengths)),
        "ended": float(np.mean(ended)),
    }


def _lengths(run: dict[str, Any]) -> dict[str, float]:
    return {
        "mean_length": run["length"],
        "terminated": run["ended"],
        "undecided": run["undecided"],
    }


def _per_level(levels: Sequence[int | None], score_N: np.ndarray, *, exact: bool) -> dict[str, Any]:
    out = {}
    for level in sorted({x for x in levels if x is not None}):
        chosen = score_N[np.array([x == level for x in levels])]
        if exact:
            estimate = intervals.wilson(int(chosen.sum()), len(chosen))
        else:
            estimate = intervals.mean_interval(chosen)
        out[str(level)] = {**estimate._asdict(), "num_problems": len(chosen)}
    return out


def _individual(problems: Any, runs: dict[str, Any], samples: int) -> list[dict[str, Any]]:
    rows = []
    for i, problem in enumerate(problems):
        rows.append(
            {
                "id": problem.id,
                "question": problem.question,
                "level": problem.level,
                "subject": problem.subject,
                "answer": problem.answer,
                "greedy": runs["greedy"]["texts"][i],
                "greedy_right": bool(runs["greedy"]["right_PG"][i, 0]),
                "sampled": runs["sampled"]["texts"][i * samples : (i + 1) * samples],
                "sampled_right": [bool(x) for x in runs["sampled"]["right_PG"][i]],
            }
        )
    return rows
