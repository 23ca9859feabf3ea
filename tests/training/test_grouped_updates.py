"""An update and scores in which a prompt is computed once equal those in which each row has it."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.models import response
from distill_jax.training import losses
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS
from tests import tiny
from tests.tiny import VOCAB
from tests.training import rl_batch
from tests.training.rl_batch import PROMPT, TEMPERATURE

pytestmark = pytest.mark.mesh

S, G = 5, 2
HOW = {"temperature": TEMPERATURE, "vocab": VOCAB, "entropy": True}


@pytest.fixture(scope="module")
def built():
    return tiny.build()


def of_one_prompt(batch):
    """Rows whose two samples have the prompt of the first, whole, and the prompts."""
    tokens_BT = np.array(batch.tokens_BT)
    prompts_PS = np.zeros((4, S), np.int32)
    for row in range(8):
        n = PROMPT[row]
        tokens_BT[row, :n] = tokens_BT[row - row % G, :n]
        prompts_PS[row // G, :n] = tokens_BT[row, :n]
    whole = batch.replace(tokens_BT=tokens_BT)
    return whole, prompts_PS


@pytest.mark.parametrize(
    ("name", "accumulate", "mesh"),
    [("grpo", 1, (1, 1, 1)), ("ppo", 2, (1, 1, 1)), ("dapo", 2, (1, 2, 1)), ("grpo", 1, (2, 1, 2))],
)
def test_an_update_is_that_of_whole_rows(built, name, accumulate, mesh):
    model, params = built
    where, settings = tiny.mesh(*mesh), rl_batch.settings_of(name)
    trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS[name], settings)
    whole, prompts_PS = of_one_prompt(batch)
    grouped = whole.replace(prompts_PS=prompts_PS)
    found = []
    for one in (whole, grouped):
        state, update = rl_batch.updater(
            model, name, settings, trainable, accumulate=accumulate, mesh=where
        )
        found.append(update(state, frozen, one, np.int32(0), np.int32(1)))
    (state, metrics), (other, others) = found
    for got, want in zip(*map(jax.tree.leaves, (other.trainable, state.trainable)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6)
    assert set(metrics) == set(others)
    for key in metrics:
        np.testing.assert_allclose(others[key], metrics[key], rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("groups", [1, 3, 4])
def test_scores_are_those_of_whole_rows_for_any_number_of_groups_at_a_time(
    built, monkeypatch, groups
):
    model, params = built
    trainable, frozen = states.split(params, "lora")
    _, _, batch = rl_batch.make(model, params, ALGORITHMS["ppo"], rl_batch.settings_of("ppo"))
    whole, prompts_PS = of_one_prompt(batch)
    trainable = states.with_value_head(trainable, model.config.hidden_size)
    trainable["value_head"] = jax.tree.map(np.ones_like, trainable["value_head"])
    score = losses.policy_scorer.__wrapped__
    rollout = rl_batch.to_rollout(whole)
    wanted = score(None, model, values=True, **HOW)(trainable, frozen, rollout)
    monkeypatch.setattr(response, "PART_TOKENS", groups * (S + G * 5))
    grouped = dataclasses.replace(rollout, prompts_PS=prompts_PS)
    found = score(None, model, values=True, **HOW)(trainable, frozen, grouped)
    mask = whole.loss_mask_BR > 0
    for got, want in zip(found[:3], wanted[:3], strict=True):
        np.testing.assert_allclose(np.asarray(got)[mask], np.asarray(want)[mask], atol=2e-5)
    np.testing.assert_allclose(found.end_value_B, wanted.end_value_B, atol=2e-5)


def test_a_prompt_passes_the_layers_once(built):
    model, params = built
    settings = rl_batch.settings_of("grpo")
    trainable, frozen, batch = rl_batch.make(model, params, ALGORITHMS["grpo"], settings)
    whole, prompts_PS = of_one_prompt(batch)
    grouped = whole.replace(prompts_PS=prompts_PS)

    def flops(one):
        state, update = rl_batch.updater(model, "grpo", settings, trainable)
        lowered = update.lower(state, frozen, one, np.int32(0), np.int32(1))
        return lowered.compile().cost_analysis()["flops"]

    # 4·(5 + 2·5) = 60 tokens pass the layers, not 8·9 = 72.
    assert flops(grouped) < 0.93 * flops(whole)
