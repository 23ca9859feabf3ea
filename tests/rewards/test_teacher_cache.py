import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import build
from distill_jax.models.head.listed import TopK
from distill_jax.rewards.score_bytes import (
    DamagedBytesError,
    Row,
    RowScores,
    ScoreSource,
    decode,
    encode,
)
from distill_jax.rewards.teacher_cache import CacheSettings, ScoreCache

SOURCE = ScoreSource("model", "tokenizer", (1.0,), 20)
# Key 32, header 16, checksum 16, and 4·(2·tokens + 1) of a row of three tokens.
ENTRY = 32 + 16 + 16 + 28


def row(*prompt, response=(7, 8, 9)):
    return Row(np.array(prompt, np.int32), np.array(response, np.int32))


def scores(start, tokens=3):
    x = np.arange(start, start + tokens, dtype=np.float32)
    return RowScores(x, x + 0.5, np.float32(-start))


def cache(entries, **how):
    return ScoreCache(CacheSettings(megabytes=entries * ENTRY / 1e6, **how), SOURCE)


def known(found):
    return [value is not None for value in found]


def bits(value):
    return [(np.asarray(x).dtype, np.asarray(x).shape, np.asarray(x).tobytes()) for x in value]


# --- bytes ----------------------------------------------------------------------------------------


def test_bytes_of_two_tokens_by_hand():
    value = RowScores(np.array([1, 2], "f4"), np.array([3, 4], "f4"), np.float32(-0.0))
    blob = encode(b"k" * 32, value)
    assert blob[:16] == b"DJTS\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00"
    floats = b"\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40\x00\x00\x80\x40"
    assert blob[16:-16] == floats + b"\x00\x00\x00\x80"


WORDS = st.lists(st.integers(0, 2**32 - 1), min_size=0, max_size=12)
# NaNs quiet and signalling with payloads, infinities, −0, the smallest denormal, the largest.
ODD = [0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x80000000, 1, 0x007FFFFF]


@given(WORDS, st.integers(0, 2**32 - 1))
def test_scores_come_back_to_the_bit(words, end):
    q = np.array(ODD + words, np.uint32).view(np.float32)
    value = RowScores(q, q[::-1].copy(), np.array(end, np.uint32).view(np.float32))
    assert bits(decode(b"k", encode(b"k", value), len(q), 0)) == bits(value)


@pytest.mark.parametrize("word", ODD)
def test_odd_ends_come_back_through_the_cache(word):
    end = np.array([word], np.uint32).view(np.float32)[0]
    value = RowScores(*(np.full(3, end),) * 2, end)
    kept = cache(2)
    kept.store([row(1)], [value])
    assert bits(kept.lookup([row(1)])[0]) == bits(value)


@given(st.integers(0, 5), st.integers(1, 4), st.randoms(use_true_random=False))
def test_top_k_comes_back_to_the_bit(tokens, k, random):
    def floats(*shape):
        words = [random.getrandbits(32) for _ in range(int(np.prod(shape)))]
        return np.array(words, np.uint32).view(np.float32).reshape(shape)

    ids = floats(tokens, k).view(np.int32)
    value = TopK(ids, floats(tokens, k), floats(tokens))
    assert bits(decode(b"k", encode(b"k", value), tokens, k)) == bits(value)


def test_any_changed_bit_is_noticed():
    blob = encode(b"key", scores(1))
    for at in range(len(blob) * 8):
        other = bytearray(blob)
        other[at // 8] ^= 1 << at % 8
        with pytest.raises(DamagedBytesError):
            decode(b"key", bytes(other), 3, 0)
    for wrong in (b"", blob[:-1], blob + b"\0", None, "text", 7, 0.5):
        with pytest.raises(DamagedBytesError):
            decode(b"key", wrong, 3, 0)


def test_bytes_of_another_row_or_kind_are_noticed():
    blob = encode(b"key", scores(1, 4))
    with pytest.raises(DamagedBytesError):
        decode(b"other", blob, 4, 0)
    # 4 tokens of scores are as long as 3 of top 1; the header tells them apart.
    assert len(blob) == len(encode(b"key", top_1(3)))
    for tokens, k in ((3, 1), (5, 0), (3, 0)):
        with pytest.raises(DamagedBytesError):
            decode(b"key", blob, tokens, k)


def top_1(tokens):
    x = np.zeros((tokens, 1), np.float32)
    return TopK(np.zeros((tokens, 1), np.int32), x, x[:, 0])


@pytest.mark.parametrize(
    "value",
    [
        RowScores(np.zeros(3), np.zeros(3, "f4"), np.float32(0)),
        RowScores(np.zeros(3, "f4"), np.zeros(2, "f4"), np.float32(0)),
        RowScores(np.zeros(3, "f4"), np.zeros(3, "f4"), np.float64(0)),
        scores(0, 2),
        top_1(3),
    ],
)
def test_wrong_values_are_refused(value):
    with pytest.raises(ValueError):
        cache(2).store([row(1)], [value])


# --- keys -----------------------------------------------------------------------------------------

TOKENS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(tuple)
ALPHA = st.floats(0.01, 100, allow_nan=False)
PARTS = st.tuples(
    st.text(min_size=1, max_size=3),
    st.text(min_size=1, max_size=3),
    st.lists(ALPHA, min_size=1, max_size=2).map(tuple),
    st.integers(1, 2**40),
    st.integers(1, 60).map(lambda k: f"top_k:{k}"),
    st.text(max_size=3),
    TOKENS,
    TOKENS,
)


def key_of(parts):
    *source, program, prompt, response = parts
    return ScoreSource(*source).key(row(*prompt, response=response), program)


@settings(max_examples=300, deadline=None)
@given(PARTS, PARTS, st.integers(0, 7))
def test_a_key_differs_where_any_part_differs(one, other, place):
    other = (*one[:place], other[place], *one[place + 1 :])
    assert (key_of(one) == key_of(other)) == (one == other)


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_the_end_of_the_prompt_matters(tokens, one, other):
    one, other = min(one, len(tokens)), min(other, len(tokens))
    keys = [SOURCE.key(row(*tokens[:n], response=tokens[n:])) for n in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_texts_do_not_run_together():
    one = dataclasses.replace(SOURCE, model="ab", tokenizer="c")
    other = dataclasses.replace(SOURCE, model="a", tokenizer="bc")
    assert one.key(row(1)) != other.key(row(1))
    assert SOURCE.key(row(1)) != dataclasses.replace(SOURCE, kind="top_k:1").key(row(1))


def test_a_key_is_the_same_tomorrow():
    # Of this very row, so that directories of an earlier version stay readable or are left alone.
    assert SOURCE.key(row(1, 2), "p").hex()[:16] == "063e2d7c515ccc2a"


# --- memory ---------------------------------------------------------------------------------------

A, B, C, D = (row(n) for n in range(4))


def test_what_was_stored_is_found_and_counted():
    kept = cache(4)
    assert kept.lookup([A, B]) == [None, None]
    kept.store([A, B], [scores(1), scores(2)])
    found = kept.lookup([B, C, A, B])
    assert known(found) == [True, False, True, True]
    assert bits(found[0]) == bits(found[3]) == bits(scores(2))
    assert kept.metrics() == {
        "teacher_cache/hit_rate": 0.75,
        "teacher_cache/hits": 3,
        "teacher_cache/misses": 3,
        "teacher_cache/evictions": 0,
        "teacher_cache/bytes": 2 * ENTRY,
        "teacher_cache/disk_bytes": 0,
        "teacher_cache/rejected": 0,
        "teacher_cache/damaged": 0,
    }
    assert kept.lookup([]) == [] and kept.metrics()["teacher_cache/hit_rate"] == 0


def test_programs_are_kept_apart():
    kept = cache(4)
    kept.store([A], [scores(1)], "one")
    assert known(kept.lookup([A], "one") + kept.lookup([A], "two") + kept.lookup([A])) == [1, 0, 0]


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("lru", "ABD"),  # C was used longest ago
        ("lfu", "ACD"),  # A and C twice, B once after it was stored
        ("fifo", "BCD"),  # A came first
    ],
)
def test_each_policy_evicts_what_it_should(policy, left, tmp_path):
    for directory in ("", str(tmp_path)):
        kept = cache(3, policy=policy, directory=directory, disk_megabytes=3 * ENTRY / 1e6)
        kept.store([A, B, C], [scores(n) for n in range(3)])
        for used in (C, C, A, A, B):
            kept.lookup([used])
        kept.store([D], [scores(3)])
        if directory:  # another process, with nothing in memory
            assert kept.metrics()["teacher_cache/evictions"] == 2
            kept.close()
            kept = cache(4, policy=policy, directory=directory, disk_megabytes=1)
        else:
            assert kept.metrics()["teacher_cache/evictions"] == 1
        found = known(kept.lookup([A, B, C, D]))
        assert "".join(n for n, there in zip("ABCD", found, strict=True) if there) == left


@pytest.mark.parametrize("policy", ["lru", "lfu", "fifo"])
@pytest.mark.parametrize(("short", "fit"), [(0, 3), (1, 2)])
def test_the_limit_holds_to_the_byte(policy, short, fit):
    limit = (3 * ENTRY - short) / 1e6
    kept = ScoreCache(CacheSettings(megabytes=limit, policy=policy), SOURCE)
    kept.store([A, B, C], [scores(n) for n in range(3)])
    assert sum(known(kept.lookup([A, B, C]))) == fit
    metrics = kept.metrics()
    assert metrics["teacher_cache/bytes"] == fit * ENTRY
    assert metrics["teacher_cache/evictions"] == 3 - fit


def test_an_entry_larger_than_the_cache_is_counted_and_harms_nothing():
    kept = cache(1)
    long = row(1, response=range(4))
    kept.store([A, long], [scores(0), scores(1, 4)])
    assert known(kept.lookup([A, long])) == [True, False]
    assert kept.metrics()["teacher_cache/rejected"] == 1
    assert kept.metrics()["teacher_cache/evictions"] == 0


def test_a_row_stored_again_takes_no_more_room():
    kept = cache(1)
    for n in range(3):
        kept.store([A, A], [scores(n), scores(n)])
    assert kept.metrics()["teacher_cache/bytes"] == ENTRY
    assert kept.metrics()["teacher_cache/evictions"] == 0


def test_top_k_in_the_cache():
    source = dataclasses.replace(SOURCE, kind="top_k:1", alphas=(1.0, 2.0))
    kept = ScoreCache(CacheSettings(megabytes=1.0), source)
    kept.store([A], [top_1(3)])
    assert bits(kept.lookup([A])[0]) == bits(top_1(3))
    with pytest.raises(ValueError):
        kept.store([A], [scores(1)])


def test_a_response_without_tokens():
    empty = row(1, response=())
    kept = cache(2)
    kept.store([empty], [scores(5, 0)])
    assert bits(kept.lookup([empty])[0]) == bits(scores(5, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "random"},
        {"megabytes": -1.0},
        {"megabytes": float("inf")},
        {"disk_megabytes": 0.0},
        {"rows": -1},
        {"directory": "somewhere"},  # with megabytes=0
        {"directory": 3},
        {"size": 1},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        build(CacheSettings, wrong)
