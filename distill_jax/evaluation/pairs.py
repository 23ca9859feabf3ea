"""The teacher and students compared two at a time, on the same prefixes."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from distill_jax.core.errors import CheckpointError
from distill_jax.evaluation import distribution, subjects
from distill_jax.evaluation.held_out import evaluate_stage, greedy_answers, held_out
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run


def compare_all(run: Run, names: Sequence[str], answers_of: str) -> dict[str, Any]:
    """Each pair of the subjects that exist, on the greedy answers of one of them.

    Args:
        run: a work directory with an evaluation.
        names: of subjects; those that do not exist are skipped.
        answers_of: whose answers the prefixes are.

    Returns:
        JSON-able {"answers_of", "problems", "pairs": [{"p", "q", and what `distribution.summary`
        gives: forward KL is KL(p‖q)}]}.

    Raises:
        CheckpointError: fewer than two models, or no kept answers of that one.
    """
    stage = evaluate_stage(run)
    found = {s.name: s for s in subjects.find(run, stage.settings) if s.name in names}
    if len(found) < 2 or answers_of not in found:
        known = ", ".join(found) or "none"
        raise CheckpointError(
            f"answers of {answers_of} with {known} in {run.workdir}",
            wanted=f"two of {', '.join(names)}, and answers of one of them",
            fix=run.run_first(stage.name),
        )
    data = held_out(run, stage.settings)
    answers = greedy_answers(run, stage, found[answers_of], data)

    @functools.cache
    def load(name: str) -> Loaded:
        return found[name].load()

    pairs = []
    for p, q in itertools.combinations([name for name in names if name in found], 2):
        run.say(f"{q} against {p}")
        one = distribution.compare(
            run,
            load(q),
            load(p),
            data.prompts,
            answers,
            batch=stage.settings.compare_batch,
            multiple=stage.settings.batch_multiple,
        )
        pairs.append({"p": p, "q": q, **one})
    return {"answers_of": answers_of, "problems": len(answers), "pairs": pairs}
