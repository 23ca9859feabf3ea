"""Stage evaluate: teacher and student, before and after, on held-out problems; the report."""

from pathlib import Path
from typing import Any

import jax

from distill_jax.core import rng, sharding
from distill_jax.core.errors import CheckpointError
from distill_jax.data.chat import Prompts
from distill_jax.evaluation import report, runner
from distill_jax.stages import inputs
from distill_jax.stages.context import Context, read_json, write_json
from distill_jax.stages.stop import GO_ON, Interrupted
from distill_jax.training.progress import Progress


def subjects(context: Context) -> dict[str, Path | None]:
    """What can be evaluated in this work directory: name -> adapter (None: the bare model).

    The bare student is one of them: sft may leave a student that is worse than it was, and what
    reinforcement then wins back must not pass for progress.

    Raises:
        CheckpointError: nothing.
    """
    found: dict[str, Path | None] = {}
    if context.config.evaluate.teacher:
        found["teacher"] = None
    before, after = context.adapter("sft"), context.adapter("rl")
    distilled = context.distilled()
    if before is not None or (distilled is not None and not context.config.student.path):
        found["student_base"] = None
    if before is not None or context.config.student.path:
        found["student_before"] = before
    if distilled is not None:
        found["student_distilled"] = distilled
    if after is not None:
        found["student_after"] = after
    if not found:
        raise CheckpointError(
            f"nothing to evaluate in {context.workdir}",
            wanted="what stage sft, distill or rl makes, or evaluate.teacher=True",
            fix=context.run_first("sft"),
        )
    return found


def run(context: Context, directory: Path) -> dict[str, Any]:
    """Evaluates each subject that has no result yet, prints the table, writes report.md."""
    settings = context.config.evaluate
    data = context.problems("test")
    count = min(settings.problems, len(data.prompts))
    data = Prompts(data.problems[:count], data.prompts[:count], data.dropped)
    results = {}
    for name, adapter in subjects(context).items():
        path = directory / f"{name}.json"
        # A student is evaluated again once it has an adapter, or another one.
        weights = inputs.adapter_digest(adapter)
        known = read_json(path)
        if known is not None and known.get("adapter") == weights:
            results[name] = known
            continue
        results[name] = {"adapter": weights, **_evaluate(context, name, adapter, data)}
        write_json(path, results[name])
        sharding.barrier(f"evaluate {name}")
    if jax.process_index() == 0:
        report.print_table(context.console, results)
        report.write(context.workdir, results, context.config_dict)
        context.say(f"report: {context.workdir / 'report.md'}")
    return {name: _figures(result) for name, result in results.items()}


def _evaluate(context: Context, name: str, adapter: Path | None, data: Prompts) -> dict[str, Any]:
    config = context.config
    loaded = context.load("teacher" if name == "teacher" else "student", adapter)
    sampler = context.sampler(loaded.model)
    total = len(data.prompts) * (1 + config.evaluate.samples)
    with Progress(f"evaluate {name}", total, unit="answers", console=context.console) as progress:
        done = 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress.update(done)
            if context.stop.due(done):
                raise Interrupted(f"evaluate was asked to stop; {name} is not complete; {GO_ON}")

        return runner.evaluate(
            sampler,
            sampler.weights(loaded.params, config.sampling),
            data,
            config.evaluate,
            config.sampling,
            key=rng.stream_key(rng.run_key(config.seed), "evaluate"),
            text=context.text,
            tick=tick,
        )


def _figures(result: dict[str, Any]) -> dict[str, float]:
    return {
        "greedy": result["greedy"]["accuracy"]["mean"],
        "pass@1": result["sampled"]["pass@1"]["mean"],
    }
