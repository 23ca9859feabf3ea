"""A training run in a few series, drawn from the rows of its metrics.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

# Series -> the metrics that it may come from; the first that a run has is taken.
# What PPO pays is the combined reward less the KL to the reference; group methods pay the former.
SERIES: dict[str, tuple[str, ...]] = {
    "total_rewards": ("objective/rlhf_reward", "reward"),
    "intrinsic_rewards": ("rewards/intrinsic/mean",),
    "correctness_rewards": ("rewards/correctness/mean",),
    "reasoning_rewards": ("rewards/reasoning/mean",),
    "format_rewards": ("rewards/format/mean",),
    "combined_rewards": ("reward",),
    "policy_losses": ("loss/policy_avg", "loss"),
    "value_losses": ("loss/value_avg",),
    "kl_divergences": ("objective/kl", "kl"),
    "accuracies": ("accuracy",),
    "entropies": ("entropy",),
    "completion_lengths": ("completions/mean_length",),
    "num_tokens": ("num_tokens",),
}
EVALUATION = "eval/accuracy"


def training_stats(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The series of a reinforcement run, from the rows of metrics.jsonl.

    Returns:
        JSON-able {"step" (of the last row), "steps" (of the rows that a training step wrote),
        series: one value for each of those steps, null where it was not finite or not logged, and
        an empty list where the run has no such metric, "evaluation": {"steps", "accuracies"}}.
    """
    trained = [row for row in rows if "loss" in row]
    names = {name for row in trained for name in row}
    out: dict[str, Any] = {
        "step": rows[-1]["step"] if rows else 0,
        "steps": [row["step"] for row in trained],
    }
    for series, metrics in SERIES.items():
        known = next((name for name in metrics if name in names), None)
        out[series] = [row.get(known) for row in trained] if known is not None else []
    evaluated = [row for row in rows if EVALUATION in row]
    return {
        **out,
        "evaluation": {
            "steps": [row["step"] for row in evaluated],
            "accuracies": [row[EVALUATION] for row in evaluated],
        },
    }
