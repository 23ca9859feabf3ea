"""Known troubles of reinforcement learning in a stage's records, each with settings to try."""

import dataclasses

import numpy as np

from distill_jax.evaluation import hacking
from distill_jax.evaluation.findings import BAD, LOOK, NOT_RECORDED, OK, TOO_FEW, Finding, Rows
from distill_jax.evaluation.troubles import RULES, STAGE, START

MIN_COMPLETIONS = 16


def diagnose(
    metrics: Rows, completions: Rows = (), *, stage: str = "rl", start: str = ""
) -> list[Finding]:
    """The findings on every known trouble.

    Args:
        metrics, completions: rows of the stage's metrics.jsonl and completions.jsonl.
        stage: name of the stage, whose settings are suggested.
        start: the stage that it started from; "" or base has no settings.
    """
    found = [dataclasses.replace(rule(metrics), what=what) for what, rule in RULES.items()]
    out = []
    for finding in [*found, *_of_completions(completions)]:
        suggestions = {}
        for name, how in finding.suggestions.items():
            group, _, setting = name.partition(".")
            if group == START and start in ("", "base"):
                continue
            group = {STAGE: stage, START: start}.get(group, group)
            suggestions[f"{group}.{setting}"] = how
        out.append(dataclasses.replace(finding, suggestions=suggestions))
    return out


def _of_completions(rows: Rows) -> list[Finding]:
    """Of the later half of the sampled completions: reward by length, hedged answers."""
    names = ("reward pays for length", "several answers")
    texts = [r for r in rows if isinstance(r.get("completion"), str)]
    if not texts:
        return [Finding(name, NOT_RECORDED, "no completions were written") for name in names]
    late = texts[len(texts) // 2 :]
    if len(late) < MIN_COMPLETIONS:
        said = f"{len(late)} completions in the later half, {MIN_COMPLETIONS} wanted"
        return [Finding(name, TOO_FEW, said) for name in names]
    rewarded = [r for r in late if isinstance(r.get("reward"), int | float)]
    r = hacking.correlation(
        np.array([len(row["completion"]) for row in rewarded], float),
        np.array([row["reward"] for row in rewarded], float),
    )
    out = []
    if r is not None and r > 0.6:
        said = f"reward and characters correlate by {r:.2f} in {len(rewarded)} completions"
        tries = {f"{STAGE}.rewards.sequence": "mean, which pays nothing for length"}
        out.append(Finding(names[0], LOOK, said, None, tries))
    else:
        said = "reward or length is constant" if r is None else f"correlation {r:.2f}"
        out.append(Finding(names[0], OK, said))
    share = float(np.mean([hacking.several_answers(row["completion"]) for row in late]))
    status = BAD if share > 0.5 else LOOK if share > 0.2 else OK
    said = f"{100 * share:.0f}% of {len(late)} completions state different answers"
    tries = {
        f"{STAGE}.rewards.wrong": "below 0: guessing costs",
        f"{STAGE}.rewards.intrinsic_weight": "higher",
    }
    return [*out, Finding(names[1], status, said, None, {} if status == OK else tries)]
