"""Samples that share their prompt's keys, and caches that grow, draw what whole caches draw."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from distill_jax.forecast import hlo_text
from distill_jax.forecast.hlo_collectives import collectives
from distill_jax.models.cache import KVCache, SharedPrompts
from distill_jax.rollout.compiled import BUCKET, NO_GROWTH, bucket_of
from distill_jax.rollout.sampler import Carry, Sampler, SamplingSettings
from distill_jax.rollout.slots import Slots, grown, kept
from tests import tiny
from tests.rollout.test_sampler import assert_same
from tests.tiny import EOS, PAD, VOCAB

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

KEY = jax.random.key(8)
RANDOM = np.random.default_rng(1)
PROMPTS = [RANDOM.integers(6, 20, n).tolist() for n in (13, 1, 8, 9)]
DRAW = SamplingSettings(max_new_tokens=14, segment=2, prompt_multiple=8)


def stop(ids):
    """Ends rows one after another: at a fifth of the tokens, but for the first two."""
    return next((at + 1 for at, token in enumerate(ids) if at > 1 and token % 5 == 0), None)


GEOMETRIES = {
    "full": tiny.CONFIG,
    "one kv head": dataclasses.replace(tiny.CONFIG, num_kv_heads=1),
    "a kv head each": dataclasses.replace(tiny.CONFIG, num_kv_heads=4),
    # Short enough that rows leave their prompt behind.
    "windows": dataclasses.replace(
        tiny.CONFIG, sliding_window=6, layer_types=("full_attention", "sliding_attention")
    ),
}


class Watched:
    """A sampler, and what its programs were given.

    Attributes:
        segments: rows, slots and shared prompts' slots of each segment.
        calls: names and arguments of all.
        places: of the shared prompts in memory.
    """

    def __init__(self, model, mesh=None, *, bucket=None, eos=EOS):
        mesh, self.alone = mesh or tiny.mesh(), bucket is None
        bucket = NO_GROWTH if self.alone else bucket
        self.sampler = Sampler(model, mesh, eos_id=eos, pad_id=PAD, vocab=VOCAB, bucket=bucket)
        self.segments, self.calls, self.places = [], [], set()
        for name in ("segment", "grow", "compact"):
            setattr(self.sampler, f"_{name}", self.watch(name, getattr(self.sampler, f"_{name}")))

    def watch(self, name, inner):
        def watched(*args):
            self.calls.append((name, args))
            if name == "segment":
                shared = args[1].shared
                slots = None if shared is None else shared.cache.num_slots
                self.segments.append((len(args[1].done_B), args[1].cache.num_slots, slots))
                if shared is not None:
                    shard = shared.cache.k[0].addressable_shards[0].data
                    self.places.add(shard.unsafe_buffer_pointer())
            return inner(*args)

        return watched

    def generate(self, params, settings=DRAW, prompts=PROMPTS, samples=3, **how):
        weights = self.sampler.weights(params, settings)
        how = {"stops": [stop] * len(prompts), "prompt_ids": range(len(prompts))} | how
        if self.alone:  # the same draws, each with its own copy of the prompt
            given = {"prompts": prompts} | {k: x for k, x in how.items() if x is not None}
            given = {k: [one for one in x for _ in range(samples)] for k, x in given.items()}
            prompts, how = given.pop("prompts"), given | {"stops": given.get("stops")}
            how["firsts"], samples = list(range(samples)) * (len(prompts) // samples), 1
        return self.sampler.generate(weights, prompts, settings, key=KEY, samples=samples, **how)


@pytest.mark.parametrize("config", GEOMETRIES.values(), ids=GEOMETRIES)
def test_draws_equal_those_of_whole_caches(config):
    model, params = tiny.build(config)
    want = Watched(model).generate(params)
    watched = Watched(model, bucket=4)
    assert_same(watched.generate(params), want)
    # The prompt of 13 tokens takes 16 slots; tokens 4, 8, 14. Rows that stay hold both.
    assert watched.segments[:2] == [(12, 4, 16)] * 2
    alone = [one for one in watched.segments if one[2] is None]
    assert alone and all(n < 12 and total > 16 for n, total, _ in alone)
    assert len(set(want.length_B)) > 4


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_groups_of_other_sizes(samples):
    model, params = tiny.build(GEOMETRIES["windows"])
    want = Watched(model).generate(params, samples=samples)
    watched = Watched(model, bucket=4)
    assert_same(watched.generate(params, samples=samples), want)
    assert (watched.segments[0][2] is None) == (samples == 1)  # nothing to share


def test_greedy_draws_and_rooms():
    model, params = tiny.build()
    settings = dataclasses.replace(DRAW, temperature=0.0)
    how = {"settings": settings, "stops": None, "rooms": [5, 14, 3, 1]}
    want = Watched(model).generate(params, **how)
    assert_same(Watched(model, bucket=4).generate(params, **how), want)
    assert want.length_B.tolist()[:3] == [5] * 3 and set(want.length_B[6:]) == {3, 1}


def test_rows_that_all_go_on_share_the_same_arrays_to_the_end():
    model, params = tiny.build()
    how = {"stops": None}
    want = Watched(model, eos=VOCAB).generate(params, **how)  # which is never drawn
    watched = Watched(model, bucket=4, eos=VOCAB)
    assert_same(watched.generate(params, **how), want)
    assert [slots for _, slots, _ in watched.segments] == [4] * 2 + [8] * 2 + [14] * 3
    assert {shared for *_, shared in watched.segments} == {16}
    assert [name for name, _ in watched.calls if name != "segment"] == ["grow"] * 2
    assert len(watched.places) == 1


def test_few_programs_have_a_longer_first_bucket_and_rows_that_stay_all_slots():
    model, params = tiny.build()
    few = dataclasses.replace(DRAW, row_counts=2)
    want = Watched(model).generate(params, few)
    watched = Watched(model, bucket=4)
    assert_same(watched.generate(params, few), want)
    assert {one for one in watched.segments if one[0] == 12} <= {(12, 8, 16), (12, 14, 16)}
    assert {one for one in watched.segments if one[0] < 12} == {(3, 16 + 14, None)}


def test_a_mesh_of_eight_devices_equals_one():
    model, params = tiny.build()
    want = Watched(model).generate(params, samples=4)
    mesh = tiny.mesh(2, 2, 2)
    watched = Watched(model.replace(fuse=False), mesh, bucket=4)
    assert_same(watched.generate(tiny.placed(params, mesh), samples=4), want)
    where = watched.sampler.cache_sharding
    carries = [args[1] for name, args in watched.calls if name == "segment"]
    for carry in carries:
        held = [carry.cache] if carry.shared is None else [carry.cache, carry.shared.cache]
        for leaf in jax.tree.leaves(held):
            assert leaf.sharding.is_equivalent_to(where, 4)
    assert {carry.shared is None for carry in carries} == {True, False}
    assert len(watched.places) == 1


@pytest.mark.parametrize("shares", [True, False])
def test_rows_that_stay_on_their_device_are_those_that_were_asked_for(shares):
    model, _ = tiny.build()
    mesh = tiny.mesh(2, 2, 2)
    programs = Sampler(model, mesh, eos_id=EOS, pad_id=PAD, vocab=VOCAB, bucket=4).programs
    P, G, T, slots, K, h = 4, 4, 8, 6, 2, 4
    place = functools.partial(jax.device_put, device=programs.cache_sharding)

    def drawn(rows, slots):
        k, v = (place(RANDOM.random((rows, K, *s), np.float32)) for s in ((h, slots), (slots, h)))
        return KVCache((k,), (v,))

    length_B = np.arange(P * G, dtype=np.int32) % T + 1
    position_BS = RANDOM.integers(0, 9, (P * G, slots)).astype(np.int32)
    carry = Carry(
        RANDOM.random((P * G, 16), np.float32), drawn(P * G, slots), position_BS, length_B,
        np.zeros(P * G, bool), jax.random.split(jax.random.key(0), P * G),
        SharedPrompts(drawn(P, T), length_B[::G]) if shares else None,
    )  # fmt: skip
    # Two of each device's four rows.
    given = np.array([1, 2, 4, 4, 10, 9, 12, 15], np.int32), np.arange(8) == 3, T + 10
    apart = programs.compact.lower(programs, carry, *given, True).compile()
    there, here = (programs.compact(carry, *given, apart) for apart in (True, False))
    raw = [jax.tree.leaves(x._replace(key_B=jax.random.key_data(x.key_B))) for x in (there, here)]
    for one, two in zip(*raw, strict=True):
        np.testing.assert_array_equal(one, two)
    assert there.cache.k[0].shape == (8, K, h, T + 10)
    # Row 9 is the second sample of the third prompt.
    prompt, own = np.split(np.asarray(there.cache.v[0][5]), [T if shares else 0], axis=1)
    np.testing.assert_array_equal(own[:, :slots], carry.cache.v[0][9])
    if shares:
        np.testing.assert_array_equal(prompt, carry.shared.cache.v[0][2])
    moved = [x for x in collectives(hlo_text.parse(apart.as_text())) if h in x.largest.shape]
    assert moved == []


# --- bookkeeping ----------------------------------------------------------------------------------


def test_caches_grow_on_accelerators_which_is_said_once(caplog):
    model, _ = tiny.build()
    plain = Sampler(model, tiny.mesh(), eos_id=EOS, pad_id=PAD, vocab=VOCAB)
    bucket_of.cache_clear()
    with caplog.at_level("INFO"):
        found = [bucket_of(platform) for platform in ("cpu", None, "tpu", "gpu", "tpu")]
    assert (
        found == [NO_GROWTH, NO_GROWTH, BUCKET, BUCKET, BUCKET]
        and plain.programs.bucket == NO_GROWTH
    )
    assert [record.args for record in caplog.records] == [("tpu",), ("gpu",)]


def test_slots_double_and_leave_no_small_rest():
    # From 256: 512 would leave 8 of 520; 384 are three quarters of 512.
    table = [((128, 1, 480), 128), ((128, 129, 480), 256), ((256, 257, 480), 480),
             ((256, 300, 520), 520), ((128, 1, 12), 12), ((384, 1, 512), 384),
             ((128, 600, 2048), 1024)]  # fmt: skip
    for given, wanted in table:
        assert grown(*given) == wanted, given
    at_once = Slots(64, 480, bucket=NO_GROWTH, few=False, shared=True)
    assert (at_once.total, at_once.hold(480), at_once.apart(4)) == (480, False, 544)
    whole = Slots(64, 480, bucket=NO_GROWTH, few=True, shared=False)
    assert (whole.first, whole.total, whole.hold(480)) == (64, 544, False)
    some = Slots(64, 480, bucket=128, few=False, shared=True)
    assert (some.first, some.total, some.hold(128), some.hold(160)) == (0, 128, False, True)
    assert (some.total, some.apart(192), some.first) == (256, 320, 64)


def test_devices_keep_their_own_rows_where_these_fit():
    live = np.array([1, 6, 7])
    one = kept(live, 8, 4, parts=1)
    assert (one.row_N.tolist(), one.filler_N.tolist()) == ([1, 6, 7, 7], [0, 0, 0, 1])
    two = kept(live, 8, 4, parts=2)
    assert (two.row_N.tolist(), two.filler_N.tolist()) == ([1, 1, 6, 7], [0, 1, 0, 0])
    assert two.apart and not one.apart
    four = kept(live, 8, 4, parts=4)  # two of the last device's
    assert not four.apart and four.row_N.tolist() == one.row_N.tolist()
    none = kept(np.array([5]), 8, 4, parts=4)
    assert (none.row_N.tolist(), none.filler_N.tolist()) == ([0, 2, 5, 6], [1, 1, 0, 1])
