"""Published rewards of short answers, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.kernels import length_reward
from distill_jax.kernels.grpo import overlong_punishment


def group(*values):
    return jnp.array([values])


def close(found, *wanted):
    np.testing.assert_allclose(np.asarray(found)[0], wanted, rtol=1e-5, atol=1e-6)


RIGHT, WRONG = (group(*[one] * 3) for one in (True, False))


def test_linear():
    close(length_reward.linear(group(100, 300), 1e-3), -0.1, -0.3)


def test_kimi():
    # λ = ½ − (L − 100)/200: ½, 0, −½; a wrong answer gets no more than 0
    length = group(100, 200, 300)
    close(length_reward.kimi(length, RIGHT), 0.5, 0, -0.5)
    close(length_reward.kimi(length, WRONG), 0, 0, -0.5)
    # the range is the whole group's: of 100 and 200 alone the second would have −½
    close(length_reward.kimi(length, group(True, True, False)), 0.5, 0, -0.5)
    close(length_reward.kimi(group(70, 70, 70), RIGHT), 0, 0, 0)  # no range


def test_lcpo():
    # 1 − 3e-4·500 = .85, on both sides; α(n* − L) + ½: −6e-4·… of the code is 2α, the same
    found = length_reward.lcpo_exact(group(500, 1500, 1000), RIGHT, 1000, 3e-4)
    close(found, 0.85, 0.85, 1)
    close(length_reward.lcpo_exact(group(1500, 1000, 1000), WRONG, 1000, 3e-4), -0.15, 0, 0)
    # 1,000 over: ½ − .3 = .2; 200 under: ½ + .06 = .56; 2,000 over: cut to 0
    found = length_reward.lcpo_max(group(2000, 800, 3000), RIGHT, 1000, 3e-4)
    close(found, 0.2, 0.56, 0)
    close(length_reward.lcpo_max(group(2000, 800, 3000), WRONG, 1000, 3e-4), 0, 0, 0)


@pytest.mark.parametrize(
    ("right", "rate"), [((1, 1, 1, 1), 1), ((1, 0, 0, 0), 0.25), ((0,) * 4, 0.25)]
)
def test_alp(right, rate):
    # 1[right] − 1e-4·max(p, ¼)·100: .99 at p = 1, .9975 at p = ¼; ¼ is the floor, too
    found = length_reward.alp(group(100, 100, 100, 100), group(*map(bool, right)), 1e-4)
    close(found, *(one - 0.01 * rate for one in right))


def test_o1_pruner():
    # 200/100 − 1 + 5·¼ = 2.25; 200/400 − 1 + 5·¼ = .75; 1 − 5·¾ = −2.75, cut to −2
    arguments = group(100, 400, 100), group(True, True, False), jnp.array([200.0])
    close(length_reward.o1_pruner(*arguments, jnp.array([0.75])), 2.25, 0.75, -2)
    close(length_reward.o1_pruner(*arguments, jnp.array([0.75]), low=-9), 2.25, 0.75, -2.75)


def test_overlong_is_a_penalty():
    # L_max 20480, C 4096: half of the buffer is −½
    close(overlong_punishment(group(16384, 18432, 20480), 20480, 4096), 0, -0.5, -1)
