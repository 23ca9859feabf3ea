"""Runs a model on problems: greedy once and sampled n times, each answer checked against gold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.data.sources import NAMES, check_benchmark
from distill_jax.evaluation.intervals import Estimate, mean_interval, wilson
from distill_jax.evaluation.measures import measures
from distill_jax.inference import generate
from distill_jax.inference.generate import Answers, Tick
from distill_jax.inference.store import AnswerStore
from distill_jax.rollout.rounds import Replies
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from distill_jax.run.settings import TASK, StageSettings
from distill_jax.tasks import TASKS, Task


@dataclass(frozen=True)
class EvaluateSettings(StageSettings, kind="evaluate", makes="results"):
    """Evaluation of a model on held-out problems."""

    UNREAD: ClassVar = (
        Unread(("compare_batch",), ("distribution",), off),
        Unread(("temperature",), ("samples",), off),
    )

    benchmark: str = setting(
        "",
        f"Problems instead of the test split: {', '.join(NAMES)}, a file or a directory; those "
        "that are also in train, or in a file that a stage of the run learns on, are dropped.",
    )
    task: str = setting(
        "",
        "Task of this stage, on the same problems; empty: the run's.",
        choices=("", *TASKS),
    )
    problems: int = setting(500, "Problems of the test split, the first ones.", low=1)
    samples: int = setting(
        4, "Sampled completions of each problem, for pass@1; 0: greedy alone.", low=0
    )
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
        32, "Answers on which two models are compared at a time.", low=1, affects="nothing"
    )
    batch_multiple: int = setting(
        64, "Row lengths of that comparison are multiples of this.", low=1, affects="nothing"
    )

    def __post_init__(self) -> None:
        check_benchmark(self.benchmark)
        if self.checkpoints not in ("none", "all") and not self.checkpoints.isdecimal():
            got = f"checkpoints={self.checkpoints!r}"
            raise ConfigError(got, wanted="none, all or a step, e.g. 100")

    def shared(self) -> tuple[str, ...]:
        return ("seed", "tokenizer_size", *TASK, "data", "sampling")

    def reads_teacher(self) -> bool:
        return self.teacher or self.distribution

    def splits(self) -> tuple[str, ...]:
        return (self.split,)

    @property
    def split(self) -> str:
        """The split that is read, or the benchmark."""
        return self.benchmark or "test"


def evaluate(
    sampler: Sampler,
    weights: Callable[[], Any],
    data: Prompts,
    settings: EvaluateSettings,
    sampling: SamplingSettings,
    *,
    key: jax.Array,
    text: Callable[[Any], str],
    task: Task,
    tick: Tick | None = None,
    store: AnswerStore | None = None,
    replies: Replies | None = None,
) -> dict[str, Any]:
    """Greedy accuracy and pass@1 of a model, overall and per level, with every completion.

    Args:
        sampler, tick, store, replies: as `generate.answers` takes them.
        weights: gives the decode weights; called only if something is drawn.
        data: problems and prompts.
        settings: number of samples, temperature.
        sampling: limits on length; temperature, top-p and top-k are replaced.
        key: typed key; the same for all models compared.
        text: tokens -> text.
        task: judges the answers.

    Returns:
        JSON-able; accuracies in [0, 1] with 95% intervals, of both decodings what `measures` gives;
        "sampled" is None with samples=0. "flexible" is the accuracy by the last number of each text
        (`Task.flexible`), over the problems where that says something; None where it never does.
    """
    problems = data.problems
    runs: dict[str, dict[str, Any]] = {}
    for name, temperature, samples in (
        ("greedy", 0.0, 1),
        ("sampled", settings.temperature, settings.samples),
    ):
        if not samples:
            continue
        drawn = generate.answers(
            sampler,
            weights,
            data.prompts,
            sampling.whole(temperature),
            key=key,
            samples=samples,
            batch=settings.batch,
            tick=tick,
            store=store,
            decoding=name,
            replies=replies,
        )
        runs[name] = _judged(problems, drawn, samples, text, task)
    levels = [p.level for p in problems]
    greedy_N = runs["greedy"]["right_PG"][:, 0]
    sampled = None
    if settings.samples:
        sampled_N = runs["sampled"]["right_PG"].mean(axis=1)
        sampled = {
            "pass@1": mean_interval(sampled_N)._asdict(),
            "levels": _per_level(levels, sampled_N, mean_interval),
            **runs["sampled"]["summary"],
        }
    return {
        "benchmark": settings.split,
        "num_problems": len(problems),
        "max_new_tokens": sampling.max_new_tokens,
        "samples": settings.samples,
        "temperature": settings.temperature,
        "greedy": {
            "accuracy": wilson(int(greedy_N.sum()), len(greedy_N))._asdict(),
            "levels": _per_level(levels, greedy_N, lambda x: wilson(int(x.sum()), len(x))),
            **runs["greedy"]["summary"],
        },
        "sampled": sampled,
        "problems": _individual(problems, runs, settings.samples),
    }


def _judged(
    problems: Sequence[Problem],
    drawn: Answers,
    samples: int,
    text: Callable[[Any], str],
    task: Task,
) -> dict[str, Any]:
    own = drawn.own
    texts = [text(row) for row in own]
    repeated = [p for p in problems for _ in range(samples)]
    judged = task.judge(repeated, texts, drawn.ended_B)
    right_PG = judged.right_B.reshape(-1, samples)
    return {
        "right_PG": right_PG,
        "texts": texts,
        "tokens": drawn.length_B.tolist(),
        "summary": {
            "mean_length": float(np.mean(drawn.length_B)),
            "terminated": float(np.mean(drawn.ended_B)),
            "undecided": float(np.mean(judged.undecided_B)),
            **measures(problems, texts, own, drawn.ended_B, right_PG, judged.stated),
            "flexible": _flexible(task.flexible(repeated, texts), samples),
            **task.figures(repeated, texts, judged),
        },
    }


def _flexible(right: Sequence[bool | None], samples: int) -> dict[str, Any] | None:
    """Accuracy of verdicts, prompt-major, over the problems that have them."""
    known = [one for one in right if one is not None]
    if not known:
        return None
    share_P = np.array(known, float).reshape(-1, samples).mean(axis=1)
    count = len(share_P)
    found = wilson(float(share_P.sum()), count) if samples == 1 else mean_interval(share_P)
    return {**found._asdict(), "problems": count}


def _per_level(
    levels: Sequence[int | None], score_N: np.ndarray, interval: Callable[[np.ndarray], Estimate]
) -> dict[str, Any]:
    out = {}
    for level in sorted({x for x in levels if x is not None}):
        chosen = score_N[np.array([x == level for x in levels])]
        out[str(level)] = {**interval(chosen)._asdict(), "num_problems": len(chosen)}
    return out


def _individual(problems: Any, runs: dict[str, Any], samples: int) -> list[dict[str, Any]]:
    greedy = runs["greedy"]
    sampled = runs.get("sampled") or {"texts": [], "tokens": [], "right_PG": [()] * len(problems)}
    return [
        {
            "id": problem.id,
            "question": problem.question,
            "level": problem.level,
            "subject": problem.subject,
            "answer": problem.answer,
            "greedy": greedy["texts"][i],
            "greedy_right": bool(greedy["right_PG"][i, 0]),
            "greedy_tokens": greedy["tokens"][i],
            "sampled": sampled["texts"][i * samples : (i + 1) * samples],
            "sampled_right": [bool(x) for x in sampled["right_PG"][i]],
            "sampled_tokens": sampled["tokens"][i * samples : (i + 1) * samples],
        }
        for i, problem in enumerate(problems)
    ]
