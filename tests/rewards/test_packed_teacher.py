"""A teacher that scores packed rows: the scores of one that does not, in few compiled programs."""

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.packed_calls import PackedCall
from distill_jax.rewards.packed_teacher import PackedTeacher, packed
from distill_jax.rewards.teacher_cache import CacheSettings
from tests import tiny
from tests.rewards.scorers import Spy, scorer
from tests.rewards.test_teacher_cache_scoring import R, T, close, make, take
from tests.tiny import VOCAB

pytestmark = pytest.mark.mesh

SIZES = (8, 12, T)


@pytest.fixture(scope="module")
def model():
    return tiny.build(tiny.CONFIG, lora=False, seed=3)


@pytest.fixture(scope="module")
def plain(model):
    return scorer(model)


class SpyOfRows(Spy):
    """Notes the shape of each call, and how many rows it holds."""

    rows = 0

    def score_packed(self, batch):
        self.shapes.append(batch["tokens_BT"].shape)
        self.rows += int(np.asarray(batch["segment_BT"]).max(axis=1).sum())
        return self.teacher.score_packed(batch)


def made(teacher, mesh=None, sizes=SIZES):
    return PackedTeacher(SpyOfRows(teacher), mesh or tiny.mesh(), sizes=sizes)


def batch_of(rows=11, seed=0):
    """Among its rows one without a response, and one that fills the greatest size."""
    batch = make(seed, rows)
    random, length = np.random.default_rng(seed), batch["response_len_B"]
    length[1], batch["targets_BR"][1] = 0, 0
    batch["prompt_len_B"][2], length[2] = T - R, R
    batch["tokens_BT"][2] = random.integers(6, VOCAB, T)
    batch["targets_BR"][2] = batch["tokens_BT"][2, T - R :]
    return batch


def test_the_arrays_worked_by_hand():
    host = {
        "tokens_BT": np.array([[11, 12, 13, 14, 0], [21, 22, 23, 0, 0], [31, 32, 0, 0, 0]]),
        "prompt_len_B": np.array([2, 1, 2]),
        "response_len_B": np.array([2, 2, 0]),
        "targets_BR": np.array([[13, 14], [22, 23], [0, 0]]),
    }
    out = packed(host, PackedCall(8, [[1, 0], [2]]))
    # Row 1 lies at 0–2, row 0 at 3–6: responses at 1–2 and 5–6, ends at 3 and 7.
    assert out["tokens_BT"].tolist() == [[21, 22, 23, 11, 12, 13, 14, 0], [31, 32] + [0] * 6]
    assert out["segment_BT"].tolist() == [[1, 1, 1, 2, 2, 2, 2, 0], [1, 1] + [0] * 6]
    assert out["at_BR"].tolist() == [[1, 2, 3, 5, 6, 7, 9, 9], [2] + [9] * 7]
    assert out["targets_BR"].tolist() == [[22, 23, 0, 13, 14, 0, 0, 0], [0] * 8]
    assert {x.dtype for x in out.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize("extents", [(1, 1, 1), (1, 8, 1), (1, 1, 2), (2, 2, 2)])
def test_scores_are_those_of_rows_apart(model, plain, extents):
    batch, mesh = batch_of(16), tiny.mesh(*extents)
    teacher = made(scorer(model, mesh), mesh)
    scores = teacher.score(batch)
    close(scores, plain.score(batch), batch, 1e-5)
    beyond = np.arange(R) >= batch["response_len_B"][:, None]
    for x in (scores.q_BR, scores.value_BR):
        assert x.dtype == np.float32 and not np.asarray(x)[beyond].any()
    assert scores.q_BR.sharding.is_equivalent_to(scorer(model, mesh).score(batch).q_BR.sharding, 2)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    assert set(teacher.teacher.shapes) <= {(shards, size) for size in SIZES}
    assert teacher.teacher.rows == 16


def test_no_programs_but_those_of_the_sizes(model):
    own = scorer(model)
    own._score_packed.clear_cache()  # equal teachers share it
    teacher = made(own)
    for seed, rows in enumerate((8, 5, 11, 3, 8, 1, 13)):
        batch = make(seed, rows)
        wider = {**batch, "tokens_BT": np.pad(batch["tokens_BT"], ((0, 0), (0, 4 * seed)))}
        teacher.score_rows(wider)
    shapes = set(teacher.teacher.shapes)
    assert shapes <= {(1, size) for size in SIZES} and len(shapes) > 1
    assert own._score_packed._cache_size() == len(shapes)


def test_other_rows_move_the_last_bits_alone(plain):
    batch, teacher = batch_of(), made(plain)
    whole = teacher.score_rows(batch)
    for some in ([4], [10, 2, 7], list(range(10, -1, -1))):
        part = type(whole)(*(x[some] for x in whole))
        close(teacher.score_rows(take(batch, some)), part, take(batch, some), 1e-5)


def test_with_a_cache_only_missing_rows_are_scored(plain, tmp_path):
    batch, settings = batch_of(), CacheSettings(megabytes=1.0, directory=str(tmp_path))

    def cached(sizes=SIZES):
        teacher = made(plain, sizes=sizes)
        return CachedTeacher(teacher, tiny.mesh(), settings, model="weights", tokenizer="tokens")

    one = cached()
    one.score(take(batch, [3, 5, 6]))
    close(one.score(batch), plain.score(batch), batch, 1e-5)
    assert one.teacher.teacher.rows == 11
    # Three of eleven were known.
    assert one.metrics()["teacher_cache/hit_rate"] == 3 / 11
    again = one.score(batch)
    close(again, plain.score(batch), batch, 1e-5)
    assert one.teacher.teacher.rows == 11
    one.close()
    for sizes, rate in ((SIZES, 1.0), ((T + 1,), 0.0)):
        other = cached(sizes)
        close(other.score(batch), plain.score(batch), batch, 1e-5)
        assert other.metrics()["teacher_cache/hit_rate"] == rate
        other.close()


def test_a_row_beyond_every_size_is_refused(plain):
    with pytest.raises(DataError):
        made(plain, sizes=(4,)).score(make())
