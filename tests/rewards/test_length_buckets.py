"""A teacher in length buckets: the scores of one without, in few compiled programs."""

import numpy as np
import pytest

from distill_jax.core import sharding
from distill_jax.core.errors import DataError
from distill_jax.data.batching import bucket_sizes, growing_sizes
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.length_buckets import BucketedTeacher
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.rewards.top_k import TopKScorer
from tests import tiny
from tests.rewards.scorers import Spy, scorer
from tests.rewards.test_teacher_cache_scoring import R, T, close, cut, make, take
from tests.tiny import VOCAB

pytestmark = pytest.mark.mesh

SIZES = (4, 8, T)


@pytest.fixture(scope="module")
def model():
    return tiny.build(lora=False, seed=3)


@pytest.fixture(scope="module")
def plain(model):
    return scorer(model)


class SpyOfShapes(Spy):
    """Notes the shape of each call."""

    def score(self, batch):
        self.shapes.append((*batch["tokens_BT"].shape, batch["targets_BR"].shape[1]))
        return self.teacher.score(batch)


def bucketed(teacher, mesh=None, rows=3, sizes=SIZES):
    mesh = mesh or tiny.mesh()
    how = {"sizes": sizes, "rows": rows, "response": R}
    return BucketedTeacher(SpyOfShapes(teacher), mesh, **how)


def totals(batch):
    return batch["prompt_len_B"] + batch["response_len_B"]


@pytest.mark.parametrize("rows", [3, 50])
def test_scores_are_those_without_buckets(plain, rows):
    batch, teacher = make(rows=11), bucketed(plain, rows=rows)
    scores = teacher.score(batch)
    close(scores, plain.score(batch), batch)
    beyond = np.arange(R) >= batch["response_len_B"][:, None]
    assert not np.asarray(scores.q_BR)[beyond].any()
    assert scores.q_BR.sharding.is_equivalent_to(plain.score(batch).q_BR.sharding, 2)
    # As many calls as the rows of each length ask for, each in its own length.
    own = np.array([min(s for s in SIZES if s >= n) for n in totals(batch)])
    want = [(rows, s, min(R, s)) for s in SIZES for _ in range(-(-np.sum(own == s) // rows))]
    assert teacher.teacher.shapes == want and len(set(want)) > 1


def test_few_programs_whatever_the_batches(model):
    own = scorer(model)
    own._score.clear_cache()  # equal teachers share it
    teacher = bucketed(own)
    for seed, rows in enumerate((8, 5, 11, 2, 8)):
        batch = make(seed, rows)
        wider = {**batch, "tokens_BT": np.pad(batch["tokens_BT"], ((0, 0), (0, 4 * seed)))}
        teacher.score(wider)
    assert own._score._cache_size() == len(set(teacher.teacher.shapes)) == len(SIZES)


def test_a_rows_bits_do_not_depend_on_the_others(plain):
    batch, teacher = make(rows=11), bucketed(plain)
    whole = cut(teacher.score(batch), batch)
    for some in ([4], [10, 2, 7], list(range(10, -1, -1))):
        assert cut(teacher.score(take(batch, some)), take(batch, some)) == [whole[i] for i in some]


@pytest.mark.parametrize("directory", [False, True])
def test_with_the_cache_it_gives_the_bits_without(plain, directory, tmp_path):
    batch, teacher = make(rows=11), bucketed(plain)
    want = cut(teacher.score(batch), batch)
    settings = CacheSettings(megabytes=1.0, directory=str(tmp_path) if directory else "")

    def cached():
        return CachedTeacher(teacher, tiny.mesh(), settings, model="weights", tokenizer="tokens")

    one = cached()
    one.score(take(batch, [3, 5, 6]))
    teacher.teacher.shapes.clear()
    assert cut(one.score(batch), batch) == want
    assert sum(shape[0] for shape in teacher.teacher.shapes) <= 4 * 3  # eight rows were missing
    assert one.metrics()["teacher_cache/hit_rate"] == 3 / 11
    # A shorter batch pads less: with buckets that is no other program.
    shorter = {**batch, "tokens_BT": np.pad(batch["tokens_BT"], ((0, 0), (0, 8)))}
    assert cut(one.score(shorter), batch) == want
    assert one.metrics()["teacher_cache/hit_rate"] == 1.0
    one.close()
    if directory:
        again = cached()
        assert cut(again.score(batch), batch) == want
        assert again.metrics()["teacher_cache/hit_rate"] == 1.0


def test_other_sizes_are_another_key(plain, tmp_path):
    batch = make()
    settings = CacheSettings(megabytes=1.0, directory=str(tmp_path))
    for sizes, rate in ((SIZES, 0.0), (SIZES, 1.0), ((T + 1,), 0.0)):
        teacher = bucketed(plain, sizes=sizes)
        made = CachedTeacher(teacher, tiny.mesh(), settings, model="weights", tokenizer="tokens")
        made.score(batch)
        assert made.metrics()["teacher_cache/hit_rate"] == rate
        made.close()


def test_top_k_goes_through_buckets_too(model):
    mesh = tiny.mesh()
    own = TopKScorer(model[0], tiny.placed(model[1], mesh), mesh, k=3, vocab=VOCAB)
    batch, teacher = make(), bucketed(own)
    inside = np.arange(R) < batch["response_len_B"][:, None]
    got, want = teacher.score(batch), own.score(batch)
    np.testing.assert_array_equal(np.asarray(got.ids_XK)[inside], np.asarray(want.ids_XK)[inside])
    np.testing.assert_allclose(
        np.asarray(got.logp_XK)[inside], np.asarray(want.logp_XK)[inside], atol=1e-6
    )


@pytest.mark.parametrize("extents", [(1, 8, 1), (1, 1, 2), (2, 2, 2)])
def test_over_a_mesh(model, plain, extents):
    """Sharded as at scale: fsdp, tensor and all three; calls are a multiple of data×fsdp."""
    batch, mesh = make(rows=16), tiny.mesh(*extents)
    teacher = bucketed(scorer(model, mesh), mesh, sizes=(8, T))
    close(teacher.score(batch), plain.score(batch), batch, 2e-6)
    assert {shape[0] % sharding.batch_shards(mesh) for shape in teacher.teacher.shapes} == {0}
    assert {shape[1] for shape in teacher.teacher.shapes} == {8, T}
    # Missing rows of a cache need not be a multiple of anything.
    settings = CacheSettings(megabytes=1.0)
    cached = CachedTeacher(teacher, mesh, settings, model="weights", tokenizer="tokens")
    cached.score(take(batch, range(8)))
    odd = make(5, 16)
    mixed = {n: np.concatenate([x[:5], odd[n][5:]]) for n, x in batch.items()}
    assert cut(cached.score(mixed), mixed) == cut(teacher.score(mixed), mixed)
    assert cached.metrics()["teacher_cache/hits"] == 5


def test_sizes_are_even_steps_up_to_the_longest():
    assert bucket_sizes(992, count=4, multiple=64) == (256, 512, 768, 1024)
    assert bucket_sizes(992, count=1, multiple=64) == (1024,)


def test_growing_sizes_are_each_longer_by_one_factor():
    # 992 · (2/5)^(1, 4/5, …, 0) = 396.8, 476.6, 572.4, 687.6, 825.9, 992, to multiples of 16.
    assert growing_sizes(992, count=6) == (400, 480, 576, 688, 832, 992)
    assert growing_sizes(992, count=1) == (992,)
    assert growing_sizes(10, count=3) == (16,)


def test_a_row_beyond_every_size_is_refused(plain):
    with pytest.raises(DataError):
        bucketed(plain, sizes=(4,)).score(make())
