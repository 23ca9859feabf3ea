"""credit=exact: the KL to the teacher in a policy's loss, against token credit and distillation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core import rng as rngs
from distill_jax.rewards import combine
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher import TeacherScores
from distill_jax.training import distillation, exact_credit, losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings
from distill_jax.training.batch import Advantages, PolicyBatch
from distill_jax.training.distillation import DistillLossSettings
from distill_jax.training.exact_credit import ExactBatch
from distill_jax.training.step import make_update
from tests import shallow, tiny
from tests.tiny import VOCAB
from tests.training import rl_batch
from tests.training.rl_batch import ANSWER, ENDED, PROMPT

pytestmark = pytest.mark.slow

TEMPERATURE = 0.8
PLAIN = GroupSettings(importance="none")
END = (np.arange(5) == ANSWER[:, None] - 1) * ENDED[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def pair():
    """(student, its params), (teacher, its params): of other widths and numbers of logit rows."""
    teacher = shallow.build(width=24, rows=tiny.ROWS + 8, tied=False, lora=False, seed=1)
    return shallow.build(), teacher


@functools.cache
def _program(loss, totals):
    @jax.jit
    def run(trainable, frozen, batch):
        one = jax.value_and_grad(loss, has_aux=True)
        return one(trainable, frozen, batch, totals(batch), jax.random.key(0))

    return run


def exact(pair, batch, *, weight=1.0, temperature=1.0, name="bnpo", settings=PLAIN):
    """((loss, metrics), gradient) of an ExactBatch."""
    (model, params), (teacher, theirs) = pair
    how = {"weight": weight, "temperature": temperature, "vocab": VOCAB}
    made = exact_credit.policy(model, ALGORITHMS[name], settings, teacher=teacher, **how)
    trainable, frozen = states.split(params, "lora")
    return _program(*made)(trainable, {**frozen, "teacher": theirs}, batch)


def plain(pair, batch, *, temperature=1.0, name="bnpo", settings=PLAIN):
    """The same of the policy's loss alone, of a PolicyBatch."""
    model, params = pair[0]
    how = {"temperature": temperature, "vocab": VOCAB}
    made = losses.policy(model, ALGORITHMS[name], settings, **how)
    return _program(*made)(*states.split(params, "lora"), batch)


def rollout(pair, name="bnpo", settings=PLAIN, *, paid=True):
    """A made-up PolicyBatch; without `paid` every advantage is 0, as of one sample a prompt."""
    _, _, batch = rl_batch.make(*pair[0], ALGORITHMS[name], settings)
    if paid:
        return batch
    flat = jax.tree.map(np.zeros_like, batch.advantages)
    return batch.replace(advantages=flat, old_logp_BR=None)


def behind_others(batch):
    """The responses of a PolicyBatch behind other prompts, each three tokens longer."""
    tokens_BT = np.zeros((8, 12), np.int32)
    tokens_BT[:, :3] = np.random.default_rng(5).integers(1, VOCAB, (8, 3))
    tokens_BT[:, 3:] = batch.tokens_BT
    return {"teacher_tokens_BT": tokens_BT, "teacher_prompt_len_B": PROMPT + 3}


def same(got, want, rtol=1e-4, atol=1e-6):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=rtol, atol=atol), got, want)


def test_its_gradient_is_the_mean_of_token_credits_over_all_tokens_that_may_be_drawn(pair):
    # Three states, each with every token as the one drawn; temperature .8 of the sampler.
    (model, params), (teacher, theirs) = pair
    prompts = np.array([[7, 0], [3, 9], [12, 4]], np.int32)
    lengths = np.repeat(np.array([1, 2, 2], np.int32), VOCAB)
    token_B = np.tile(np.arange(VOCAB, dtype=np.int32), 3)
    tokens_BT = np.pad(np.repeat(prompts, VOCAB, axis=0), ((0, 0), (0, 1)))
    tokens_BT[np.arange(60), lengths] = token_B

    def logits(model, params):
        """Of the state that each row's token is drawn in, float64."""
        hidden_BTD = np.asarray(model.hidden(params, tokens_BT), np.float64)
        head_VD = np.asarray(model.head_VD(params), np.float64)[:VOCAB]
        return hidden_BTD[np.arange(60), lengths - 1] @ head_VD.T

    ours_BV = tiny.log_softmax(logits(model, params) / TEMPERATURE)
    theirs_BV = logits(teacher, theirs)
    logp_B1 = ours_BV[np.arange(60), token_B][:, None].astype(np.float32)
    # What token credit pays each of them, by its own code.
    q_B1 = theirs_BV[np.arange(60), token_B][:, None].astype(np.float32)
    value_B1 = np.log(np.exp(theirs_BV).sum(axis=1, keepdims=True)).astype(np.float32)
    rewards = RewardSettings(
        correctness_weight=0.0, intrinsic_weight=0.7, credit="token", student_weight=1.0,
        normaliser="none",
    )  # fmt: skip
    mask_B1 = np.ones((60, 1), np.float32)
    paid_B1 = combine.join(
        rewards, combine.fresh_state(), {}, TeacherScores(q_B1, value_B1, np.zeros(60, np.float32)),
        mask_B1, np.ones(60, bool), dense=False, samples=1, student_logp_BR=jnp.asarray(logp_B1),
    ).token_BR  # fmt: skip
    # A mean over 60 rows: VOCAB·π_S(a) makes it the expectation in each of three states.
    expected_B1 = np.asarray(paid_B1) * VOCAB * np.exp(logp_B1)
    batch = PolicyBatch(
        tokens_BT=tokens_BT, prompts_PS=None, prompt_len_B=lengths, targets_BR=token_B[:, None],
        loss_mask_BR=mask_B1, behaviour_logp_BR=logp_B1, old_logp_BR=None, ref_logp_BR=None,
        advantages=Advantages(expected_B1),
    )  # fmt: skip
    (_, _), sampled = plain(pair, batch, temperature=TEMPERATURE)
    unpaid = batch.replace(advantages=Advantages(np.zeros_like(expected_B1)))
    (value, _), found = exact(
        pair, ExactBatch(unpaid, mask_B1, {}), weight=0.7, temperature=TEMPERATURE
    )
    same(found, sampled, atol=1e-7)
    assert max(np.abs(x).max() for x in jax.tree.leaves(found)) > 1e-2
    # And its value is the mean of w·KL.
    gap_BV = ours_BV - tiny.log_softmax(theirs_BV)
    np.testing.assert_allclose(value, 0.7 * (np.exp(ours_BV) * gap_BV).sum(1).mean(), rtol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_without_other_terms_it_is_distillation_by_reverse_kl(pair, own):
    (student, params), (teacher, theirs) = pair
    batch = rollout(pair, paid=False)
    read = behind_others(batch) if own else {}
    (value, metrics), found = exact(pair, ExactBatch(batch, END, read))
    settings = DistillLossSettings("reverse", temperature=1.0, kd_weight=1.0, ce_weight=0.0)
    names = ("tokens_BT", "prompt_len_B", "targets_BR", "loss_mask_BR")
    rows = {name: getattr(batch, name) for name in names} | read
    made = distillation.distill(student, teacher, settings, VOCAB, given=False)
    trainable, frozen = states.split(params, "lora")
    (want, figures), wanted = _program(*made)(trainable, {**frozen, "teacher": theirs}, rows)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    same(found, wanted)
    np.testing.assert_allclose(metrics["teacher/kl"], figures["kl"], rtol=1e-6)
    np.testing.assert_allclose(metrics["teacher/mass"], figures["teacher/mass"], rtol=1e-6)


@pytest.mark.parametrize("own", [False, True])
def test_prompts_by_themselves_give_the_same(own):
    # The teacher's own prompts are in whole rows, whatever the student's are.
    pair = tiny.build(), tiny.build(lora=False, seed=3)
    batch = rollout(pair, paid=False)
    tokens_BT, prompts_PS = batch.tokens_BT.copy(), np.zeros((4, 5), np.int32)
    for row in range(8):  # two of a prompt
        n = PROMPT[row]
        tokens_BT[row, :n] = tokens_BT[row - row % 2, :n]
        prompts_PS[row // 2, :n] = tokens_BT[row, :n]
    whole = batch.replace(tokens_BT=tokens_BT)
    read = behind_others(batch) if own else {}
    (value, metrics), grads = exact(pair, ExactBatch(whole, END, read))
    apart = whole.replace(tokens_BT=None, prompts_PS=prompts_PS)
    (got, more), found = exact(pair, ExactBatch(apart, END, read))
    np.testing.assert_allclose(got, value, rtol=1e-5)
    same(found, grads)
    np.testing.assert_allclose(more["teacher/kl"], metrics["teacher/kl"], rtol=1e-5)


def test_it_is_added_to_the_loss_of_the_other_terms(pair):
    settings = rl_batch.settings_of("grpo")
    batch, how = rollout(pair, "grpo", settings), {"name": "grpo", "settings": settings}
    (value, metrics), grads = plain(pair, batch, **how)
    (none, more), off = exact(pair, ExactBatch(batch, END, {}), weight=0.0, **how)
    np.testing.assert_array_equal(none, value)
    same(off, grads, atol=1e-8)
    for name, x in metrics.items():  # its KL to the reference is still the metric "kl"
        np.testing.assert_allclose(more[name], x, rtol=1e-6, err_msg=name)
    (both, _), _ = exact(pair, ExactBatch(batch, END, {}), weight=0.3, **how)
    np.testing.assert_allclose(both, value + 0.3 * more["teacher/kl"], rtol=1e-5)
    # π_T of the end token, where the student ended, from plain logits.
    teacher, theirs = pair[1]
    hidden_BTD = np.asarray(teacher.hidden(theirs, batch.tokens_BT))
    at_B = PROMPT + ANSWER - 2
    logits_BV = hidden_BTD[np.arange(8), at_B] @ np.asarray(teacher.head_VD(theirs))[:VOCAB].T
    mass_B = np.exp(tiny.log_softmax(logits_BV))[
        np.arange(8), batch.tokens_BT[np.arange(8), at_B + 1]
    ]
    logged = exact_credit.logged(more)
    assert logged["teacher/mass_at_end"] == pytest.approx(mass_B[ENDED].mean(), rel=1e-4)
    assert set(logged) - set(metrics) == {"teacher/kl", "teacher/mass", "teacher/mass_at_end"}
    assert "teacher/mass_at_end" not in exact_credit.logged({**more, "teacher/ends": jnp.zeros(())})
    assert exact_credit.logged(metrics) is metrics


def test_masked_tokens_change_nothing(pair):
    # The last token of each answer is masked. Its teacher state is NaN, because the embedding of
    # the token before it is NaN. That earlier token is trained on: its own state is finite.
    batch = rollout(pair, paid=False)
    kept = batch.loss_mask_BR * (np.arange(5) < ANSWER[:, None] - 1)
    tokens_BT, targets_BR = batch.tokens_BT.copy(), batch.targets_BR.copy()
    for drawn in (tokens_BT, targets_BR):
        drawn[drawn == VOCAB - 1] = 1
    rows, longer = np.arange(8), ANSWER > 1
    before = (rows[longer], (PROMPT + ANSWER - 2)[longer])
    tokens_BT[before], targets_BR[rows[longer], (ANSWER - 2)[longer]] = VOCAB - 1, VOCAB - 1
    masked = batch.replace(loss_mask_BR=kept, tokens_BT=tokens_BT, targets_BR=targets_BR)
    masked = ExactBatch(masked, np.zeros_like(END), {})
    (value, metrics), grads = exact(pair, masked)

    student, (teacher, theirs) = pair
    table_VD = np.array(theirs["base"]["embed_tokens"]["embedding"])
    table_VD[VOCAB - 1] = np.nan
    broken = {"base": {**theirs["base"], "embed_tokens": {"embedding": table_VD}}, "lora": {}}
    (also, more), others = exact((student, (teacher, broken)), masked)
    np.testing.assert_array_equal(also, value)
    assert np.isfinite(value) and more["teacher/kl"] == metrics["teacher/kl"] > 0
    same(others, grads, rtol=0, atol=0)
    # Nor does which token it was.
    last = (rows, PROMPT + ANSWER - 1)
    tokens_BT[last], targets_BR[rows, ANSWER - 1] = 1, 1
    other = masked.policy.replace(tokens_BT=tokens_BT, targets_BR=targets_BR)
    (also, _), others = exact(pair, masked.replace(policy=other))
    np.testing.assert_array_equal(also, value)
    same(others, grads, rtol=0, atol=0)


def test_microbatches_add_up(pair):
    (model, params), (teacher, theirs) = pair
    batch = rollout(pair)
    batch = ExactBatch(batch, END, behind_others(batch))
    how = {"weight": 0.5, "temperature": TEMPERATURE, "vocab": VOCAB}
    made = exact_credit.policy(model, ALGORITHMS["bnpo"], PLAIN, teacher=teacher, **how)
    found, mesh = [], tiny.mesh()
    tx = optimizer.make(optimizer.OptimizerSettings(schedule="constant", eps=1e-3), 10)
    for accumulate in (1, 2):
        # The update takes the arrays away.
        trainable, frozen = states.split(jax.tree.map(jnp.array, params), "lora")
        state, shardings = states.create(trainable, tx, rngs.run_key(0), mesh)
        update = make_update(*made, tx, mesh, shardings, accumulate=accumulate)
        state, metrics = update(
            state, {**frozen, "teacher": theirs}, batch, np.int32(0), np.int32(1)
        )
        found.append((jax.tree.map(np.asarray, state.trainable), metrics))
    same(found[1][0], found[0][0], atol=1e-5)
    for name, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], value, rtol=1e-4, atol=1e-6, err_msg=name)
