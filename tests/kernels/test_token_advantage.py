"""Token advantages by hand, against loops, and two identities on an enumerated decision process."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.token_advantage import (
    compact,
    discounted_rest,
    group_baseline,
    log_ratio_reward,
    ordinals,
    token_advantage,
)

# Tokens 2 and 4 of the second row are an output between two turns.
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]], np.float32)
REWARD = np.array(
    [[1, 2, 4, 9, 9], [8, 9, 16, 9, 32], [3, 9, 9, 9, 9], [5, 7, 9, 9, 9]], np.float32
)


class Hand(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_reward(self):
        # −1 + 2 = 1 and −3 + .5 = −2.5 for s=1; −1 + 1 and −3 + .25 for s=½.
        run = self.variant(
            lambda t, s, m: [log_ratio_reward(t, s, m, student_weight=w) for w in (0.0, 0.5, 1.0)]
        )
        teacher, student = jnp.array([[-1.0, -3.0, 7.0]]), jnp.array([[-2.0, -0.5, jnp.nan]])
        found = run(teacher, student, jnp.array([[1.0, 1.0, 0.0]]))
        assert [x[0].tolist() for x in found] == [[-1, -3, 0], [0, -2.75, 0], [1, -2.5, 0]]

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        (0.0, [[1, 2, 4, 0, 0], [8, 0, 16, 0, 32]]),
        (1.0, [[7, 6, 4, 0, 0], [56, 0, 48, 0, 32]]),
        # 4; 2 + 4/2 = 4; 1 + 4/2 = 3. 32; 16 + 16 = 32; 8 + 16 = 24: an output is no step.
        (0.5, [[3, 4, 4, 0, 0], [24, 0, 32, 0, 32]]),
    )
    def test_rest(self, discount, wanted):
        run = self.variant(lambda r, m: discounted_rest(r, m, discount))
        assert run(REWARD, MASK)[:2].tolist() == wanted

    @chex.variants(with_jit=True, without_jit=True)
    def test_baseline(self):
        # One group of four. First tokens 1, 8, 3, 5: (8+3+5)/3, (1+3+5)/3, (1+8+5)/3, 4.
        # Second tokens 2, 16, –, 7: 23/2, 9/2, 9. Third 4, 32: 32 and 4.
        run = self.variant(lambda r, m: group_baseline(r, m, 4))
        wanted = [
            [16 / 3, 11.5, 32, 0, 0], [3, 0, 4.5, 0, 4], [14 / 3, 0, 0, 0, 0], [4, 9, 0, 0, 0]
        ]  # fmt: skip
        np.testing.assert_allclose(run(REWARD, MASK), wanted, rtol=1e-6)
        # Two groups of two: where the other has no such token, the mean of all of its tokens.
        # Row 2: row 3 has 5 and 7. Row 3: row 2 has 3 alone, at its second token too.
        pairs = self.variant(lambda r, m: group_baseline(r, m, 2))(REWARD, MASK)
        wanted = [[8, 16, 32, 0, 0], [1, 0, 2, 0, 4], [5, 0, 0, 0, 0], [3, 3, 0, 0, 0]]
        np.testing.assert_allclose(pairs, wanted, rtol=1e-6)
        assert not np.any(self.variant(lambda r, m: group_baseline(r, m, 1))(REWARD, MASK))


def test_places_among_kept_tokens():
    assert ordinals(MASK).tolist()[1] == [0, 0, 1, 1, 2]
    values, counts = compact(jnp.asarray(REWARD), MASK)
    assert values[1, :3].tolist() == [8, 16, 32] and counts.tolist() == [3, 3, 1, 2]


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
@pytest.mark.parametrize("discount", [0.0, 0.7, 1.0])
def test_masked_is_removed(discount, baseline):
    rng = np.random.default_rng(0)
    mask = (rng.random((6, 9)) < 0.6).astype(np.float32)
    reward = np.where(mask > 0, rng.normal(size=(6, 9)), np.nan).astype(np.float32)
    how = {"discount": discount, "baseline": baseline}
    found = np.asarray(token_advantage(reward, mask, 3, **how))
    assert not found[mask == 0].any()
    width = int(mask.sum(1).max())
    short = np.zeros((6, width), np.float32)
    kept = np.arange(width) < mask.sum(1)[:, None]
    short[kept] = reward[mask > 0]
    again = np.asarray(token_advantage(short, kept.astype(np.float32), 3, **how))
    np.testing.assert_allclose(again[kept], found[mask > 0], rtol=1e-5, atol=1e-6)


def test_another_baseline_is_refused():
    with pytest.raises(ConfigError, match="baseline='mean'"):
        token_advantage(REWARD, MASK, 2, discount=0.0, baseline="mean")


# --- a decision process of two steps, enumerated ----------------------------------------------
#
# Three tokens; the last ends the answer. Answers are (2), (0, a), (1, a): seven in all, so that
# lengths differ. The policy is a table of logits: row 0 of the first token, 1 + a of the second.

ANSWERS = [(2,)] + [(a, b) for a in (0, 1) for b in range(3)]
TOKENS = np.array([answer + (0,) * (2 - len(answer)) for answer in ANSWERS])
KEPT = np.array([[1, len(answer) == 2] for answer in ANSWERS], np.float32)
ROWS = np.stack([np.zeros(7, int), 1 + TOKENS[:, 0] % 2], axis=1)
_RNG = np.random.default_rng(3)
STUDENT, TEACHER = (_RNG.normal(size=(3, 3)) * 1.5 for _ in range(2))


def log_softmax(table):
    return table - np.log(np.exp(table).sum(axis=1, keepdims=True))


def token_logp(table):
    """log π of each answer's tokens, float64 [7, 2]."""
    return np.where(KEPT > 0, log_softmax(table)[ROWS, TOKENS], 0.0)


def probability(table):
    return np.exp(token_logp(table).sum(axis=1))


def numerical(objective):
    """Gradient of a function of the student's table by central differences, in float64."""
    out = np.zeros_like(STUDENT)
    for place in np.ndindex(*STUDENT.shape):
        step = np.zeros_like(STUDENT)
        step[place] = 1e-5
        out[place] = (objective(STUDENT + step) - objective(STUDENT - step)) / 2e-5
    return out


def expected_gradient(advantage, p=None):
    """Σ_τ p(τ) Σ_t A_t ∇log π_t, in float64."""
    p = probability(STUDENT) if p is None else p
    out, pi = np.zeros_like(STUDENT), np.exp(log_softmax(STUDENT))
    for i, weight in enumerate(p):
        for t in np.flatnonzero(KEPT[i]):
            row = ROWS[i, t]
            score = (np.arange(3) == TOKENS[i, t]) - pi[row]
            out[row] += weight * advantage[i, t] * score
    return out


def reward_of(student_weight):
    teacher, student = (token_logp(x).astype(np.float32) for x in (TEACHER, STUDENT))
    return log_ratio_reward(teacher, student, KEPT, student_weight=student_weight)


def gradient(student_weight, discount):
    made = token_advantage(reward_of(student_weight), KEPT, 1, discount=discount, baseline="none")
    return expected_gradient(np.asarray(made, np.float64))


def sequence_reward(table):
    return float(probability(table) @ token_logp(TEACHER).sum(axis=1))


def sequence_kl(table):
    own, other = token_logp(table).sum(axis=1), token_logp(TEACHER).sum(axis=1)
    return float(probability(table) @ (own - other))


def sequence_entropy(table):
    return float(-probability(table) @ token_logp(table).sum(axis=1))


def state_entropies(table):
    """Entropy of the next token at each visited state, [7, 2]."""
    log_pi = log_softmax(table)
    return np.where(KEPT > 0, -(np.exp(log_pi) * log_pi).sum(axis=1)[ROWS], 0.0)


def myopic(objective_of_states):
    """Gradient with the visits of states held: what a loss of exact terms at samples has."""
    visits = probability(STUDENT)
    return numerical(lambda table: float(visits @ objective_of_states(table).sum(axis=1)))


CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def test_to_go_without_the_student_is_the_gradient_of_the_sequence_reward():
    np.testing.assert_allclose(gradient(0.0, 1.0), numerical(sequence_reward), **CLOSE)
    # Without the rest it is not: what a token leads to is ignored.
    assert np.abs(gradient(0.0, 0.0) - numerical(sequence_reward)).max() > 0.05


def test_to_go_with_the_student_is_the_gradient_of_the_reverse_kl():
    want = numerical(lambda table: -sequence_kl(table))
    np.testing.assert_allclose(gradient(1.0, 1.0), want, **CLOSE)
    assert np.abs(gradient(0.0, 1.0) - want).max() > 0.05
    # And it is 0 at the teacher itself, token by token.
    assert not np.any(
        log_ratio_reward(*[token_logp(TEACHER).astype(np.float32)] * 2, KEPT, student_weight=1.0)
    )


def test_no_rest_with_the_student_is_the_gradient_of_the_exact_kl_at_visited_states():
    def minus_kl(table):
        log_pi = log_softmax(table)
        kl = (np.exp(log_pi) * (log_pi - log_softmax(TEACHER))).sum(axis=1)
        return np.where(KEPT > 0, -kl[ROWS], 0.0)

    np.testing.assert_allclose(gradient(1.0, 0.0), myopic(minus_kl), **CLOSE)


@pytest.mark.parametrize("w", [0.5, 1.0])
def test_entropy_of_the_same_weight_turns_the_intrinsic_reward_into_it(w):
    # The loss's entropy bonus is exact at each visited state: it completes γ=0.
    bonus = myopic(state_entropies)
    np.testing.assert_allclose(gradient(0.0, 0.0) + w * bonus, gradient(w, 0.0), **CLOSE)
    # γ=1 needs the entropy of the whole answer, where a token leads to states of more or less.
    whole = numerical(sequence_entropy)
    np.testing.assert_allclose(gradient(0.0, 1.0) + w * whole, gradient(w, 1.0), **CLOSE)
    assert np.abs(whole - bonus).max() > 0.05


@pytest.mark.parametrize("student_weight", [0.0, 1.0])
@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_the_baseline_adds_no_bias(discount, student_weight):
    # All 49 pairs of answers as groups of two, each with its probability.
    reward = np.asarray(reward_of(student_weight))
    first, second = (x.reshape(-1) for x in np.meshgrid(range(7), range(7), indexing="ij"))
    pairs = np.stack([first, second], axis=1).reshape(-1)
    made = token_advantage(
        jnp.asarray(reward[pairs]), KEPT[pairs], 2, discount=discount, baseline="leave_one_out"
    )
    p = probability(STUDENT)
    weight = p[first] * p[second]
    advantage = np.zeros((7, 2))
    np.add.at(advantage, first, weight[:, None] * np.asarray(made, np.float64)[::2])
    with_baseline = expected_gradient(advantage, np.ones(7))
    np.testing.assert_allclose(with_baseline, gradient(student_weight, discount), **CLOSE)


def test_it_carries_no_gradient():
    def total(logp):
        reward = log_ratio_reward(logp, 2 * logp, MASK, student_weight=1.0)
        return jnp.sum(token_advantage(reward, MASK, 2, discount=1.0, baseline="leave_one_out"))

    assert not np.any(jax.grad(total)(jnp.asarray(REWARD)))
