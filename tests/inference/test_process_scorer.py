"""Scores of steps: equal to a forward pass for each row, whatever shares the batch."""

import dataclasses

import numpy as np
import pytest

from distill_jax.core.errors import NonFiniteError, TokenizerMismatchError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.inference import process_scorer
from distill_jax.inference.process_scorer import ProcessScorer
from distill_jax.models.reward_model_io import PRMConfig
from tests import tiny

TEXTS = ["2+3=5\n2*5=10\n#### 10", "one two three\nfour", "a b c d"] * 8
QUESTIONS = ["one two", "three", "a b c d one two three four", "b"]
ANSWERS = ["2+3=5\n2*5=10\n#### 10", "a\n\nb c", "\n one two three four\n2\n3", "d"]


@pytest.fixture(scope="module")
def tok():
    return tokenizers.train_tokenizer(TEXTS, 270)


def make(tok, about, batch=64, bias=0.0):
    config = dataclasses.replace(tiny.ONE_LAYER, vocab_size=len(tok))
    model, params = tiny.build(config, lora=False)
    draw = np.random.default_rng(3).standard_normal((2, config.hidden_size))
    score = {"weight": draw.astype(np.float32), "bias": np.float32([0, bias])}
    step_id = tok.encode("\n")[0]
    return ProcessScorer(model, params, score, about, tok, step_id, tiny.mesh(), batch=batch)


@pytest.fixture(scope="module")
def rows(tok):
    prompts = [tok.encode(text) for text in QUESTIONS]
    answers = [[*tok.encode(text), tokenizers.eos_id(tok)] for text in ANSWERS]
    return prompts, answers


@pytest.fixture(scope="module")
def scorer(tok):
    return make(tok, PRMConfig())


def naive(scorer, tok, prompt, answer):
    """P(right) after each line, by a forward pass over this row alone."""
    row, ends, out = list(prompt), [], []
    for line in tok.decode(answer, skip_special_tokens=True).split("\n"):
        if line.strip():
            row += [*tok.encode(line.strip()), scorer.step_id]
            ends.append(len(row) - 1)
    padded = np.array([row + [0] * (64 - len(row))], np.int32)  # one shape, compiled once
    hidden = np.asarray(tiny.hidden(scorer.model, scorer.params, padded)[0], float)
    for end in ends:
        wrong, right = scorer.head["weight"] @ hidden[end] + scorer.head["bias"]
        out.append(1 / (1 + np.exp(wrong - right)))
    return out


def test_scores_are_those_of_each_row_alone(scorer, tok, rows):
    got = scorer.score(*rows)
    assert [len(one) for one in got] == [3, 2, 3, 1]
    for one, *row in zip(got, *rows, strict=True):
        np.testing.assert_allclose(one, naive(scorer, tok, *row), atol=1e-5)
    assert np.ptp(np.concatenate(got)) > 0.1


def test_order_batch_and_padding_change_nothing(scorer, tok, rows):
    want = scorer.score(*rows)
    turned = scorer.score(rows[0][::-1], rows[1][::-1])[::-1]
    alone = [scorer.score([p], [a])[0] for p, a in zip(*rows, strict=True)]
    parts = make(tok, PRMConfig(), batch=2).score(*rows)
    long = scorer.score([*rows[0], rows[0][0]], [*rows[1], rows[1][0] * 3])[:-1]
    for other in (turned, alone, parts, long):
        for one, two in zip(want, other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_one_forward_pass_over_all_candidates(scorer, rows, monkeypatch):
    calls, program = [], process_scorer._program

    def counted(model):
        return lambda *arrays: calls.append(arrays[2].shape) or program(model)(*arrays)

    monkeypatch.setattr(process_scorer, "_program", counted)
    scorer.score(*rows)
    scorer.score(rows[0][:3], rows[1][:3])
    assert calls == [(4, 64), (4, 64)]  # one pass each, of one shape


def test_steps_without_room_have_no_score(tok, rows):
    whole = make(tok, PRMConfig()).score(*rows)
    # room for the prompt and the first step: 2+3=5 is 5 tokens and the step token
    short = make(tok, PRMConfig(max_length=len(rows[0][0]) + 6))
    got = short.score(rows[0][:1], rows[1][:1])[0]
    np.testing.assert_allclose(got, [whole[0][0], np.nan, np.nan], atol=1e-6)
    none = make(tok, PRMConfig(max_length=3)).score(rows[0][2:3], rows[1][2:3])
    assert np.isnan(none[0]).all() and len(none[0]) == 3
    assert np.isnan(short.aggregate(none)).all()
    eos = tokenizers.eos_id(tok)
    assert [len(one) for one in short.score([[1]] * 2, [[], [eos]])] == [0, 0]
    assert short.score([], []) == [] and short.aggregate([]).shape == (0,)


def test_a_model_aggregates_in_its_own_way(tok):
    # products: .9·.5 = .45; the dropped step counts for nothing
    scores = [np.float32([0.9, 0.5]), np.float32([0.2, np.nan]), np.zeros(0, np.float32)]
    for how, want in {"product": [0.45, 0.2], "last": [0.5, 0.2], "mean": [0.7, 0.2]}.items():
        got = make(tok, PRMConfig(aggregation=how)).aggregate(scores)
        np.testing.assert_allclose(got, [*want, np.nan], rtol=1e-6)


def test_scores_that_are_not_finite_are_refused(tok, rows):
    with pytest.raises(NonFiniteError, match="reward model's scores are not finite"):
        make(tok, PRMConfig(), bias=np.nan).score(*rows)


def test_the_step_token_alone_may_have_another_name():
    # Released reward models rename an added token of the student's, which nothing else uses.
    tok, other = (tokenizers.train_tokenizer(TEXTS, 270) for _ in range(2))
    assert tok.get_vocab() == other.get_vocab()
    tok.add_tokens(["<quad>"]), other.add_tokens(["<extra_0>"])
    last = len(tok) - 1
    tokenizers.check_same_tokenizer(other, tok, name="reward model", apart=last)
    with pytest.raises(TokenizerMismatchError, match="'<extra_0>' to the reward model"):
        tokenizers.check_same_tokenizer(other, tok, name="reward model")
    newer = tokenizers.train_tokenizer(["x y z\n"] * 8, 270)
    line = newer.encode("\n")[0]
    with pytest.raises(TokenizerMismatchError, match="train the reward model from this student"):
        tokenizers.check_same_tokenizer(newer, tok, name="reward model", apart=line)
