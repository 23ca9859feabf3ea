"""The bonus of a reward model by hand; separators change nothing; signs of gaming stop the run."""

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, RewardHackingError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.reasoning.steps import Format
from distill_jax.rewards import bonuses, process
from distill_jax.rewards.process import ProcessSettings, StepScores
from distill_jax.rewards.settings import RewardSettings
from distill_jax.stages.rl_settings import RLSettings

ON = ProcessSettings(reward_model="prm", weight=0.5)


class Fake:
    """Scores .9, .5, .1, … by the step's place; the least of them is the answer's."""

    def __init__(self, tok, separator="\n"):
        self.tok, self.how = tok, Format(separator=separator)

    def score(self, prompts, completions):
        texts = [self.tok.decode(row) for row in completions]
        counts = [len([s for s in text.split(self.how.separator) if s.strip()]) for text in texts]
        return [np.array([0.9, 0.5, 0.1][:n], np.float32) for n in counts]

    def aggregate(self, scores):
        return np.array([row.min() if len(row) else np.nan for row in scores], np.float32)


@pytest.fixture(scope="module")
def tok():
    return tokenizers.train_tokenizer(["a b c d\n\n"] * 8, 280)


def scored(tok, texts, separator="\n", size=12):
    ids = [tok.encode(text, add_special_tokens=False) for text in texts]
    mask = (np.arange(size) < np.array([len(row) for row in ids])[:, None]).astype(np.float32)
    found = process.score(Fake(tok, separator), tok, [[1]] * len(ids), ids, mask)
    return found, jnp.array(mask)


def added(settings, scores, mask, advantage=(0.5, 0.5, -0.5, -0.5), right=(1.0, 1, 0, 0)):
    state = {"process": process.fresh()}
    out, state, figures = bonuses.add(
        RewardSettings(), settings, state, scores, jnp.array(advantage)[:, None] * mask,
        jnp.array(right), mask, jnp.ones(4, bool), samples=4, longest=12,
    )  # fmt: skip
    return out, state["process"], figures


def test_scores_are_padded_and_each_token_has_its_step(tok):
    found, _ = scored(tok, ["a\nb", "c", "", "a\nb\nc"])
    np.testing.assert_array_equal(found.mask_BS.sum(1), [2, 1, 0, 3])
    np.testing.assert_allclose(found.answer_B, [0.5, 0.9, np.nan, 0.1])
    assert found.step_BR[0].tolist()[:3] == [0, 0, 1]  # a, line break, b
    assert found.score_BS.dtype == found.mask_BS.dtype == np.float32
    # Places between the model's turns belong to no step of its text.
    gaps = np.array([[1, 0, 0, 1, 1]], np.float32)
    ids = tok.encode("a\nb", add_special_tokens=False)
    apart = process.score(Fake(tok, "\n"), tok, [[1]], [ids], gaps)
    assert apart.step_BR.tolist() == [[0, 0, 0, 0, 1]] and apart.answer_B == found.answer_B[0]


def test_each_token_of_a_program_is_in_the_step_of_its_statement(tok):
    text = "```py\na\nif b:\n x\nd"
    ids = tok.encode(text, add_special_tokens=False)
    fake = Fake(tok)
    fake.how, fake.score = Format("program"), lambda prompts, some: [np.ones(3, np.float32)]
    found = process.score(fake, tok, [[1]], [ids], np.ones((1, len(ids)), np.float32))
    of = {tok.decode([i]): step for i, step in zip(ids, found.step_BR[0].tolist(), strict=True)}
    assert [of[letter] for letter in ("a", "f", "x", "d")] == [0, 1, 1, 2]


def test_the_bonus_at_the_end_by_hand(tok):
    # right: .5 (3 tokens) and .9 (1 token): mean over tokens .6; wrong ones get nothing
    scores, mask = scored(tok, ["a\nb", "c", "c", "a\nb\nc"])
    out, _, figures = added(ON, scores, mask)
    np.testing.assert_allclose(out[0, :3], 0.5 + 0.5 * (0.5 - 0.6), rtol=1e-5)
    np.testing.assert_allclose(out[1, 0], 0.5 + 0.5 * (0.9 - 0.6), rtol=1e-5)
    np.testing.assert_array_equal(out[2:], -0.5 * mask[2:])
    assert float(figures["process/high_wrong"]) == 0.25  # "c" is wrong with .9
    np.testing.assert_allclose(figures["process/score_right"], 0.7, rtol=1e-6)
    np.testing.assert_allclose(figures["process/steps"], (2 + 1 + 1 + 3) / 4)


def test_credit_for_steps_is_nearly_all_on_the_worst(tok):
    settings = ProcessSettings(reward_model="prm", weight=0.5, form="min_form")
    scores, mask = scored(tok, ["a\nb\nc", "c", "c", "c"])
    out, _, _ = added(settings, scores, mask)
    # r = .8, 0, −.8 with T .1: returns to go near −.8 from each step on
    assert float(out[0].min()) < 0.5 < float(out[1, 0])
    assert float(out[:2][mask[:2] > 0].min()) > -0.5  # never below a wrong one
    # the same credit for the same steps, whatever stands between them
    double, mask2 = scored(tok, ["a\n\nb\n\nc", "c", "c", "c"], "\n\n", size=12)
    assert float(mask2[0].sum()) == float(mask[0].sum())  # "\n\n" is one token here
    np.testing.assert_allclose(added(settings, double, mask2)[0], out, rtol=1e-6)


def test_separators_change_no_bonus_at_the_end(tok):
    one, mask = scored(tok, ["a\nb", "c", "c", "c"])
    two, _ = scored(tok, ["a\n\nb", "c", "c", "c"], "\n\n")
    np.testing.assert_array_equal(added(ON, one, mask)[0], added(ON, two, mask)[0])


def test_unscored_and_undecided_answers(tok):
    scores, mask = scored(tok, ["a\nb", "", "c", "c"])
    mask = mask.at[1, 0].set(1.0)  # EOS alone
    out, _, _ = added(ON, scores, mask, right=(1.0, 1.0, jnp.nan, 0.0))
    np.testing.assert_allclose(out[:2, 0], [0.5, 0.5])  # the only scored right one is the mean
    assert float(out[2, 0]) == float(out[3, 0]) == -0.5


def test_running_signs(tok):
    scores, mask = scored(tok, ["a\nb", "c", "c", "a\nb\nc"])
    state, right = process.fresh(), jnp.array([True, True, False, False])
    for _ in range(3):
        _, state, figures = process.bonus(ON, state, scores, right, right | True, mask, 4)
    # equal batches: their mean is that of one
    expected = np.corrcoef([0.5, 0.9, 0.9, 0.1], [1, 1, 0, 0])[0, 1]
    np.testing.assert_allclose(figures["process/correlation"], expected, rtol=1e-5)
    np.testing.assert_allclose(state["first_steps"], 1.75)
    np.testing.assert_allclose(state["steps"], 1.75, rtol=1e-6)


def state(correlation=1.0, weight=1.0, first=4.0, now=4.0):
    names = ("correlation", "weight", "first_steps", "steps")
    return dict(zip(names, (correlation, weight, first, now), strict=True))


def test_the_rule_that_stops():
    bounded = ProcessSettings(reward_model="prm", least_correlation=0.2)
    process.refuse_hacking(bounded, state(correlation=0.2))
    process.refuse_hacking(bounded, state(correlation=0.01, weight=0.1))  # too few batches
    process.refuse_hacking(bounded, state(now=2.0))
    with pytest.raises(RewardHackingError, match="correlate with right answers by 0.10"):
        process.refuse_hacking(bounded, state(correlation=0.08, weight=0.8))
    with pytest.raises(RewardHackingError, match="1.9 steps on average, 4.0 at first"):
        process.refuse_hacking(bounded, state(now=1.9))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ProcessSettings(weight=0.3), "without process.reward_model"),
        (lambda: ProcessSettings(reward_model="p", temperature=0.2), "form=end"),
        (lambda: RLSettings(algorithm="ppo", process=ON), "algorithm=ppo"),
        (lambda: RLSettings(dynamic_sampling=1, process=ON), "dynamic_sampling"),
    ],
)
def test_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_fields_are_those_of_a_batch():
    # The arrays go through jit as one argument.
    assert StepScores.__dataclass_fields__.keys() == {"score_BS", "mask_BS", "answer_B", "step_BR"}
