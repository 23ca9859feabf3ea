"""Policy losses and their gradients equal TRL's GRPOTrainer and GMPOTrainer on the same arrays.

Their loss is called with the scores of a policy in place of a model, so that ratios of every size
occur; TRL averages over one batch, without gradient accumulation.
"""

import types
from collections import defaultdict

import jax
import numpy as np
import pytest
import torch

from distill_jax.kernels.policy_losses import normaliser
from distill_jax.training.algorithms import GroupSettings, PolicyLossSettings, group_loss
from distill_jax.training.batch import Advantages, PolicyBatch

trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
gmpo = pytest.importorskip("trl.experimental.gmpo.gmpo_trainer").GMPOTrainer

LENGTHS = [6, 3, 1, 5]
# Settings of ours, and what TRL's trainer calls them.
CASES = {
    "grpo": ({}, {}),
    "sapo": ({"temperature_pos": 1.3, "temperature_neg": 2.0},
             {"sapo_temperature_pos": 1.3, "sapo_temperature_neg": 2.0}),
    "gmpo": ({}, {"epsilon_low": 0.4, "epsilon_high": 0.4}),
    "cispo": ({}, {"epsilon_high": 5.0}),
    "dapo": ({}, {"epsilon_high": 0.28}),
    "bnpo": ({"delta": 1.5}, {"delta": 1.5}),
    "dr_grpo": ({"max_completion_length": 11}, {}),
}  # fmt: skip
GROUP = {
    "plain": ({}, {}),
    "biased KL": ({"beta": 0.3}, {"beta": 0.3, "use_bias_correction_kl": False}),
    "unbiased KL": ({"beta": 0.3, "kl": "unbiased"},
                    {"beta": 0.3, "use_bias_correction_kl": True}),
    "far sequences": ({"off_policy_mask_threshold": 0.05}, {"off_policy_mask_threshold": 0.05}),
}  # fmt: skip


def arrays():
    rng = np.random.default_rng(4)
    logp = -rng.exponential(size=(4, 6))
    old, ref, behaviour = (logp - 0.5 * rng.normal(size=(4, 6)) for _ in range(3))
    mask = np.arange(6) < np.array(LENGTHS)[:, None]
    advantage = np.array([1.2, -0.7, 0.4, -0.9])
    return [np.asarray(x, np.float32) for x in (logp, old, ref, behaviour, advantage, mask)]


def theirs(name, changes):
    """Loss, gradient and metrics of TRL's own function."""
    logp, old, ref, behaviour, advantage, mask = map(torch.tensor, arrays())
    logp.requires_grad_(True)
    args = {"delta": None, "use_bias_correction_kl": True, "sapo_temperature_pos": 1.0,
            "sapo_temperature_neg": 1.05, "steps_per_generation": 1}  # fmt: skip
    stub = {
        "loss_type": name, "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2,
        "top_entropy_quantile": 1.0, "importance_sampling_level": "token", "use_vllm": True,
        "vllm_importance_sampling_correction": False, "off_policy_mask_threshold": None,
        "aux_loss_enabled": False, "current_gradient_accumulation_steps": 1, "entropy_coef": 0.0,
        "_entropy_bonus_enabled": False, "max_completion_length": 11,
    }  # fmt: skip
    for key, value in changes.items():
        (args if key in args else stub)[key] = value
    same = types.SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, **_: x, sync_gradients=True
    )
    stub |= {
        "args": types.SimpleNamespace(**args), "accelerator": same,
        "model": types.SimpleNamespace(training=True),
        "_metrics": {"train": defaultdict(list)},
        "get_off_policy_mask": trainer.get_off_policy_mask,
        "_get_per_token_logps_and_entropies":
            lambda *_, **__: (logp, torch.zeros_like(logp), None),
    }  # fmt: skip
    empty = torch.zeros((4, 0), dtype=torch.long)
    inputs = {
        "prompt_ids": empty, "prompt_mask": empty, "completion_ids": mask.long(),
        "completion_mask": mask, "advantages": advantage, "old_per_token_logps": old,
        "ref_per_token_logps": ref, "sampling_per_token_logps": behaviour,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    of = gmpo if name == "gmpo" else trainer
    found = types.SimpleNamespace(**stub)
    loss = of._compute_loss(found, None, inputs)
    loss.backward()
    return loss.item(), logp.grad.numpy(), found._metrics["train"]


def ours(name, clip, group):
    logp, old, ref, behaviour, advantage, mask = arrays()
    batch = PolicyBatch(
        tokens_BT=None, prompts_PS=None, prompt_len_B=None, targets_BR=None, loss_mask_BR=mask,
        behaviour_logp_BR=behaviour, old_logp_BR=old, ref_logp_BR=ref,
        advantages=Advantages(advantage[:, None]),
    )  # fmt: skip
    settings = GroupSettings(clip=PolicyLossSettings(**clip), importance="none", **group)

    @jax.jit
    def loss(x):
        scores = {"logp_BR": x, "entropy_BR": 0 * x}
        return group_loss(name)(scores, batch, normaliser(mask), settings)

    (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(logp)
    return value, grad, metrics


def compare(name, clip, group, changes):
    value, grad, metrics = ours(name, clip, group)
    want, slope, their_metrics = theirs(name, changes)
    np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad, slope, rtol=1e-4, atol=1e-6)
    shared = set(metrics) & set(their_metrics)
    for key in shared:
        np.testing.assert_allclose(metrics[key], their_metrics[key][-1], atol=1e-5, err_msg=key)
    return shared


@pytest.mark.parametrize("name", CASES)
def test_each_loss(name):
    clip, changes = CASES[name]
    shared = compare(name, clip, {}, changes)
    assert "clip_ratio/region_mean" in shared or name in ("sapo", "cispo")


@pytest.mark.parametrize("case", GROUP)
def test_kl_and_sequence_mask(case):
    group, changes = GROUP[case]
    shared = compare("grpo", {}, group, changes)
    assert ("kl" in shared) == ("KL" in case)
    plain = ours("grpo", {}, {})[0]
    assert (abs(float(ours("grpo", {}, group)[0] - plain)) > 1e-3) == (case != "plain")
