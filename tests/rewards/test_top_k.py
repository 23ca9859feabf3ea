"""The top-k scorer against plain logits, and through the cache that keeps its scores."""

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.models import response
from distill_jax.models.head.listed import TopK
from distill_jax.rewards import top_k
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.rewards.top_k import TopKScorer
from tests import tiny
from tests.rewards.test_teacher_cache_scoring import B, R, make, take
from tests.tiny import VOCAB

pytestmark = pytest.mark.mesh

K, T = 4, 2.0


@pytest.fixture(scope="module")
def model():
    return tiny.build(lora=False, seed=3)


def scorer(model, mesh=None, k=K, temperature=T, vocab=VOCAB):
    where = mesh or tiny.mesh()
    params = tiny.placed(model[1], where)
    own = model[0].replace(fuse=where.shape["tensor"] == 1)
    return TopKScorer(own, params, where, k=k, vocab=vocab, temperature=temperature)


@pytest.fixture(scope="module")
def plain(model):
    return scorer(model)


class Spy:
    def __init__(self, teacher):
        self.teacher, self.model, self.vocab = teacher, teacher.model, teacher.vocab
        self.kind, self.alphas, self.calls = teacher.kind, teacher.alphas, []

    def score(self, batch):
        self.calls.append(len(batch["tokens_BT"]))
        return self.teacher.score(batch)


def cached(teacher, mesh=None, *, megabytes=1.0, **settings):
    settings = CacheSettings(megabytes=megabytes, **settings)
    mesh = mesh or tiny.mesh()
    return CachedTeacher(Spy(teacher), mesh, settings, model="weights", tokenizer="tokens")


def cut(scores, batch):
    return [
        tuple(np.asarray(x)[row, :n].tobytes() for x in scores)
        for row, n in enumerate(batch["response_len_B"])
    ]


def test_against_the_naive_logits(model, plain):
    batch = make()
    got = plain.score(batch)
    assert isinstance(got, TopK)
    assert got.ids_XK.shape == got.logp_XK.shape == (B, R, K)
    for row in range(B):
        p, n = batch["prompt_len_B"][row], batch["response_len_B"][row]
        logits = tiny.naive_logits(*model, batch["tokens_BT"][row, : p + n])[p - 1 : p + n - 1]
        logp = tiny.log_softmax(logits / T)
        order = np.argsort(-logp, axis=1, kind="stable")[:, :K]
        np.testing.assert_array_equal(got.ids_XK[row, :n], order)
        listed = np.take_along_axis(logp, order, axis=1)
        np.testing.assert_allclose(got.logp_XK[row, :n], listed, atol=1e-5)
        tail = np.log(1 - np.exp(listed).sum(axis=1))
        np.testing.assert_allclose(got.log_tail_X[row, :n], tail, atol=1e-4)


@pytest.mark.parametrize("extents", [(1, 8, 1), (1, 1, 2), (2, 2, 2)])
def test_over_a_mesh(model, plain, extents):
    batch, mesh = make(), tiny.mesh(*extents)
    got, want = scorer(model, mesh).score(batch), plain.score(batch)
    inside = np.arange(R) < batch["response_len_B"][:, None]
    np.testing.assert_array_equal(np.asarray(got.ids_XK)[inside], np.asarray(want.ids_XK)[inside])
    np.testing.assert_allclose(
        np.asarray(got.logp_XK)[inside], np.asarray(want.logp_XK)[inside], atol=1e-5
    )


def test_few_rows_at_a_time_give_the_same_tokens(model, plain, monkeypatch):
    batch = make()
    monkeypatch.setattr(top_k, "_scoring", top_k._scoring.__wrapped__)  # keeps no program
    monkeypatch.setattr(response, "PART_TOKENS", 2 * batch["tokens_BT"].shape[1])
    parts = scorer(model)
    lowered = parts._score.lower(parts.params, {n: batch[n] for n in top_k.NAMES})
    assert "stablehlo.while" in lowered.as_text()
    got, want = parts.score(batch), plain.score(batch)
    inside = np.arange(R) < batch["response_len_B"][:, None]
    np.testing.assert_array_equal(np.asarray(got.ids_XK)[inside], np.asarray(want.ids_XK)[inside])


@pytest.mark.parametrize("rows", [0, 2, B])
def test_cached_scores_are_the_fresh_bits(plain, rows, tmp_path):
    batch = make()
    where = {"rows": rows, "directory": str(tmp_path)}
    cold = cached(plain, **where)
    fresh = cut(cold.score(batch), batch)
    if rows != 2:  # the batch's own shape: the bits of a teacher without a cache
        assert fresh == cut(plain.score(batch), batch)
    assert cut(cold.score(batch), batch) == fresh
    cold.close()
    other = cached(plain, **where)
    scores = other.score(batch)
    assert cut(scores, batch) == fresh and other.teacher.calls == []
    beyond = np.arange(R) >= batch["response_len_B"][:, None]
    assert not np.asarray(scores.ids_XK)[beyond].any()
    assert not np.asarray(scores.log_tail_X)[beyond].any()


def test_what_was_evicted_is_scored_again_to_the_same_bits(plain):
    whole, small = cached(plain, rows=2), cached(plain, rows=2, megabytes=0.0015)
    for seed in (0, 1, 0, 0):
        batch = make(seed)
        assert cut(whole.score(batch), batch) == cut(small.score(batch), batch)
    assert small.metrics()["teacher_cache/evictions"] > 0
    assert len(small.teacher.calls) > len(whole.teacher.calls)


def test_damaged_bytes_are_scored_again(plain):
    batch, teacher = make(), cached(plain, rows=2)
    want = cut(teacher.score(batch), batch)
    memory = teacher.cache._memory
    for key, (_, blob) in list(memory.items())[:3]:
        memory[key] = (key, blob[:40] + bytes([blob[40] ^ 1]) + blob[41:])
    assert cut(teacher.score(batch), batch) == want
    metrics = teacher.metrics()
    assert metrics["teacher_cache/damaged"] == 3
    assert metrics["teacher_cache/hit_rate"] == (B - 3) / B


def test_k_temperature_and_vocabulary_do_not_mix(model, plain, tmp_path):
    batch = take(make(), [0, 1])
    cached(plain, rows=2, directory=str(tmp_path)).score(batch)
    others = {
        "the same": (plain, 1.0),
        "k": (scorer(model, k=K + 1), 0.0),
        "temperature": (scorer(model, temperature=1.0), 0.0),
        "vocab": (scorer(model, vocab=VOCAB - 1), 0.0),
    }
    for name, (other, rate) in others.items():
        teacher = cached(other, rows=2, directory=str(tmp_path))
        teacher.score(batch)
        assert teacher.metrics()["teacher_cache/hit_rate"] == rate, name


def test_k_beyond_the_vocabulary_is_refused(model):
    with pytest.raises(ConfigError):
        scorer(model, k=VOCAB + 1).score(make())
