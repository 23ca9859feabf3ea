"""Series of a run: what it has and nothing else."""

from distill_jax.training.summary import training_stats

PPO = [
    {"step": 0, "eval/accuracy": 0.1},
    {
        "step": 1, "loss": 9.0, "loss/policy_avg": 0.5, "loss/value_avg": 2.0, "reward": 1.0,
        "objective/rlhf_reward": 0.9, "objective/kl": 0.1, "rewards/correctness/mean": 0.25,
    },
    {
        "step": 5, "loss": 8.0, "loss/policy_avg": None, "loss/value_avg": 1.0, "reward": 2.0,
        "objective/rlhf_reward": 1.7, "objective/kl": 0.3, "eval/accuracy": 0.2,
    },
]  # fmt: skip


def test_ppo():
    got = training_stats(PPO)
    assert got["step"] == 5 and got["steps"] == [1, 5]
    assert got["combined_rewards"] == [1.0, 2.0] and got["total_rewards"] == [0.9, 1.7]
    assert got["policy_losses"] == [0.5, None] and got["value_losses"] == [2.0, 1.0]
    assert got["kl_divergences"] == [0.1, 0.3]
    # Logged at one of the steps; never logged.
    assert got["correctness_rewards"] == [0.25, None] and got["intrinsic_rewards"] == []
    assert got["evaluation"] == {"steps": [0, 5], "accuracies": [0.1, 0.2]}


def test_group_methods_have_no_values():
    got = training_stats([{"step": 1, "loss": 0.5, "reward": 1.0}])
    assert got["policy_losses"] == [0.5] and got["total_rewards"] == [1.0]
    assert got["value_losses"] == [] and got["kl_divergences"] == []


def test_nothing_yet():
    got = training_stats([])
    assert got["step"] == 0 and got["steps"] == got["total_rewards"] == []
