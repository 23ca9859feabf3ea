"""RL student, SFT student and teacher beside each other, two at a time, on the same prefixes."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from distill_jax.core.errors import CheckpointError
from distill_jax.stages import agreement, evaluate, subjects
from distill_jax.stages.context import Context, Loaded
from distill_jax.stages.subjects import Subject


def compare_all(
    context: Context,
    models: Sequence[str],
    answers_of: str,
    *,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Each pair of the models that are there, on the greedy answers of one of them.

    Args:
        context: of a work directory that stage evaluate has been run in.
        models: subjects to compare; the later one of a pair is Q, the earlier one P.
        answers_of: whose answers the prefixes are, one of the models.
        say: told of each pair before it is compared.

    Returns:
        JSON-able {"answers_of", "problems", "pairs": [{"p", "q", and what `distribution.summary`
        gives: forward KL is KL(p‖q)}]}.

    Raises:
        CheckpointError: fewer than two models, or no kept answers of that one.
    """
    found = {s.name: s for s in subjects.find(context) if s.name in models}
    if len(found) < 2 or answers_of not in found:
        known = ", ".join(found) or "none"
        raise CheckpointError(
            f"answers of {answers_of} with {known} in {context.workdir}",
            wanted=f"two of {', '.join(models)}, and answers of one of them",
            fix=context.run_first("rl"),
        )
    data = evaluate.held_out(context)
    answers = evaluate.greedy_answers(context, found[answers_of], data)
    load = functools.cache(lambda name: _load(found[name]))
    pairs = []
    for p, q in itertools.combinations([name for name in models if name in found], 2):
        if say is not None:
            say(f"{q} beside {p}")
        one = agreement.compare(context, load(q), load(p), data.prompts, answers)
        pairs.append({"p": p, "q": q, **one})
    return {"answers_of": answers_of, "problems": len(answers), "pairs": pairs}


def _load(subject: Subject) -> Loaded:
    return subject.load()
