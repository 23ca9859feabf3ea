"""Simulated students with known learning gains: where the curriculum goes, and what it is worth.

pytest tests/curriculum/test_bandit.py -q -s        # prints the regrets
"""

import numpy as np
import pytest

from distill_jax.curriculum.curriculum import Curriculum
from distill_jax.curriculum.settings import CurriculumSettings
from tests.curriculum.problems import levels

A, P, G, STEPS, SEEDS = 5, 16, 8, 120, 5
MOVE = STEPS // 2


def advantage(correct_PG: np.ndarray) -> np.ndarray:
    """Mean |advantage| of each group by GRPO (ddof 0)."""
    mean_P1 = correct_PG.mean(axis=1, keepdims=True)
    return (np.abs(correct_PG - mean_P1) / (correct_PG.std(axis=1, keepdims=True) + 1e-6)).mean(1)


def expected(p_A: np.ndarray) -> np.ndarray:
    """2√(p(1−p)): an arm's expected signal, for many samples a group."""
    return 2 * np.sqrt(p_A * (1 - p_A))


class Moving:
    """Mastered arms and hopeless ones around one that teaches: the second, later the fourth."""

    def rates(self, step: int) -> np.ndarray:
        """Probability of a right answer in each arm."""
        if step < MOVE:
            return np.array([0.97, 0.5, 0.03, 0.02, 0.0])
        return np.array([1.0, 0.97, 0.97, 0.5, 0.03])

    def train(self, drawn_A: np.ndarray) -> None:
        """Training moves nothing here."""


class Student:
    """Learns by known gains a problem; an arm teaches once the arm before it is half known."""

    GAIN_A = np.array([0.001, 0.001, 0.0025, 0.0025, 0.0025])

    def __init__(self) -> None:
        self.p_A = np.array([0.9, 0.9, 0.02, 0.02, 0.02])

    def rates(self, step: int) -> np.ndarray:
        return self.p_A

    def train(self, drawn_A: np.ndarray) -> None:
        open_A = np.concatenate([[True], self.p_A[:-1] > 0.5])
        self.p_A = np.minimum(self.p_A + open_A * self.GAIN_A * drawn_A, 0.98)


def simulate(
    method: str, seed: int, world: Moving | Student, **settings: float
) -> tuple[np.ndarray, np.ndarray]:
    """Shares drawn [STEPS, A], and the regret of each step against its best arm."""
    how = CurriculumSettings(method=method, **settings)
    one = Curriculum(how, levels(*[200] * A), seed=seed, batch=P, steps=STEPS)
    state, draws = one.fresh(), np.random.default_rng([seed, 7])
    shares, regret = [], []
    for step in range(STEPS):
        ids = one.problem_ids(state, step)
        arm_P = one.arms.arm_N[ids]
        p_A = world.rates(step)
        correct_PG = draws.random((P, G)) < p_A[arm_P][:, None]
        state = one.update(state, ids, advantage(correct_PG), correct_PG.mean(axis=1))
        drawn_A = np.bincount(arm_P, minlength=A)
        world.train(drawn_A)
        shares.append(drawn_A / P)
        regret.append(expected(p_A).max() - expected(p_A) @ shares[-1])
    return np.array(shares), np.array(regret)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_it_finds_the_informative_arm_and_follows_when_it_moves(seed: int) -> None:
    shares, regret = simulate("self_evolving", seed, Moving())
    _, plain = simulate("uniform", seed, Moving())
    print(f"\nseed {seed}: regret {regret.sum():.1f}, uniform {plain.sum():.1f}")
    # Uniform gives each a fifth. After 20 steps, and as long after the move:
    assert shares[20:MOVE, 1].mean() > 0.5, shares[20:MOVE].mean(axis=0)
    assert shares[MOVE + 20 :, 3].mean() > 0.5, shares[MOVE + 20 :].mean(axis=0)
    assert shares[MOVE + 20 :, 1].mean() < 0.25
    # No arm is given up: the move could not have been seen.
    assert shares.sum(axis=0).min() * P > 5
    assert regret.sum() < 0.65 * plain.sum()


def test_a_student_that_learns_gets_further() -> None:
    skill, regret = {}, {}
    for method in ("self_evolving", "uniform"):
        students = [Student() for _ in range(SEEDS)]
        runs = [simulate(method, seed, student) for seed, student in enumerate(students)]
        skill[method] = np.array([student.p_A.mean() for student in students])
        regret[method] = np.array([lost.sum() for _, lost in runs])
        rounded = np.round(skill[method], 2), np.round(regret[method], 1)
        print(f"\n{method}: skill {rounded[0]}, regret {rounded[1]}")
    assert np.all(skill["self_evolving"] > skill["uniform"] + 0.05)
    assert np.all(regret["self_evolving"] < 0.8 * regret["uniform"])


def test_at_temperature_one_it_hardly_chooses() -> None:
    """Why the default is not τ = 1: signals lie within 0 and 1."""
    shares, regret = simulate("self_evolving", 0, Moving(), temperature=1.0)
    _, plain = simulate("uniform", 0, Moving())
    print(f"\nτ = 1: regret {regret.sum():.1f}, uniform {plain.sum():.1f}")
    assert shares[20:MOVE, 1].mean() < 0.5
