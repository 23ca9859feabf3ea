"""A teacher that scores packed rows: the scores of one that does not, in few compiled programs."""

import dataclasses
import types

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.models.splash import Splash
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
        # Each response has a place for its end; no token of these rows is 0.
        used = batch["at_BR"] <= batch["tokens_BT"].shape[1]
        self.rows += int(((batch["targets_BR"] == 0) & used).sum())
        return self.teacher.score_packed(batch)


def made(teacher, mesh=None, sizes=SIZES, shared=True):
    found = PackedTeacher(SpyOfRows(teacher), mesh or tiny.mesh(), sizes=sizes)
    assert found.shared
    found.shared = shared
    return found


def test_a_kernel_without_masks_shares_no_prompts():
    kernel = types.SimpleNamespace(attends=lambda *_, **__: Splash(tiny.mesh()))
    teacher = types.SimpleNamespace(model=kernel, vocab=1, kind="scores", alphas=(1.0,))
    assert not PackedTeacher(teacher, tiny.mesh(), sizes=SIZES).shared


def batch_of(rows=11, seed=0):
    """Among its rows one without a response, one that fills the greatest size, and some that share
    a prompt of one, two or three tokens."""
    batch = make(seed, rows)
    for p, some in enumerate(([3, 7], [4, 5, 9], [6, 8, 10]), 1):
        for row in some:
            n = int(batch["response_len_B"][row])
            answer = batch["targets_BR"][row, :n]
            batch["prompt_len_B"][row] = p
            batch["tokens_BT"][row, : p + n] = [*range(7, 7 + p), *answer]
            batch["tokens_BT"][row, p + n :] = 0
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
    out = packed(host, PackedCall(8, [[1, 0], [2]]), shared=False)
    # Row 1 lies at 0–2, row 0 at 3–6: responses at 1–2 and 5–6, ends at 3 and 7.
    assert out["tokens_BT"].tolist() == [[21, 22, 23, 11, 12, 13, 14, 0], [31, 32] + [0] * 6]
    assert out["segment_BT"].tolist() == [[1, 1, 1, 2, 2, 2, 2, 0], [1, 1] + [0] * 6]
    assert out["at_BR"].tolist() == [[1, 2, 3, 5, 6, 7, 9, 9], [2] + [9] * 7]
    assert out["targets_BR"].tolist() == [[22, 23, 0, 13, 14, 0, 0, 0], [0] * 8]
    assert {x.dtype for x in out.values()} == {np.dtype(np.int32)}


def test_the_arrays_of_a_shared_prompt_worked_by_hand():
    host = {
        "tokens_BT": np.array([[11, 12, 13, 14], [21, 22, 0, 0], [11, 12, 15, 0], [11, 12, 0, 0]]),
        "prompt_len_B": np.array([2, 1, 2, 2]),
        "response_len_B": np.array([2, 1, 1, 0]),
        "targets_BR": np.array([[13, 14], [22, 0], [15, 0], [0, 0]]),
    }
    out = packed(host, PackedCall(9, [[0, 2, 3, 1]]), shared=True)
    # The prompt 11 12, its responses 13 14, 15 and nothing; then 21 with 22.
    assert out["tokens_BT"].tolist() == [[11, 12, 13, 14, 15, 21, 22, 0, 0]]
    assert out["segment_BT"].tolist() == [[1, 1, 2, 2, 3, 5, 6, 0, 0]]
    assert out["prompt_segment_BT"].tolist() == [[1, 1, 1, 1, 1, 5, 5, 0, 0]]
    assert out["position_BT"].tolist() == [[0, 1, 2, 3, 2, 0, 1, 0, 0]]
    # 12, at place 1, draws 13, 15 and the end of the empty response.
    assert out["at_BR"].tolist() == [[2, 3, 4, 2, 5, 2, 6, 7, 10]]
    assert out["targets_BR"].tolist() == [[13, 14, 0, 15, 0, 0, 22, 0, 0]]
    assert {x.dtype for x in out.values()} == {np.dtype(np.int32)}


def of_one_prompt():
    """Eight of its rows have a prompt of six tokens, and few more: several go into a packed row."""
    batch = batch_of()
    for row in range(8):
        n = int(batch["response_len_B"][row] % 3)
        batch["prompt_len_B"][row], batch["response_len_B"][row] = 6, n
        batch["tokens_BT"][row] = [*range(7, 13), *batch["targets_BR"][row, :n], *[0] * (T - 6 - n)]
        batch["targets_BR"][row, n:] = 0
    return batch


@pytest.mark.parametrize("make_batch", [batch_of, of_one_prompt])
@pytest.mark.parametrize("shared", [True, False])
def test_windows_are_of_positions(shared, make_batch):
    # Behind another response a token still sees the window before it, of the prompt.
    config = dataclasses.replace(
        tiny.CONFIG, sliding_window=3, layer_types=("sliding_attention", "full_attention")
    )
    whole = scorer(tiny.build(config, lora=False, seed=3))
    batch = make_batch()
    close(made(whole, shared=shared).score_rows(batch), whole.score(batch), batch, 1e-5)


def test_a_shared_prompt_is_scored_once(plain):
    batch, tokens = of_one_prompt(), []
    for shared in (True, False):
        teacher = made(plain, shared=shared, sizes=(T,))
        close(teacher.score_rows(batch), plain.score(batch), batch, 1e-5)
        tokens.append(sum(rows * width for rows, width in teacher.teacher.shapes))
    assert tokens[0] < tokens[1]


@pytest.mark.parametrize("extents", [(1, 1, 1), (1, 8, 1), (1, 1, 2), (2, 2, 2)])
@pytest.mark.parametrize("shared", [True, False])
def test_scores_are_those_of_rows_apart(model, plain, extents, shared):
    batch, mesh = batch_of(16), tiny.mesh(*extents)
    teacher = made(scorer(model, mesh), mesh, shared=shared)
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
