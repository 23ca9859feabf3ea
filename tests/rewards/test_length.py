"""Term length by hand, alone and with a reward model's bonus; right stays above wrong."""

import dataclasses

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError, RewardError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.rewards import bonuses, combine, process
from distill_jax.rewards.length import FORMS, LengthSettings
from distill_jax.rewards.process import ProcessSettings, StepScores
from distill_jax.rewards.settings import RewardSettings
from distill_jax.stages.rl_prepare import prepare
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings

LONGEST = 400
# What each form needs besides its name.
NEEDS = {
    "lcpo_exact": {"target": 150},
    "lcpo_max": {"target": 150},
    "dapo_overlong": {"buffer": 300},
}


def rewards(weight=1.0, *, form="linear", gate=0.75, per_token=None, **more):
    length = LengthSettings(form, gate=gate, per_token=per_token, **NEEDS.get(form, {}))
    return RewardSettings(intrinsic_weight=0.0, length_weight=weight, length=length, **more)


def masks(*lengths):
    size = max(lengths)
    return (jnp.arange(size) < jnp.array(lengths)[:, None]).astype(jnp.float32)


def added(settings, advantage, correctness, lengths, ended=None):
    """Advantages of one group's answers with the term, one each, and the figures."""
    mask = masks(*lengths)
    ended = jnp.ones(len(lengths), bool) if ended is None else jnp.array(ended)
    out, state, figures = bonuses.add(
        settings, ProcessSettings(), {}, None, jnp.array(advantage)[:, None] * mask,
        jnp.array(correctness), mask, ended, samples=len(lengths), longest=LONGEST,
    )  # fmt: skip
    assert state == {}
    np.testing.assert_allclose(out, out[:, :1] * mask, rtol=1e-6)  # the same on all tokens
    return np.asarray(out[:, 0]), {name: float(value) for name, value in figures.items()}


MIXED = (0.5, 0.5, -0.5, -0.5), (1.0, 1.0, 0.0, 0.0), (100, 300, 50, 400)


def test_by_hand():
    # −1e-3 a token: −.1 and −.3 of the right ones, mean −.2; half the gap is .5
    settings = rewards(gate=0.5, per_token=1e-3)
    out, figures = added(settings, *MIXED)
    np.testing.assert_allclose(out, [0.6, 0.4, -0.5, -0.5], atol=1e-6)
    wanted = {
        "rewards/length/mean": -0.2, "rewards/length/std": 0.1, "length/bonus": 0.1,
        "length/tokens_right": 200, "length/open": 1, "length/bounded": 0, "length/reversed": 0,
    }  # fmt: skip
    assert figures == pytest.approx(wanted, rel=1e-5)


def test_the_gate_is_closed_where_too_few_are_right():
    out, figures = added(rewards(per_token=1e-3), *MIXED)
    np.testing.assert_array_equal(out, MIXED[0])
    assert figures["length/open"] == 0 and np.isnan(figures["length/bonus"])
    assert figures["length/tokens_right"] == 200
    # 7 of 10 pass a gate of .7, which float32 cannot divide exactly; 6 of 10 do not
    for right, wanted in ((7, 1.0), (6, 0.0)):
        correct = [1.0] * right + [0.0] * (10 - right)
        found = added(rewards(gate=0.7), correct, correct, range(10, 20))[1]
        assert found["length/open"] == wanted


def test_one_right_answer_has_nothing_to_be_compared_with():
    out, figures = added(rewards(gate=0.0), (1.5, -0.5, -0.5, -0.5), (1.0, 0, 0, 0), (9, 9, 9, 9))
    np.testing.assert_array_equal(out, [1.5, -0.5, -0.5, -0.5])
    assert figures["length/open"] == 0


def test_wrong_cut_off_and_undecided_answers_get_and_pay_nothing():
    # Right ones that ended: 100 and 300 tokens. The third is right and was cut off.
    settings = rewards(gate=0.5, per_token=1e-3)
    advantage = (0.5, 0.5, 0.5, 0.1, -0.5)
    out, _ = added(
        settings, advantage, (1.0, 1.0, 1.0, jnp.nan, 0.0), (100, 300, 400, 7, 5),
        ended=[True, True, False, True, True],
    )  # fmt: skip
    np.testing.assert_allclose(out, [0.6, 0.4, 0.5, 0.1, -0.5], atol=1e-6)


def test_a_group_all_right_is_ranked_by_length_and_bounded():
    # Advantages 0. Lengths 100, 200, 300 at −1e-3: +.1, 0, −.1.
    three = (0.0, 0, 0), (1.0, 1, 1), (100, 200, 300)
    np.testing.assert_allclose(added(rewards(per_token=1e-3), *three)[0], [0.1, 0, -0.1], atol=1e-6)
    # At −1e-2 half of what a right answer is worth, 1·(1 − 0)/2, is the most.
    out, figures = added(rewards(per_token=1e-2), *three)
    np.testing.assert_allclose(out, [0.5, 0, -0.5], atol=1e-6)
    assert figures["length/bounded"] == 1
    out, _ = added(rewards(per_token=1e-2, correctness_weight=0.5, wrong=-0.2), *three)
    np.testing.assert_allclose(out, [0.3, 0, -0.3], atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_pays_more_for_the_shorter_answer(form):
    # Lengths 160, 260, 380; all right. Beyond the targets of 150 each form falls with length.
    out, figures = added(rewards(form=form), (0.0, 0, 0), (1.0, 1, 1), (160, 260, 380))
    assert out[0] > out[1] > out[2]
    assert figures["length/open"] == 1 and figures["length/bonus"] > 0
    # The values of the forms, centred; 1[right] and a(1 − p̄) are the same for all and fall out.
    value = {
        "linear": [-2e-4 * n for n in (160, 260, 380)],
        "kimi": [0.5, 0.5 - 100 / 220, -0.5],
        "lcpo_exact": [-3e-4 * n for n in (10, 110, 230)],
        "lcpo_max": [-3e-4 * n for n in (10, 110, 230)],
        "alp": [-1e-4 * n for n in (160, 260, 380)],
        "o1_pruner": [800 / 3 / n for n in (160, 260, 380)],
        "dapo_overlong": [-60 / 300, -160 / 300, -280 / 300],
    }[form]
    wanted = np.clip(np.array(value) - np.mean(value), -0.5, 0.5)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-6)


def test_without_terms_the_advantages_are_not_touched():
    advantage = jnp.array([[0.1], [0.3]])
    out, state, figures = bonuses.add(
        RewardSettings(), ProcessSettings(), {"a": 1}, None, advantage, jnp.array([1.0, 0.0]),
        jnp.ones((2, 1)), jnp.array([True, True]), samples=2, longest=9,
    )  # fmt: skip
    assert out is advantage and state == {"a": 1} and figures == {}


# --- separators -----------------------------------------------------------------------------------


def test_separators_change_the_term_by_their_own_tokens_only():
    tok = tokenizers.train_tokenizer(["a b c d\n\n"] * 8, 280)
    settings = rewards(per_token=1e-2, gate=0.0)

    def lengths(separator):
        # The second answer is one step, so that it has no separator.
        texts = separator.join(["a", "b", "c"]), "d"
        return [len(tok.encode(text, add_special_tokens=False)) for text in texts]

    def paid(separator):
        return added(settings, (0.0, 0.0), (1.0, 1.0), lengths(separator))[0]

    # "\n\n" is one token here, as "\n": the same term to the bit
    assert lengths("\n\n") == lengths("\n") == [5, 1]
    np.testing.assert_array_equal(paid("\n\n"), paid("\n"))
    # "\n\n\n" is two: two more tokens cost the answer half of them against the other
    more = lengths("\n\n\n")
    assert more == [7, 1]
    np.testing.assert_allclose(paid("\n\n\n") - paid("\n"), [-0.01, 0.01], rtol=1e-4)


# --- right answers above wrong ones ---------------------------------------------------------------

P, G, R, S = 3, 4, 6, 2


@st.composite
def accepted(draw):
    """Settings with both terms that are accepted, of any weights."""
    form = draw(st.sampled_from(list(FORMS)))
    needs = {name: draw(st.integers(1, R)) for name in NEEDS.get(form, {})}
    per_token = draw(st.none() | st.floats(1e-4, 2)) if FORMS[form].per_token else None
    gate = draw(st.sampled_from([0.0, 0.5, 0.75, 1.0]))
    length = LengthSettings(form, gate=gate, per_token=per_token, **needs)
    wrong = draw(st.floats(-1, 1))
    how = {
        "correctness_weight": draw(st.floats(0.1, 3)),
        "wrong": wrong,
        "right": wrong + draw(st.floats(0.1, 2)),
        "reasoning_weight": draw(st.sampled_from([0.0, 0.05, 0.3])),
        "format_weight": draw(st.sampled_from([0.0, 0.05, 0.3])),
        "length_weight": draw(st.sampled_from([1e-3, 0.3, 1.0, 50.0])),
    }
    try:
        found = RewardSettings(intrinsic_weight=0.0, length=length, **how)
    except ConfigError:
        hypothesis.reject()
    weight, kind = draw(st.floats(0.01, 1)), draw(st.sampled_from(["end", "min_form"]))
    group = GroupSettings(
        scale=draw(st.sampled_from(["group", "batch", "none"])),
        baseline=draw(st.sampled_from(["mean", "leave_one_out"])),
    )
    return found, ProcessSettings(reward_model="prm", weight=weight, form=kind), group


@hypothesis.given(accepted(), st.randoms(use_true_random=False), st.floats(0, 1))
@hypothesis.settings(max_examples=80, deadline=None)
def test_a_right_answer_is_always_above_a_wrong_one(how, random, accuracy):
    settings, processes, group = how
    rng = np.random.default_rng(random.getrandbits(32))
    right_B = rng.random(P * G) < accuracy
    undecided_B = rng.random(P * G) < 0.1
    correctness_B = np.where(right_B, settings.right, settings.wrong).astype(np.float32)
    correctness_B[undecided_B] = np.nan
    terms = {"correctness": correctness_B}
    # The worst that the other terms can do: all of it to one side, at random.
    for name in ("reasoning", "format"):
        if settings.weights[name]:
            terms[name] = rng.choice([0.0, 1.0, np.nan], P * G).astype(np.float32)
    length_B = rng.integers(1, R + 1, P * G)
    mask_BR = (np.arange(R) < length_B[:, None]).astype(np.float32)
    zero = np.zeros((P * G, R), np.int32)
    batch = RolloutBatch(
        zero, zero[:, 0], length_B.astype(np.int32), mask_BR, zero, rng.random(P * G) < 0.8, mask_BR
    )
    score_BS = rng.random((P * G, S)).astype(np.float32)
    steps = StepScores(
        score_BS, np.ones_like(score_BS), score_BS.min(axis=1), (np.arange(R) >= 3) + zero
    )
    base_BR, _ = advantages(_without(settings), processes, group, batch, terms, None)
    found_BR, figures = advantages(settings, processes, group, batch, terms, steps)
    kept_BR, decided_B = mask_BR > 0, ~undecided_B
    for start in range(0, P * G, G):
        rows = np.arange(P * G)
        here_B = decided_B & (rows >= start) & (rows < start + G)
        right_BR, wrong_BR = (
            kept_BR & (here_B & kind_B)[:, None] for kind_B in (right_B, ~right_B)
        )
        if right_BR.any() and wrong_BR.any():
            assert found_BR[right_BR].min() > found_BR[wrong_BR].max()
        elif right_BR.any():  # at most half of what correctness is worth
            change = np.abs(found_BR - base_BR)[right_BR].max()
            assert change <= settings.gap / 2 + 1e-5
        np.testing.assert_array_equal(found_BR[wrong_BR], base_BR[wrong_BR])
    assert float(figures["length/reversed"]) == 0


def advantages(settings, processes, group, batch, terms, steps):
    """Advantages as stage rl makes them, and its metrics."""
    (policy, _), _, figures = prepare(
        combine.fresh_state(processes=True), batch, terms, batch.response_mask_BR, None, None,
        None, steps, rewards=settings, bonus=processes, algorithm=ALGORITHMS["dapo"],
        settings=group, samples=G, max_new_tokens=R,
    )  # fmt: skip
    return np.asarray(policy.advantages.advantage_BR), figures


def _without(settings):
    return dataclasses.replace(settings, length_weight=0.0)


def test_a_reversed_group_stops_the_run():
    bonuses.refuse_reversed({"length/reversed": jnp.zeros(())})
    with pytest.raises(RewardError, match="has the advantage of a right one"):
        bonuses.refuse_reversed({"length/reversed": jnp.float32(0.25)})


# --- settings -------------------------------------------------------------------------------------


def form(name, **more):
    return lambda: LengthSettings(name, **more)


def rl(weight=1.0, **more):
    return lambda: RLSettings(**{"algorithm": "dapo", "rewards": rewards(weight), **more})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (form("lcpo_max"), "target=0 with form=lcpo_max"),
        (form("dapo_overlong"), "buffer=0 with form=dapo_overlong"),
        (form("linear", target=9), "target=9 with form=linear"),
        (form("lcpo_exact", target=9, buffer=2), "buffer=2 with form=lcpo_exact"),
        (form("kimi", per_token=1e-3), "per_token=0.001 with form=kimi"),
        (form("short"), "form='short'"),
        (lambda: rewards(overlong_buffer=4), "overlong_buffer=4 with length_weight"),
        # Terms that can pay more for a wrong answer than correctness for a right one.
        (lambda: RewardSettings(length_weight=1.0), "pay up to 3 more"),
        (lambda: rewards(custom="a:b"), "pay up to inf more"),
        (lambda: rewards(format_weight=0.5, reasoning_weight=0.5), "pay up to 1 more"),
        (lambda: rewards(format_weight=0.5, adaptive=True), "pay up to 1 more"),
        (lambda: rewards(correctness_weight=0.0, format_weight=0.5), "correctness 0 more"),
        (lambda: RewardSettings(length_weight=1.0, intrinsic_weight=0.1, clip=0.0), "up to inf"),
        (lambda: rewards(correctness_weight=0.0), "all weights of rewards are 0"),
        # Losses that weigh a token of a long answer less, and one without groups.
        (rl(algorithm="grpo"), "algorithm=grpo; wanted: one of dr_grpo, bnpo, dapo, cispo"),
        (rl(algorithm="gspo"), "algorithm=gspo"),
        (rl(algorithm="ppo"), "algorithm=ppo"),
        # Two right and two wrong completions cannot stay.
        (rl(0.0, oversample=2, samples_per_prompt=3), "oversample=2 with samples_per_prompt below"),
        (rl(0.0, oversample=2, algorithm="ppo"), "oversample=2 with algorithm=ppo"),
    ],
)
def test_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_accepted():
    rl()()
    RewardSettings(length_weight=1.0, intrinsic_weight=0.3, clip=1.5)  # .9 of 1
    # Groups all right are kept, so that a reward model may rank them, too.
    model = ProcessSettings(reward_model="prm")
    rl(dynamic_sampling=1, process=model)()
    with pytest.raises(ConfigError, match="dynamic_sampling"):
        rl(0.0, dynamic_sampling=1, process=model)()


def test_both_terms_share_one_bound():
    # Gap 1. Length gives +.4 and −.4, the reward model ±.5·(1 − 0)/2 = ±.25, all to the same one.
    settings = rewards(gate=0.5, per_token=4e-3)
    scores = StepScores(
        jnp.array([[1.0], [0.0], [1.0], [1.0]]), jnp.ones((4, 1)), jnp.array([1.0, 0, 1, 1]),
        jnp.zeros((4, 300), jnp.int32),
    )  # fmt: skip
    mask = masks(100, 300, 50, 50)
    out, _, figures = bonuses.add(
        settings, ProcessSettings(reward_model="prm", weight=0.5), {"process": process.fresh()},
        scores, jnp.array(MIXED[0])[:, None] * mask, jnp.array(MIXED[1]), mask,
        jnp.ones(4, bool), samples=4, longest=LONGEST,
    )  # fmt: skip
    # The reward model's mean is over tokens, 100 of 1 and 300 of 0: +.375 and −.125.
    np.testing.assert_allclose(out[:, 0], [1.0, 0.0, -0.5, -0.5], atol=1e-6)  # .775 and −.525: ±.5
    assert float(figures["length/bounded"]) == float(figures["process/bounded"]) == 1
