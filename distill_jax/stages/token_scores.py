"""The intrinsic reward of each token of a few chosen answers, for the HTML report.

The chosen problems are answered anew, greedily, as stage evaluate did: results keep texts, and a
text does not tell the tokens that made it. report/tokens.json holds all that the page shows of
them, so that the page can be made again without models.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_jax.core import rng, sharding
from distill_jax.core.errors import CheckpointError, DataError
from distill_jax.data.problem import Problem
from distill_jax.data.token_bytes import token_bytes
from distill_jax.evaluation import chosen, html_data, html_report
from distill_jax.evaluation.html_tokens import stored_text
from distill_jax.rewards import combine
from distill_jax.rewards.correctness import Correctness, correctness
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.rollout.groups import round_up, take_rows, training_batch
from distill_jax.rollout.sampler import Rollout
from distill_jax.stages import inputs
from distill_jax.stages.context import Context, Loaded, write_json
from distill_jax.stages.stop import GO_ON, Interrupted

# Answers scored at a time: those of a page in one compiled program, in little memory.
_SCORED = 32
_DIGITS = 5


class Asked(NamedTuple):
    """Problems with their prompts."""

    problems: list[Problem]
    prompts: list[list[int]]


def write_report(context: Context, problems: int | None = None) -> Path:
    """Writes report.html, and before it report/tokens.json where it is missing or of other models.

    Call it on every process; process 0 writes. Tokens need an evaluated student and teacher.

    Args:
        context: of the run.
        problems: shown with their tokens; None: as report.problems says.

    Returns:
        The page's path.

    Raises:
        CheckpointError: a result is of another adapter than there is now.
        DataError: a result is of other problems than there are now.
        Interrupted: asked to stop.
    """
    count = context.config.report.problems if problems is None else problems
    results = html_data.read_results(context.workdir)
    compared = chosen.compared(results)
    if count and compared and "teacher" in results:
        _write_tokens(context, results, compared, count)
    if jax.process_index() == 0:
        html_report.write(context.workdir)
        context.say(f"report: {context.workdir / html_report.REPORT_FILE}")
    return context.workdir / html_report.REPORT_FILE


def _write_tokens(
    context: Context, results: Mapping[str, Any], compared: tuple[str, str], count: int
) -> None:
    earlier, later = (results[name]["problems"] for name in compared)
    choices = chosen.choose(earlier, later, count)
    names = [*dict.fromkeys(compared), "teacher"]
    made_from: dict[str, Any] = {
        "subjects": {name: results[name].get("adapter") for name in names},
        "problems": [later[choice.place]["id"] for choice in choices],
        "alpha": context.config.rl.rewards.alpha,
    }
    known = html_data.read_tokens(context.workdir)
    if not choices or (known is not None and known["made_from"] == made_from):
        return
    asked = _asked(context, made_from["problems"])
    # As many rows as the evaluation had: its compiled programs serve again.
    rows = min(context.config.evaluate.batch, len(later))
    rollouts: list[Rollout] = []
    for name in names:
        if context.stop.due(len(rollouts)):
            raise Interrupted(f"asked to stop before the tokens of {name}; {GO_ON}")
        loaded = _load(context, name, made_from["subjects"][name])
        rollouts.append(_greedy(context, loaded, asked, rows))
    responses = _responses(context, loaded, asked, rollouts)  # loaded: the teacher
    shown = []
    for row, choice in enumerate(choices):
        problem = later[choice.place]
        of_each = {}
        for number, name in enumerate(names):
            said = responses[number * len(choices) + row]
            evaluated = results[name]["problems"][choice.place]["greedy"]
            of_each[name] = {**said, "as_evaluated": said["text"] == evaluated}
        facts = {"id": problem["id"], "question": problem["question"]}
        facts |= {"level": problem.get("level"), "gold": problem["answer"], "kind": choice.kind}
        shown.append({**facts, "responses": of_each})
    write_json(html_data.tokens_file(context.workdir), {"made_from": made_from, "problems": shown})
    sharding.barrier("tokens")


def _asked(context: Context, ids: Sequence[str]) -> Asked:
    data = context.problems("test")
    place = {problem.id: i for i, problem in enumerate(data.problems)}
    missing = [name for name in ids if name not in place]
    if missing:
        raise DataError(
            f"problem {missing[0]} was evaluated and is not in the test split",
            wanted="the problems of the evaluation",
            fix="give the run's own --config, or delete its evaluate/",
        )
    found = [place[name] for name in ids]
    return Asked([data.problems[i] for i in found], [data.prompts[i] for i in found])


def _load(context: Context, name: str, evaluated: str | None) -> Loaded:
    """The model that was evaluated under this name."""
    if name == "teacher":
        return context.load("teacher")
    stage = {"student_before": "sft", "student_after": "rl"}.get(name)
    adapter = None if stage is None else context.adapter(stage)
    if evaluated != inputs.adapter_digest(adapter):
        raise CheckpointError(
            f"evaluate/{name}.json is of another adapter than {adapter}",
            fix=context.run_first("evaluate"),
        )
    return context.load("student", adapter)


def _greedy(context: Context, loaded: Loaded, asked: Asked, rows: int) -> Rollout:
    """Greedy answers, `rows` at a time, the last batch filled up with repeats."""
    config = context.config
    sampler = context.sampler(loaded.model)
    weights = sampler.weights(loaded.params, config.sampling)
    parts = []
    for start in range(0, len(asked.prompts), rows):
        index = np.minimum(np.arange(start, start + rows), len(asked.prompts) - 1)
        drawn = sampler.generate(
            weights,
            [asked.prompts[i] for i in index],
            config.evaluate.greedy(config.sampling),
            key=rng.stream_key(rng.run_key(config.seed), "evaluate"),
            prompt_ids=index.tolist(),
        )
        parts.append(Rollout(*(leaf[: len(asked.prompts) - start] for leaf in drawn)))
    return _joined(parts)


def _joined(parts: Sequence[Rollout]) -> Rollout:
    return Rollout(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def _responses(
    context: Context, teacher: Loaded, asked: Asked, rollouts: Sequence[Rollout]
) -> list[dict[str, Any]]:
    """Every answer with its tokens: model-major, then as asked."""
    times, rollout = len(rollouts), _joined(rollouts)
    batch = training_batch(
        asked.prompts * times,
        rollout,
        1,
        pad_id=context.pad_id,
        multiple=context.config.rl.batch_multiple,
    )
    scores = _score(context, teacher, batch)
    texts = [
        context.text(row[:n]) for row, n in zip(rollout.tokens_BR, rollout.length_B, strict=True)
    ]
    gold = [problem.answer for problem in asked.problems] * times
    judged = correctness(gold, texts, right=1.0, wrong=0.0)
    out = []
    for row, text in enumerate(texts):
        n = int(rollout.length_B[row])
        ids = rollout.tokens_BR[row, :n].tolist()
        columns = {name: leaf[row, :n] for name, leaf in scores.items()}
        columns["logp"] = rollout.policy_logp_BR[row, :n]
        tokens = [
            {"id": index, **stored_text(raw)}
            | {name: round(float(leaf[t]), _DIGITS) for name, leaf in columns.items()}
            for t, (index, raw) in enumerate(
                zip(ids, token_bytes(context.tokenizer, ids), strict=True)
            )
        ]
        out.append(
            {
                "text": text,
                "verdict": _verdict(judged, row),
                "ended": bool(rollout.ended_B[row]),
                "tokens": tokens,
            }
        )
    return out


def _verdict(judged: Correctness, row: int) -> str:
    if judged.undecided_B[row]:
        return "undecided"
    return "right" if judged.right_B[row] else "wrong"


def _score(context: Context, teacher: Loaded, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    """reward, q and value, f32 [B, R] each: the canonical intrinsic reward and what it is of."""
    rewards = context.config.rl.rewards
    # Raw rewards depend on how each state's logits are shifted: no scale of colours fits them.
    canonical = dataclasses.replace(rewards, form="canonical", gamma=1.0)
    scorer = TeacherScorer(
        teacher.model, teacher.params, context.mesh, alpha=rewards.alpha, vocab=context.vocab
    )
    split = sharding.batch_sharding(context.mesh)
    count = len(batch["targets_BR"])
    size = round_up(min(count, _SCORED), sharding.batch_shards(context.mesh))
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        part = sharding.place(take_rows(batch, rows), split)
        scores = scorer.score(part)
        reward = combine.intrinsic_BR(canonical, scores, part["response_mask_BR"], part["ended_B"])
        found = {"reward": reward, "q": scores.q_BR, "value": scores.value_BR}
        fetched = sharding.fetch(found)
        parts.append({name: leaf[: count - start] for name, leaf in fetched.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
