"""Rows that take waiting completions draw what batches draw one after another."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.rollout import refill
from distill_jax.rollout.sampler import Part, Rollout, SamplingSettings
from tests import tiny
from tests.rollout.test_sampler import assert_same, make

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

KEY = jax.random.key(3)
LIMITS = SamplingSettings(max_new_tokens=10, segment=4, prompt_multiple=8, row_counts=1)
RANDOM = np.random.default_rng(0)
# Of one to three multiples of 8 tokens.
PROMPTS = [RANDOM.integers(6, 20, n).tolist() for n in sorted(RANDOM.integers(1, 24, 14))]
IDS = RANDOM.permutation(100)[: len(PROMPTS)].tolist()


@pytest.fixture(scope="module")
def built():
    config = dataclasses.replace(
        tiny.CONFIG, sliding_window=6, layer_types=("full_attention", "sliding_attention")
    )
    model, params = tiny.build(config)
    sampler = make(model)
    return model, params, sampler, sampler.weights(params, LIMITS)


def parts_of(size, **ends):
    """Parts of `size` prompts, the last one smaller."""
    starts = range(0, len(PROMPTS), size)

    def cut(given, start):
        return None if given is None else given[start : start + size]

    return [
        Part(cut(PROMPTS, at), cut(IDS, at), cut(ends.get("stops"), at), cut(ends.get("rooms"), at))
        for at in starts
    ]


def batches(sampler, weights, parts, settings, samples) -> list[Rollout]:
    return [
        sampler.generate(
            weights, part.prompts, settings, key=KEY, prompt_ids=part.prompt_ids, samples=samples,
            stops=part.stops, rooms=part.rooms,
        )
        for part in parts
    ]  # fmt: skip


def streamed(sampler, weights, parts, settings, samples, rows) -> list[Rollout]:
    how = {"key": KEY, "samples": samples, "rows": rows}
    return list(sampler.stream(weights, parts, settings, **how))


def assert_all_same(got, want, exactly=False):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert_same(one, other)
        if exactly:
            np.testing.assert_array_equal(one.behaviour_logp_BR, other.behaviour_logp_BR)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_bits_as_batch_by_batch(temperature):
    """One layer, one width of prompts, no fewer than 4 rows: else XLA's fusions and CPU kernels
    round in other places."""
    model, params = tiny.build()
    sampler = make(model)
    weights = sampler.weights(params, LIMITS)
    settings = dataclasses.replace(LIMITS, temperature=temperature, prompt_multiple=24)
    parts = parts_of(7)
    want = batches(sampler, weights, parts, settings, 1)
    got = streamed(sampler, weights, parts, settings, 1, 7)
    assert_all_same(got, want, exactly=True)
    if temperature:
        assert len({n for one in want for n in one.length_B}) > 4
        assert 0 < np.mean([one.ended_B.mean() for one in want]) < 1


@pytest.mark.parametrize(
    ("draw", "prompts", "repeats"),
    [
        ((256, 4, 512, 1), 64, 4),  # a quarter of the rows, and each of these has its own prompt
        ((256, 1, 128, 1), 64, 4),  # a quarter
        ((32, 1, 64, 1), 16, 2),  # 16 prompts of 64 tokens are 1024, more than a quarter
        ((10, 3, 64, 4), 4, 3),  # 4 prompts have 12 samples
        ((5, 1, 16, 2), 6, 1),  # all at once, rounded up to what the mesh splits
        ((100, 1, 512, 8), 32, 4),  # 25 are 32 on the mesh: 4 times; 100 / 4 are 32 again
    ],
)
def test_sizes(draw, prompts, repeats):
    found = refill.sizes_of(*draw)
    assert found == (prompts, repeats) and found.rows == prompts * repeats


# One row; fewer than a prompt's samples; not a multiple of them; more than there are completions.
@pytest.mark.parametrize(("samples", "rows"), [(1, 1), (3, 2), (3, 7), (2, 64)])
def test_any_number_of_rows_draws_the_same(built, samples, rows):
    _, _, sampler, weights = built
    parts = parts_of(5)
    want = batches(sampler, weights, parts, LIMITS, samples)
    assert_all_same(streamed(sampler, weights, parts, LIMITS, samples, rows), want)


def test_stops_and_rooms_end_rows_and_free_them(built):
    _, _, sampler, weights = built

    def nth_even(n, tokens):
        even = [place for place, token in enumerate(tokens) if token % 2 == 0]
        return even[n - 1] + 1 if len(even) >= n else None

    stops = [functools.partial(nth_even, 1 + at % 3) for at in range(len(PROMPTS))]
    rooms = [1 + 3 * at % 10 for at in range(len(PROMPTS))]
    parts = parts_of(5, stops=stops, rooms=rooms)
    want = batches(sampler, weights, parts, LIMITS, 2)
    lengths = np.concatenate([one.length_B for one in want])
    assert len(set(lengths)) > 4 and np.any(lengths == np.repeat(rooms, 2))
    assert_all_same(streamed(sampler, weights, parts, LIMITS, 2, 6), want)


def test_a_part_has_the_same_bits_whatever_was_drawn_before_it(built):
    """What a resumed run draws: the last parts of a draw."""
    _, _, sampler, weights = built
    parts = parts_of(4)
    whole = streamed(sampler, weights, parts, LIMITS, 2, 8)
    for first in (1, len(parts) - 1):
        rest = streamed(sampler, weights, parts[first:], LIMITS, 2, 8)
        assert_all_same(rest, whole[first:], exactly=True)


def test_over_all_axes_samples_are_the_same_and_the_cache_is_split(built, monkeypatch):
    model, params, sampler, weights = built
    mesh, parts = tiny.mesh(2, 2, 2), parts_of(5)
    wide = make(model.replace(fuse=False), mesh)
    seen, segment = [], wide.programs.segment

    class Watched:
        def __getattr__(self, name):
            return getattr(wide_programs, name)

        def segment(self, *args):
            carry, out = segment(*args)
            seen.extend(jax.tree.leaves(carry.cache))
            return carry, out

    wide_programs = wide.programs
    wide.programs = Watched()
    got = streamed(wide, wide.weights(tiny.placed(params, mesh), LIMITS), parts, LIMITS, 2, 6)
    assert_all_same(got, batches(sampler, weights, parts, LIMITS, 2))
    for leaf in seen:  # 6 rows are rounded up to 8, of 4 parts
        assert leaf.sharding.is_equivalent_to(wide.cache_sharding, 4)
        assert leaf.shape[0] == 8 and leaf.sharding.shard_shape(leaf.shape)[:2] == (2, 1)


def test_few_programs_and_no_copy_of_the_cache_in_the_loop(built):
    model, params, _, _ = built
    # No other test uses these sizes, so nothing is compiled yet.
    settings = dataclasses.replace(LIMITS, max_new_tokens=11, segment=3)
    sampler = make(model)
    weights, kind = sampler.weights(params, settings), type(sampler.programs)
    names = ("prefill", "start", "insert", "segment")
    before = {name: getattr(kind, name)._cache_size() for name in names}
    seen, programs = [], sampler.programs

    class Lowered:
        def __getattr__(self, name):
            return getattr(programs, name)

        def segment(self, *args):
            if not seen:
                seen.append(kind.segment.lower(programs, *args).compile().as_text())
            return programs.segment(*args)

    sampler.programs = Lowered()
    streamed(sampler, weights, parts_of(5), settings, 1, 5)
    widths = {-(-len(p) // 8) for part in parts_of(5) for p in part.prompts[-1:]}
    after = {name: getattr(kind, name)._cache_size() - before[name] for name in names}
    assert after["segment"] == 1 and after["start"] == 1
    assert after["prefill"] <= len(widths) and after["insert"] <= len(widths)
    sampler.programs = programs
    streamed(sampler, weights, parts_of(5)[::-1], settings, 1, 5)
    assert kind.segment._cache_size() - before["segment"] == 1
    body = seen[0]
    assert "scatter" in body
    cache = f"f32[5,2,4,{24 + 11}]", f"f32[5,2,{24 + 11},4]"
    copies = [line for line in body.splitlines() if " copy(" in line and "while/body" in line]
    assert not [line for line in copies if any(shape in line for shape in cache)]


def test_what_is_wrong_is_said_before_anything_is_drawn(built):
    _, _, sampler, _ = built
    good = Part([[7]], [0])
    for bad, error in (
        (Part([[]], [0]), DataError),
        (Part([], []), DataError),
        (Part([[7]], [0, 1]), DataError),
        (Part([[7]], [0], None, [11]), DataError),
        (Part([[7] * 60], [0]), ConfigError),
    ):
        with pytest.raises(error):
            streamed(sampler, None, [good, bad], LIMITS, 1, 1)
    assert streamed(sampler, None, [], LIMITS, 1, 4) == []
