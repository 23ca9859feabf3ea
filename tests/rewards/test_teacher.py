import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core import sharding
from distill_jax.models import response
from distill_jax.models.qwen import QwenModel
from distill_jax.rewards import combine
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.sampler import Rollout
from tests import tiny
from tests.tiny import EOS, PAD, VOCAB

pytestmark = pytest.mark.mesh

PROMPTS = [[3, 9, 4], [7]]
LENGTH = np.array([4, 6, 1, 6], np.int32)
ENDED = np.array([True, False, True, False])
# A teacher has more rows of padding than the student (as Qwen's large ones), and no LoRA.
WIDER = dataclasses.replace(tiny.ONE_LAYER, vocab_size=tiny.ROWS + 5, tie_embeddings=False)


def batch(shared=False):
    tokens = np.random.default_rng(0).integers(6, VOCAB, (4, 6)).astype(np.int32)
    for row in range(4):
        tokens[row, LENGTH[row] :] = PAD
        if ENDED[row]:
            tokens[row, LENGTH[row] - 1] = EOS
    zero = np.zeros((4, 6), np.float32)
    drawn = Rollout(tokens, LENGTH, ENDED, zero)
    return training_batch(PROMPTS, drawn, 2, pad_id=PAD, multiple=8, shared=shared)


@pytest.fixture(scope="module")
def teacher():
    return tiny.build(WIDER, lora=False, seed=3)


def scorer(teacher, alpha=1.0, params=None):
    model, own = teacher
    return TeacherScorer(model, params or own, tiny.mesh(), alpha=alpha, vocab=VOCAB)


def naive(teacher, alpha):
    """(Q, V) of every state of each row, V one longer: the state after the last token too."""
    model, params = teacher
    host = batch()
    for row in range(4):
        p, n = host.prompt_len_B[row], LENGTH[row]
        logits = tiny.naive_logits(model, params, host.tokens_BT[row, : p + n])[p - 1 :]
        value = alpha * np.log(np.exp(logits / alpha).sum(axis=1))
        yield row, n, logits[np.arange(n), host.targets_BR[row, :n]], value


@pytest.mark.parametrize("alpha", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("shared", [False, True])
def test_q_and_v_equal_the_naive_logits(teacher, alpha, shared):
    read = batch(shared).to_score()
    assert ("prompts_PS" in read) == shared
    got = scorer(teacher, alpha).score(read)
    assert got.q_BR.shape == got.value_BR.shape == (4, 6) and got.end_value_B.shape == (4,)
    for row, n, q, value in naive(teacher, alpha):
        np.testing.assert_allclose(got.q_BR[row, :n], q, atol=1e-5)
        np.testing.assert_allclose(got.value_BR[row, :n], value[:-1], atol=1e-5)
        np.testing.assert_allclose(got.end_value_B[row], value[-1], atol=1e-5)


@pytest.mark.parametrize("fsdp", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_few_rows_at_a_time_give_the_same_scores(teacher, monkeypatch, fsdp, shared):
    monkeypatch.setattr(response, "PART_TOKENS", 32 // fsdp)  # two rows of sixteen
    seen, hidden = set(), QwenModel.hidden

    def noted(self, params, tokens_BT, **how):
        seen.add(tokens_BT.shape)
        return hidden(self, params, tokens_BT, **how)

    monkeypatch.setattr(QwenModel, "hidden", noted)
    model, params = teacher
    where, alpha = tiny.mesh(1, fsdp), 1.25  # of no other test: a program is kept
    model = model.replace(rows=sharding.batch_sharding(where))
    host = batch(shared)
    scored = TeacherScorer(model, tiny.placed(params, where), where, alpha=alpha, vocab=VOCAB)
    got = scored.score(sharding.place(host.to_score(), sharding.batch_sharding(where)))
    # Or one prompt of 8 with two responses of 6, on each device.
    assert seen == ({(fsdp, 20)} if shared else {(2, 16)})
    for row, n, q, value in naive(teacher, alpha):
        np.testing.assert_allclose(got.q_BR[row, :n], q, atol=1e-5)
        np.testing.assert_allclose(got.end_value_B[row], value[-1], atol=1e-5)


def test_a_later_token_changes_no_earlier_score(teacher):
    score = scorer(teacher).score
    before = score(batch().to_score())
    host, row, t = batch(), 1, 3
    place = host.prompt_len_B[row] + t
    host.tokens_BT[row, place] = host.targets_BR[row, t] = 6 + host.targets_BR[row, t] % 5
    after = score(host.to_score())
    np.testing.assert_array_equal(before.q_BR[row, :t], after.q_BR[row, :t])
    np.testing.assert_array_equal(before.value_BR[row, : t + 1], after.value_BR[row, : t + 1])
    assert before.q_BR[row, t] != after.q_BR[row, t]
    assert before.value_BR[row, t + 1] != after.value_BR[row, t + 1]
    assert before.end_value_B[row] != after.end_value_B[row]


def test_padding_rows_of_the_vocabulary_never_enter(teacher):
    model, params = teacher
    hot = {**params, "base": dict(params["base"])}
    head = params["base"]["lm_head"]["kernel"].copy()
    head[VOCAB:] = 50.0
    hot["base"]["lm_head"] = {"kernel": head}
    one, two = (
        scorer(teacher).score(batch().to_score()),
        scorer(teacher, params=hot).score(batch().to_score()),
    )
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, y)


def test_scores_over_a_mesh_equal_those_of_one_device(teacher):
    model, params = teacher
    mesh = tiny.mesh(2, 1, 2)
    split = TeacherScorer(
        model.replace(fuse=False), tiny.placed(params, mesh), mesh, alpha=1.0, vocab=VOCAB
    )
    for x, y in zip(
        split.score(batch().to_score()), scorer(teacher).score(batch().to_score()), strict=True
    ):
        np.testing.assert_allclose(x, y, atol=2e-5)


def test_under_fsdp_a_device_holds_the_activations_of_its_own_rows_alone():
    """Left to itself XLA splits the states of scanned layers by width, and holds all rows."""
    mesh = tiny.mesh(1, 8, 1)
    where = sharding.batch_sharding(mesh)
    wide = dataclasses.replace(
        tiny.ONE_LAYER, hidden_size=64, intermediate_size=160, num_layers=2, head_dim=16,
        layer_types=(),
    )  # fmt: skip
    found = {
        "tokens_BT": jax.ShapeDtypeStruct((64, 64), jnp.int32, sharding=where),
        "prompt_len_B": jax.ShapeDtypeStruct((64,), jnp.int32, sharding=where),
        "response_len_B": jax.ShapeDtypeStruct((64,), jnp.int32, sharding=where),
        "targets_BR": jax.ShapeDtypeStruct((64, 32), jnp.int32, sharding=where),
    }
    temp = {}
    for name, rows in (("rows", where), ("free", None)):
        model, params = tiny.build(wide, lora=False, unroll=False, rows=rows)
        own = TeacherScorer(model, tiny.placed(params, mesh), mesh, alpha=1.0, vocab=VOCAB)
        compiled = own._score.lower(own.params, found).compile()
        temp[name] = compiled.memory_analysis().temp_size_in_bytes
    assert 3 * temp["rows"] < temp["free"]


def test_a_bfloat16_teachers_logits_are_not_rounded_to_bfloat16(teacher):
    """Weights and states in bfloat16, products summed and kept in float32."""
    model, params = teacher
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    half["base"]["lm_head"] = {"kernel": half["base"]["lm_head"]["kernel"] * 16}  # logits near 30
    own = model.replace(compute_dtype="bfloat16", param_dtype="bfloat16")
    got, host = scorer((own, half)).score(batch().to_score()), batch()
    hidden_BTD = np.asarray(jax.jit(own.hidden)(half, host.tokens_BT), np.float64)
    head_VD = np.asarray(half["base"]["lm_head"]["kernel"], np.float64)[:VOCAB]
    rounding = 0.0
    for row in range(4):
        p, n = host.prompt_len_B[row], LENGTH[row]
        logits = hidden_BTD[row, p - 1 : p + n] @ head_VD.T
        value = np.log(np.exp(logits).sum(axis=1))
        q = logits[np.arange(n), host.targets_BR[row, :n]]
        np.testing.assert_allclose(got.q_BR[row, :n], q, atol=2e-5)
        np.testing.assert_allclose(got.value_BR[row, :n], value[:-1], atol=2e-5)
        np.testing.assert_allclose(got.end_value_B[row], value[-1], atol=2e-5)
        rounding = max(rounding, np.abs(q.astype(jnp.bfloat16).astype(np.float64) - q).max())
    assert rounding > 1000 * 2e-5


# --- the reward made of them ----------------------------------------------------------------------


def reward(teacher, **settings):
    host = batch()
    return np.asarray(
        combine.intrinsic_BR(
            RewardSettings(**settings),
            scorer(teacher, settings.get("alpha", 1.0)).score(host.to_score()),
            host.response_mask_BR,
            host.ended_B,
        )
    )


def test_canonical_reward_is_alpha_log_pi(teacher):
    got = reward(teacher, form="canonical", alpha=0.5)
    for row, n, q, value in naive(teacher, 0.5):
        np.testing.assert_allclose(got[row, :n], q - value[:-1], atol=2e-5)
        assert np.all(got[row, :n] < 0) and np.all(got[row, n:] == 0)


def test_raw_rewards_telescope_and_truncated_answers_are_bootstrapped(teacher):
    got = reward(teacher, form="raw")
    for row, _, q, value in naive(teacher, 1.0):
        # Σ r = α·log π(τ) + V(s_1) − V(after the end), and V is 0 only after EOS.
        end = 0.0 if ENDED[row] else value[-1]
        np.testing.assert_allclose(
            got[row].sum(), (q - value[:-1]).sum() + value[0] - end, atol=5e-5
        )


def test_raw_discount(teacher):
    got = reward(teacher, form="raw", gamma=0.9)
    for row, n, q, value in naive(teacher, 1.0):
        after = np.append(value[1:-1], 0.0 if ENDED[row] else value[-1])
        np.testing.assert_allclose(got[row, :n], q - 0.9 * after, atol=2e-5)


def test_canonical_reward_does_not_move_with_the_logits_constant(teacher):
    host = batch()
    scores = scorer(teacher).score(host.to_score())
    shift = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32) * 3
    moved = scores._replace(q_BR=scores.q_BR + shift, value_BR=scores.value_BR + shift)
    mask, ended = host.response_mask_BR, host.ended_B

    def both(form):
        settings = RewardSettings(form=form)
        return [combine.intrinsic_BR(settings, s, mask, ended) for s in (scores, moved)]

    np.testing.assert_allclose(*both("canonical"), atol=2e-6)
    one, two = both("raw")
    assert np.abs(one - two).max() > 1
    # Of the raw sums only the first state's constant is left.
    np.testing.assert_allclose((two - one).sum(axis=1), shift[:, 0], atol=1e-5)
