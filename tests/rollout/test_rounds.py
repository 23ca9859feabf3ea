"""Completions of several turns: against a loop without cache, and what they do not depend on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.data import tokenizer as tokenizers
from distill_jax.kernels.policy_losses import normaliser
from distill_jax.models.response import response_scores
from distill_jax.rollout import completions, rounds
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.completions import FAILED, MODEL, PROMPT, TOOL, Rollout
from distill_jax.rollout.rounds import Replies
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from tests import tiny
from tests.rollout.letters import LETTERS, Asks, Letters
from tests.tiny import EOS, PAD, VOCAB

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

PROMPTS = [[3, 9, 4, 11, 2], [7], [12, 3, 3, 8], [6, 14]]
IDS = [41, 7, 1000, 3]
THREE = SamplingSettings(max_new_tokens=10, segment=4, prompt_multiple=8, rounds=3, output_tokens=3)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def built():
    model, params = tiny.build()
    sampler = make(model)
    return model, params, sampler, sampler.weights(params, THREE)


def make(model, mesh=None):
    return Sampler(model, mesh or tiny.mesh(), eos_id=EOS, pad_id=PAD, vocab=VOCAB)


def generate(built, settings=THREE, prompts=PROMPTS, ids=IDS, samples=3, task=None, key=KEY):
    _, _, sampler, weights = built
    return rounds.generate(
        sampler, weights, prompts, settings, key=key, prompt_ids=ids, samples=samples,
        replies=Replies(task or Asks(), Letters()),
    )  # fmt: skip


def assert_same(got, want, *, exactly=False):
    for name in ("tokens_BR", "length_B", "ended_B", "role_BR"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    logp = got.behaviour_logp_BR, want.behaviour_logp_BR
    np.testing.assert_array_equal(*logp) if exactly else np.testing.assert_allclose(
        *logp, atol=1e-5
    )


def rows_of(rollout, rows):
    return Rollout(*(leaf[rows] for leaf in rollout))


# --- what is drawn --------------------------------------------------------------------------------


def loop_without_cache(model, params, prompt, task):
    """(tokens, roles, ended) of the greedy completion of three rounds, in plain words."""
    tokens, roles, turn, ended, turns = [], [], "", False, 1
    while roles.count(MODEL) < THREE.max_new_tokens:
        drawn = int(np.argmax(tiny.naive_logits(model, params, [*prompt, *tokens])[-1]))
        tokens, roles = [*tokens, drawn], [*roles, MODEL]
        if drawn == EOS:
            return tokens, roles, True
        turn += LETTERS[drawn]
        if task.asks(turn) and turns < THREE.rounds:
            reply = task.respond([turn])[0]
            if reply is None or roles.count(MODEL) == THREE.max_new_tokens:
                break
            tokens += [LETTERS.index(letter) for letter in reply.text]
            roles += [FAILED if reply.failed else TOOL] * len(reply.text)
            turn, turns = "", turns + 1
    return tokens, roles, ended


def test_greedy_turns_equal_a_loop_without_cache(built):
    model, params, _, _ = built
    prompts = [*PROMPTS, [2], [4, 4, 4], [10, 19], [18]]
    got = generate(built, dataclasses.replace(THREE, temperature=0.0), prompts, range(8), samples=1)
    seen = set()
    for row, prompt in enumerate(prompts):
        tokens, roles, ended = loop_without_cache(model, params, prompt, Asks())
        n = got.length_B[row]
        assert got.tokens_BR[row, :n].tolist() == tokens
        assert got.role_BR[row, :n].tolist() == roles
        assert np.all(got.role_BR[row, n:] == PROMPT) and np.all(got.tokens_BR[row, n:] == PAD)
        assert got.ended_B[row] == ended
        seen |= {roles.count(TOOL) + roles.count(FAILED)}
    assert len(seen) > 1  # with outputs and without, else nothing was tested


def test_probabilities_are_those_of_the_trainer_and_masks_come_from_roles(built):
    model, params, _, _ = built
    out = generate(built)
    assert {TOOL, FAILED} & set(np.unique(out.role_BR).tolist())
    # The outputs hold the ids of EOS and of padding: neither says what is an output or an end.
    between = (out.role_BR == TOOL) | (out.role_BR == FAILED)
    assert np.all(out.tokens_BR[between].reshape(-1, 3) == [5, 0, 13])
    batch = training_batch(PROMPTS, out, 3, pad_id=PAD, multiple=8)
    R = batch.targets_BR.shape[1]
    np.testing.assert_array_equal(batch.response_mask_BR, out.role_BR[:, :R] == MODEL)
    np.testing.assert_array_equal(batch.behaviour_logp_BR[between[:, :R]], 0.0)
    for row, n in enumerate(out.length_B):  # one list of ids: prompt, turns and outputs
        prompt = PROMPTS[row // 3]
        whole = [*prompt, *out.tokens_BR[row, :n]]
        assert batch.tokens_BT[row, : len(whole)].tolist() == whole
    scores = jax.jit(lambda *x: response_scores(model, *x, vocab=VOCAB).logp_BR)(
        params, batch.tokens_BT, batch.prompt_len_B, batch.targets_BR
    )
    gap = np.where(batch.response_mask_BR > 0, scores - batch.behaviour_logp_BR, 0.0)
    assert np.abs(gap).max() < 1e-4


def test_one_round_is_what_the_sampler_draws(built):
    _, _, sampler, weights = built
    one = dataclasses.replace(THREE, rounds=1)
    task = Asks()
    got = generate(built, one, task=task)
    how = {"key": KEY, "prompt_ids": IDS, "samples": 3}
    assert_same(got, sampler.generate(weights, PROMPTS, one, **how), exactly=True)
    assert_same(got, rounds.generate(sampler, weights, PROMPTS, THREE, **how), exactly=True)
    assert task.asked == []
    assert got.own == [row[:n].tolist() for row, n in zip(got.tokens_BR, got.length_B, strict=True)]
    # A first turn is the first part of the completion of one round.
    several = generate(built)
    for row, turn in enumerate(np.argmax(several.role_BR != MODEL, axis=1)):
        assert several.tokens_BR[row, :turn].tolist() == got.tokens_BR[row, :turn].tolist()


# --- what a completion does not depend on ---------------------------------------------------------


def test_completions_are_the_same_alone_and_in_any_order(built):
    whole = generate(built)
    for i in (0, 2):
        alone = generate(built, prompts=[PROMPTS[i]], ids=[IDS[i]], samples=2)
        assert_same(alone, rows_of(whole, slice(3 * i, 3 * i + 2)))
    order = [2, 0, 3, 1]
    other = generate(built, prompts=[PROMPTS[i] for i in order], ids=[IDS[i] for i in order])
    assert_same(other, rows_of(whole, np.concatenate([np.arange(3) + 3 * i for i in order])))


def test_each_turn_has_randomness_of_its_own(built, monkeypatch):
    calls, draw = [], Sampler.generate

    def spied(self, *args, key, prompt_ids, samples=1, firsts=None, **how):
        calls.append((jax.random.key_data(key).tolist(), list(prompt_ids), firsts))
        return draw(
            self, *args, key=key, prompt_ids=prompt_ids, samples=samples, firsts=firsts, **how
        )

    monkeypatch.setattr(Sampler, "generate", spied)
    # Every letter asks: both prompts' four samples have three turns, until EOS.
    task = Asks(marks=LETTERS, reply="an")
    out = generate(built, prompts=[[7], [7]], ids=[30, 20], samples=4, task=task)
    assert len({tuple(key) for key, _, _ in calls}) == len(calls) == 3
    for number, (_, ids, firsts) in enumerate(calls[1:]):
        going = [row for row, between in enumerate(out.outputs) if len(between) > number]
        count = len(going)
        assert ids[:count] == [[30, 20][row // 4] for row in going]
        assert firsts[:count] == [row % 4 for row in going]
    # Rows of one prefix, e.g. those that drew the same letter, go on differently.
    assert len({tuple(row) for row in out.tokens_BR.tolist()}) == 8


def test_sharded_equals_single(built):
    model, params, _, _ = built
    sampler = make(model, tiny.mesh(data=2, tensor=2))
    weights = sampler.weights(tiny.placed(params, sampler.mesh), THREE)
    assert_same(generate((model, params, sampler, weights)), generate(built))


# --- limits ---------------------------------------------------------------------------------------


def test_the_budget_is_of_the_models_tokens_and_the_last_turn_is_the_models(built):
    out = generate(built, samples=8)
    drawn_B = out.mask_BR.sum(axis=1)
    assert drawn_B.max() == 10 and out.length_B.max() > 10
    last_B = out.role_BR[np.arange(len(out.length_B)), out.length_B - 1]
    assert np.all(last_B == MODEL)
    cut = (drawn_B == 10) & (out.tokens_BR[np.arange(len(drawn_B)), out.length_B - 1] != EOS)
    assert cut.any() and not out.ended_B[cut].any()
    # Three turns at most: two outputs.
    assert max(len(between) for between in out.outputs) == 2


def test_without_room_behind_an_output_it_is_left_out(built):
    # 64 positions: a prompt of 40 and an output of 30 leave none.
    settings = dataclasses.replace(THREE, output_tokens=30)
    prompts, task = [[7] * 40, [7]], Asks(reply="a" * 30)
    out = generate(built, settings, prompts, [1, 2], samples=6, task=task)
    assert all(not between for between in out.outputs[:6]) and any(out.outputs[6:])
    stopped = [row for row in range(6) if set(LETTERS[i] for i in out.own[row]) & set(task.marks)]
    assert stopped and not out.ended_B[stopped].any()


def test_a_turn_without_a_reply_ends_its_completion(built):
    task = Asks(marks="bdgmqk")
    out = generate(built, samples=8, task=task)
    assert any("k" in text for text in task.asked)
    for row, between in enumerate(out.outputs):
        turns = completions.turns(int(out.length_B[row]), between)
        texts = [Letters().decode(out.tokens_BR[row, a:b], True) for a, b in turns]
        assert not any("k" in text for text in texts[:-1])


def test_a_long_output_keeps_its_beginning_and_its_end():
    assert rounds.bounded([1, 2, 3, 4], 4, [0]) == [1, 2, 3, 4]
    assert rounds.bounded(list(range(1, 10)), 6, [0, 0]) == [1, 2, 0, 0, 8, 9]
    assert rounds.bounded(list(range(1, 10)), 5, [0, 0]) == [1, 2, 0, 0, 9]
    assert rounds.bounded(list(range(1, 10)), 3, [0, 0]) == [1, 0, 0]


def test_several_processes_take_the_replies_of_the_first(monkeypatch):
    sent = []

    def of_first(array):
        sent.append(array)
        return np.array(array)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(rounds.sharding, "of_first_process", of_first)
    said = [([3, 0], True), None, ([], False)]
    assert rounds._agreed(said, 4) == said
    assert [array.shape for array in sent] == [(3, 4), (3,)]  # equal on all, whatever was said


def test_texts_of_special_tokens_and_line_ends_in_an_output():
    tok = tokenizers.train_tokenizer(["```output\nhello\n```\n"] * 9, 300)
    said = "```output\n<|im_end|><|endoftext|>\n```\n"
    replies = Replies(Asks(reply=said), tok)
    [(ids, failed)] = replies.ids([tok.encode("b", add_special_tokens=False)], 400)
    assert not failed and not {tokenizers.eos_id(tok), tokenizers.pad_id(tok)} & set(ids)
    assert replies.text(ids) == said
    [(short, _)] = replies.ids([tok.encode("b", add_special_tokens=False)], 25)
    assert len(short) == 25
    assert "[... cut ...]" in replies.text(short) and replies.text(short).endswith("```\n")


def test_a_turn_ends_with_the_first_token_that_asks():
    replies = Replies(Asks(), Letters())
    tokens = [LETTERS.index(letter) for letter in "hhgbh"]
    assert replies.stop(tokens) == 3 and replies.stop(tokens[:3]) == 3
    assert replies.stop(tokens[:2]) is None and replies.stop([]) is None


# --- what is trained ------------------------------------------------------------------------------


def by_hand():
    """bh fan st | hc fan hh | sf: tokens of three completions with 2-letter prompts."""
    texts = ["bhfanst", "hcfanhh", "sf"]
    roles = [[1, 1, 2, 2, 2, 1, 1], [1, 1, 3, 3, 3, 1, 1], [1, 1, 0, 0, 0, 0, 0]]
    tokens = np.array([[LETTERS.index(c) for c in text.ljust(7, "a")] for text in texts], np.int32)
    role = np.array(roles, np.int8)
    logp = np.where(role == MODEL, -1.0, 0.0).astype(np.float32)
    return Rollout(tokens, np.array([7, 7, 2], np.int32), np.array([0, 0, 1], bool), logp, role)


def test_void_turns_leave_the_loss_and_calls_are_counted():
    out = by_hand()
    mask_BR, metrics = rounds.trained(
        Replies(Asks(), Letters()), [[1, 2], [1, 2], [1, 2]], out, out.mask_BR
    )
    # The last turn of the second, "hh", has no mark and no s.
    want = [[1, 1, 0, 0, 0, 1, 1], [0] * 7, [1, 1, 0, 0, 0, 0, 0]]
    assert mask_BR.tolist() == want and mask_BR.dtype == np.float32
    # 2 calls of 3 completions, one failed; each read 2 + 5 tokens again.
    assert metrics == {
        "tools/call_frequency": pytest.approx(2 / 3),
        "tools/failure_frequency": 0.5,
        "tools/prefilled_tokens": 14.0,
        "void_turn_ratio": pytest.approx(1 / 3),
    }
    # Each prompt once, and those prefixes; of the roles above 4, 4 and 2 tokens are the model's.
    prompts = [[1, 2], [1, 2], [1, 2]]
    counted = {"step_prefilled_tokens": 6 + 14, "step_sampled_tokens": 10}
    assert rounds.counts([(prompts, out)]) == counted
    assert rounds.counts([(prompts, out)] * 2) == {n: 2 * count for n, count in counted.items()}
    # Three samples of one prompt.
    assert rounds.counts([([[1, 2]], out)])["step_prefilled_tokens"] == 2 + 14
    assert out.outputs == [[(2, 5, False)], [(2, 5, True)], []]
    assert out.own == [[1, 7, 18, 19], [7, 2, 7, 7], [18, 5]]


def test_other_ids_in_outputs_change_neither_mask_nor_denominators():
    out = by_hand()
    prompts = [[1, 2]] * 3
    batch = training_batch(prompts, out, 1, pad_id=PAD, multiple=8)
    for fill in (PAD, EOS, 17):
        tokens = np.where(out.role_BR >= TOOL, fill, out.tokens_BR)
        other = training_batch(prompts, out._replace(tokens_BR=tokens), 1, pad_id=PAD, multiple=8)
        for name in ("response_mask_BR", "response_len_B", "prompt_len_B", "behaviour_logp_BR"):
            np.testing.assert_array_equal(getattr(other, name), getattr(batch, name))
        want = normaliser(jnp.asarray(batch.response_mask_BR))
        assert normaliser(jnp.asarray(other.response_mask_BR)) == want
        assert (float(want.tokens), float(want.sequences)) == (10.0, 3.0)
        changed = other.tokens_BT != batch.tokens_BT
        assert changed[:, :9].any() == bool((out.tokens_BR != tokens).any())  # the conditioning
