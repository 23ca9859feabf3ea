"""The intrinsic reward of each token of a few chosen answers, for the HTML report.

The tokens are those that stage evaluate drew and kept; report/tokens.json holds all that the page
shows of them, so the page can be made again without models.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core import sharding
from distill_jax.core.batching import filled, round_up
from distill_jax.core.errors import CheckpointError, DataError
from distill_jax.data import batching
from distill_jax.data.chat import Example
from distill_jax.data.token_bytes import token_bytes
from distill_jax.evaluation import subjects
from distill_jax.evaluation.held_out import greedy_outputs, held_out, kept_greedy
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.kernels.intrinsic import intrinsic_reward
from distill_jax.models.qwen import QwenModel
from distill_jax.models.response import response_scores
from distill_jax.report import chosen, run_data, run_report
from distill_jax.report.tokens import stored_text
from distill_jax.run.console import write_json
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run, Stage
from distill_jax.run.stop import GO_ON, Interrupted
from distill_jax.stages.kinds import view_of

# Answers scored at a time: those of a page in one compiled program, in little memory.
_SCORED = 32
_DIGITS = 5


def write_report(run: Run, stage: Stage[EvaluateSettings], problems: int | None = None) -> Path:
    """Writes report.html, and before it report/tokens.json where it is missing or of other models.

    Call it on every process; process 0 writes. Tokens need an evaluated student and teacher.

    Args:
        problems: shown with their tokens; None: as report.problems says.

    Returns:
        The page's path.

    Raises:
        CheckpointError: a result is of other weights than there are now, or without its answers.
        DataError: a result is of other problems than there are now.
        Interrupted: asked to stop.
    """
    count = run.config.report.problems if problems is None else problems
    view = view_of(run, stage.name)
    results = run_data.read_results(run.workdir, view)
    compared = chosen.compared(results, view)
    # The page shows tokens of the problems that it leads with.
    leads = view.results_directory(run.workdir).name == stage.name
    if leads and count and compared and "teacher" in results:
        _write_tokens(run, stage, results, compared, count)
    if jax.process_index() == 0:
        run_report.write_html(run.workdir, view)
        run.say(f"report: {run.workdir / run_report.HTML_FILE}")
    return run.workdir / run_report.HTML_FILE


def _write_tokens(
    run: Run,
    stage: Stage[EvaluateSettings],
    results: Mapping[str, Any],
    compared: tuple[str, str],
    count: int,
) -> None:
    earlier, later = (results[name]["problems"] for name in compared)
    choices = chosen.choose(earlier, later, count)
    names = [*dict.fromkeys(compared), "teacher"]
    made_from: dict[str, Any] = {
        "subjects": {name: results[name]["made_from"] for name in names},
        "problems": [later[choice.place]["id"] for choice in choices],
        "alpha": _alpha(run),
    }
    known = run_data.read_tokens(run.workdir)
    if not choices or (known is not None and known["made_from"] == made_from):
        return
    prompts = _prompts(run, stage, made_from["problems"])
    answers, outputs = {}, {}
    for name in names:
        count = results[name]["num_problems"]
        kept = kept_greedy(run, stage, name, results[name]["made_from"], count)
        answers[name] = [kept[choice.place] for choice in choices]
        between = greedy_outputs(run, stage, name)
        outputs[name] = [between[choice.place] for choice in choices]
    responses = _responses(run, stage, made_from["subjects"], prompts, answers)
    _blank(responses, outputs)
    shown = []
    for row, (place, kind) in enumerate(choices):
        problem = later[place]
        said = {}
        for name in names:
            result = results[name]["problems"][place]
            verdict = "right" if result["greedy_right"] else "wrong"
            said[name] = {"text": result["greedy"], "verdict": verdict, **responses[name][row]}
        facts = {"id": problem["id"], "question": problem["question"]}
        facts |= {"level": problem.get("level"), "gold": problem["answer"], "kind": kind}
        shown.append({**facts, "responses": said})
    write_json(run_data.tokens_file(run.workdir), {"made_from": made_from, "problems": shown})
    sharding.barrier("tokens")


def _alpha(run: Run) -> float:
    """The soft temperature of the last stage with rewards; 1 without one."""
    plan = run.config.plan
    found = [getattr(plan[name], "rewards", None) for name in run.config.order]
    return next((float(rewards.alpha) for rewards in reversed(found) if rewards), 1.0)


def _prompts(run: Run, stage: Stage[EvaluateSettings], ids: Sequence[str]) -> list[list[int]]:
    data = held_out(run, stage.settings)
    prompt_of = {p.id: prompt for p, prompt in zip(data.problems, data.prompts, strict=True)}
    missing = [name for name in ids if name not in prompt_of]
    if missing:
        raise DataError(
            f"problem {missing[0]} was evaluated and is not in {stage.settings.split}",
            wanted="the problems of the evaluation",
            fix="use the config of the evaluation, or delete its directory",
        )
    return [prompt_of[name] for name in ids]


def _responses(
    run: Run,
    stage: Stage[EvaluateSettings],
    evaluated: Mapping[str, Mapping[str, Any]],
    prompts: Sequence[list[int]],
    answers: Mapping[str, Sequence[list[int]]],
) -> dict[str, list[dict[str, Any]]]:
    """Every answer's tokens: the writer's log-probabilities, then the teacher's scores of them.

    One model at a time is in memory; the teacher, the last of `answers`, reads all of them.
    """
    found = {subject.name: subject for subject in subjects.find(run, stage.settings)}
    logp: dict[str, np.ndarray] = {}
    scores: dict[str, np.ndarray] = {}
    for name in answers:
        if run.stop.due(len(logp)):
            raise Interrupted(f"asked to stop before the tokens of {name}; {GO_ON}")
        weights = found[name].weights if name in found else {}
        if not weights or any(evaluated[name].get(k) != v for k, v in weights.items()):
            raise CheckpointError(
                f"{stage.name}/{name}.json is of other weights than there are now",
                fix=run.run_first(stage.name),
            )
        read = list(answers.values()) if name == "teacher" else [answers[name]]
        rows = [pair for said in read for pair in zip(prompts, said, strict=True)]
        scores = _score(run, stage, found[name].load(), rows)
        logp[name] = scores["logp"][-len(prompts) :]
    out: dict[str, list[dict[str, Any]]] = {}
    for number, (name, said) in enumerate(answers.items()):
        out[name] = []
        for row, ids in enumerate(said):
            at = number * len(prompts) + row
            columns = {key: scores[key][at] for key in ("reward", "q", "value")}
            columns["logp"] = logp[name][row]
            ended = ids[-1] == run.data.eos_id
            out[name].append({"ended": ended, "tokens": _tokens(run, ids, columns)})
    return out


def _blank(
    responses: Mapping[str, Sequence[dict[str, Any]]], outputs: Mapping[str, Sequence[Any]]
) -> None:
    """Sets the scores of outputs to 0, in place: no model drew those tokens."""
    for name, said in responses.items():
        for one, between in zip(said, outputs[name], strict=True):
            for start, stop, _ in between:
                for token in one["tokens"][start:stop]:
                    token |= dict.fromkeys(("reward", "q", "value", "logp"), 0.0)


def _tokens(
    run: Run, ids: Sequence[int], columns: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    raw = token_bytes(run.data.tokenizer, ids)
    return [
        {"id": index, **stored_text(part)}
        | {name: round(float(leaf[t]), _DIGITS) for name, leaf in columns.items()}
        for t, (index, part) in enumerate(zip(ids, raw, strict=True))
    ]


def _score(
    run: Run,
    stage: Stage[EvaluateSettings],
    loaded: Loaded,
    rows: Sequence[tuple[list[int], list[int]]],
) -> dict[str, np.ndarray]:
    """Of (prompt, response) pairs: logp at temperature 1, q, value and reward, f32 [N, R] each."""
    size = round_up(min(len(rows), _SCORED), sharding.batch_shards(run.mesh))
    packed = batching.pack_examples(
        [Example(*row) for row in rows],
        pad_id=run.data.pad_id,
        multiple=stage.settings.batch_multiple,
    )
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(rows), size):
        # The repeats that fill the last batch are dropped below.
        index = filled(range(start, min(start + size, len(rows))), size)
        batch = {name: packed[name][index] for name in ("tokens_BT", "prompt_len_B", "targets_BR")}
        placed = sharding.place(batch, sharding.batch_sharding(run.mesh))
        scored = _scores(loaded.model, run.data.vocab, _alpha(run), loaded.params, placed)
        fetched = sharding.fetch(scored)
        parts.append({name: leaf[: len(rows) - start] for name, leaf in fetched.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _scores(
    model: QwenModel, vocab: int, alpha: float, params: Any, batch: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """As `rewards.teacher` scores, with the log-probability; one program for all students.

    The reward is the canonical one, whatever the run was trained on: raw rewards depend on how
    each state's logits are shifted, and no scale of colours fits them.
    """
    scores = response_scores(
        model,
        params,
        batch["tokens_BT"],
        batch["prompt_len_B"],
        batch["targets_BR"],
        alphas=(alpha,),
        vocab=vocab,
    )
    q_BR, value_BR = scores.logit_BR, scores.value_ABR[0]
    reward_BR = intrinsic_reward(q_BR, value_BR, jnp.ones_like(q_BR))
    return {"reward": reward_BR, "q": q_BR, "value": value_BR, "logp": scores.logp_BR}
