"""Learning curves of a stage: which metrics share a panel. A kind of stage names its panels."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One plot over the steps of a stage: its title; metric -> label of its line; whether values
    are in [0, 1].
    """

    title: str
    metrics: Mapping[str, str]
    share: bool = False


_ACCURACY = Panel(
    "accuracy", {"accuracy": "train, sampled", "eval/accuracy": "validation, greedy"}, share=True
)
_LOSS = Panel("loss", {"loss": "loss", "eval/loss": "validation"})
_RATE = Panel("learning rate", {"learning_rate": "learning rate"})
_GRADIENT = Panel("gradient norm", {"grad_norm": "norm"})
_COMPLETIONS = (
    Panel(
        "completion length, tokens",
        {
            "completions/mean_length": "mean",
            "completions/max_length": "longest",
            "length/tokens_right": "mean of right ones",
        },
    ),
    Panel("completions without EOS", {"completions/clipped_ratio": "share"}, share=True),
)
# For a kind that declares none; a panel without data is not drawn.
DEFAULT = (_ACCURACY, _LOSS, _GRADIENT, _RATE)
SUPERVISED = (_ACCURACY, _LOSS, _GRADIENT)
DISTILLATION = (
    _ACCURACY,
    _LOSS,
    Panel("divergence per token, nats", {"kl": "KL", "jsd": "JSD"}),
    Panel("validation, forward KL to the teacher", {"eval/forward_kl": "KL"}),
    *_COMPLETIONS,
    _GRADIENT,
)
REINFORCEMENT = (
    _ACCURACY,
    # The intrinsic part is divided by its running scale: when that shrinks, it counts for more.
    Panel("reward, weighted and normalised", {"reward": "mean", "reward_std": "std in a group"}),
    _LOSS,
    Panel("KL to the reference", {"kl": "mean of a token", "objective/kl": "sum of a completion"}),
    Panel("exact KL to the teacher, nats per token", {"teacher/kl": "mean"}),
    Panel("KL to the rollout's policy, mean of ½l²", {"policy/approxkl_avg": "mean"}),
    Panel("entropy of the policy, nats per token", {"entropy": "entropy"}),
    Panel(
        "the teacher on the student's tokens",
        {"teacher/mass": "mean probability", "rewards/dense/clipped": "share of rewards cut"},
        share=True,
    ),
    *_COMPLETIONS,
    Panel(
        "programs called between turns",
        {
            "tools/call_frequency": "a completion",
            "tools/failure_frequency": "share that failed",
            "void_turn_ratio": "share of completions with a void turn",
        },
    ),
    Panel(
        "tokens whose ratio is clipped",
        {"clip_ratio/region_mean": "share", "policy/clipfrac_avg": "share"},
        share=True,
    ),
    _GRADIENT,
)
