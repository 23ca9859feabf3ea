"""Controls of experiments: rewards that know length, or the verdict with noise."""

import numpy as np

from distill_jax.data import synthetic
from distill_jax.data.synthetic import ProblemSettings
from distill_jax.rewards import controls
from distill_jax.rewards.custom import CustomReward


def test_length_is_counted_in_pieces_of_text():
    # << 4 5 - 2 = 4 3 >> #### 4 3: 12 pieces; spaces count for nothing.
    texts = ["<<45-2=43>>\n#### 43", "", "a bc  d", "1" * 31, "x1" * 40]
    found = controls.length_31(["p"] * 5, texts, ["0"] * 5)
    np.testing.assert_allclose(found, [12 / 31, 0, 3 / 31, 1, 1])


def test_a_verdict_is_flipped_at_the_stated_rate_and_the_same_again():
    count = 4000
    prompts = [f"p{i // 8}" for i in range(count)]
    texts = ["#### 7" if i % 2 else "#### 8" for i in range(count)]
    right = np.arange(count) % 2 == 1
    flips = {}
    for name, rate in (("noisy_20", 0.2), ("noisy_40", 0.4)):
        function = getattr(controls, name)
        found = function(prompts, texts, ["7"] * count, level=[1] * count)
        assert found == function(prompts, texts, ["7"] * count)
        flips[name] = np.array(found) != right
        for of in (right, ~right):  # both kinds of verdict, ± 4 standard errors
            assert abs(flips[name][of].mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / 2000)
    assert np.all(flips["noisy_40"][flips["noisy_20"]])
    # Equal completions of a prompt get other flips.
    groups = flips["noisy_40"].reshape(-1, 8)[:, 1::2]
    assert np.any(groups.any(axis=1) & ~groups.all(axis=1))


def test_they_run_as_custom_rewards():
    problem = synthetic.problems("train", 1, ProblemSettings(), 0)[0]
    for name in ("length_31", "noisy_20", "noisy_40"):
        reward = CustomReward(f"distill_jax.rewards.controls:{name}", 60.0)
        try:
            texts = [problem.solution, "no answer"]
            found = reward(["q", "q"], texts, [problem.answer] * 2, {"level": [1, 1]})
        finally:
            reward.close()
        assert found.tolist() == [
            np.float32(x) for x in getattr(controls, name)(["q", "q"], texts, [problem.answer] * 2)
        ]
