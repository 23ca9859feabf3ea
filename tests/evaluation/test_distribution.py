"""Student beside teacher on the same prefixes, against full logits of tiny models."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.evaluation.distribution import (
    compare_on_responses,
    response_means,
    summary,
    token_means,
)
from distill_jax.models.head.comparison import TokenComparison
from distill_jax.run.models import Loaded
from tests import tiny
from tests.tiny import VOCAB

# Prompts of 3, 1 and 2 tokens; answers of 4, 2 and 5; then padding to 8.
TOKENS = np.zeros((3, 8), np.int32)
PROMPT, ANSWER = np.array([3, 1, 2], np.int32), np.array([4, 2, 5], np.int32)
for row in range(3):
    n = PROMPT[row] + ANSWER[row]
    TOKENS[row, :n] = np.random.default_rng(row).integers(1, VOCAB, n)
# More logit rows than the student's, and another width.
WIDER = dataclasses.replace(tiny.ONE_LAYER, vocab_size=tiny.ROWS + 8, hidden_size=24)


def compared(student, teacher, tokens=TOKENS):
    batch = {"tokens_BT": tokens, "prompt_len_B": PROMPT, "targets_BR": np.zeros((3, 6))}
    return compare_on_responses(Loaded(*student), Loaded(*teacher), batch, VOCAB)


def probabilities(side, tokens):
    return np.exp(tiny.log_softmax(tiny.naive_logits(*side, tokens)))


@pytest.fixture(scope="module")
def sides():
    return tiny.build(seed=1, noise=0.4), tiny.build(WIDER, lora=False, seed=2, noise=0.4)


def test_equals_full_logits_one_place_before_each_token(sides):
    student, teacher = sides
    got = compared(student, teacher)
    means = response_means(got, ANSWER)
    for row in range(3):
        p_len, count = PROMPT[row], ANSWER[row]
        tokens = TOKENS[row, : p_len + count]
        p, q = (probabilities(side, tokens)[p_len - 1 : -1] for side in (teacher, student))
        m = (p + q) / 2
        norms = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
        expected = TokenComparison(
            np.sum(p * np.log(p / q), axis=1),
            np.sum(q * np.log(q / p), axis=1),
            np.sum(p * np.log(p / m) + q * np.log(q / m), axis=1) / 2,
            np.sum(p * q, axis=1) / norms,
            p.argmax(axis=1) == q.argmax(axis=1),
        )
        for name in TokenComparison._fields:
            wanted = getattr(expected, name)
            np.testing.assert_allclose(getattr(got, name)[row, :count], wanted, atol=2e-5)
            np.testing.assert_allclose(means[name][row], wanted.mean(), atol=2e-5)


def test_a_score_does_not_see_its_own_token(sides):
    before = compared(*sides)
    tokens, t = TOKENS.copy(), 2  # of row 0
    tokens[0, PROMPT[0] + t] = 1 + tokens[0, PROMPT[0] + t] % (VOCAB - 1)
    after = compared(*sides, tokens)
    np.testing.assert_array_equal(before.cosine[0, : t + 1], after.cosine[0, : t + 1])
    assert before.cosine[0, t + 1] != after.cosine[0, t + 1]


def test_student_beside_itself(sides):
    student = sides[0]
    means = token_means([(compared(student, student), ANSWER)])
    for name in ("forward_kl", "reverse_kl", "jensen_shannon"):
        assert means[name] == pytest.approx(0.0, abs=1e-6)
    assert means["cosine"] == pytest.approx(1.0, abs=1e-6) and means["top1_agreement"] == 1.0


def test_padding_behind_a_response_and_rows_of_the_head_have_no_influence(sides):
    student, (model, params) = sides
    before = token_means([(compared(student, (model, params)), ANSWER)])
    tokens = TOKENS.copy()
    for row in range(3):
        tokens[row, PROMPT[row] + ANSWER[row] :] = 7
    assert token_means([(compared(student, (model, params), tokens), ANSWER)]) == before

    def shout(leaf):  # in the teacher's rows that stand for no token
        leaf = np.array(leaf)
        if leaf.shape == (WIDER.vocab_size, WIDER.hidden_size):
            leaf[VOCAB:] = 1e3
        return leaf

    loud = jax.tree.map(shout, params)
    assert np.max(model.head_VD(loud)) == 1e3
    assert token_means([(compared(student, (model, loud)), ANSWER)]) == before


def test_means_weigh_tokens_over_batches_of_different_sizes():
    def scores(rows):
        x = np.array(rows, np.float32)
        return TokenComparison(x, 2 * x, 3 * x, 4 * x, 5 * x)

    # Behind a response stands nonsense: it must not count, not even as nan.
    one = scores([[1.0, 3.0, np.nan], [5.0, np.inf, 9.0], [np.nan] * 3])
    two = scores([[7.0]])
    lengths = np.array([2, 1, 0])
    got = token_means([(one, lengths), (two, np.array([1]))])
    assert got["tokens"] == 4 and got["responses"] == 4
    assert got["forward_kl"] == pytest.approx((1 + 3 + 5 + 7) / 4)
    assert got["top1_agreement"] == pytest.approx(5 * got["forward_kl"])
    np.testing.assert_array_equal(response_means(one, lengths)["forward_kl"], [2.0, 5.0, np.nan])
    assert token_means([])["cosine"] is None


def test_summary_by_hand():
    # Two answers of 3 and 1 tokens; every measure the same numbers.
    score = np.array([[0.2, 0.4, 0.6, 9.0], [1.0, 9.0, 9.0, 9.0]], np.float32)
    got = summary([(TokenComparison(*[score] * 5), np.array([3, 1]))])
    assert got["tokens"] == 4 and got["responses"] == 2
    # Mean 2.2/4 = .55; rests 1.2 − 1.65 and 1 − .55, ±.45: std √2·.45, over (2·√2).
    half = 12.7062047 * 0.45 / 2
    for name in ("forward_kl", "cosine"):
        assert got[name]["mean"] == pytest.approx(0.55)
        assert got[name]["low"] == max(0.0, 0.55 - half) == 0.0
    assert got["forward_kl"]["high"] == pytest.approx(0.55 + half, rel=1e-6)
    assert got["cosine"]["high"] == 1.0
    nothing = summary([])
    assert nothing["tokens"] == 0 and nothing["cosine"] == {"mean": None, "low": None, "high": None}
