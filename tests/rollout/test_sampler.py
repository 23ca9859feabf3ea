import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.models.response import response_scores
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from tests import tiny
from tests.tiny import EOS, PAD, VOCAB

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

PROMPTS = [[3, 9, 4, 11, 2], [7], [12, 3, 3, 8], [6, 14]]
IDS = [41, 7, 1000, 3]
SHORT = SamplingSettings(temperature=1.0, max_new_tokens=12, segment=4, prompt_multiple=8)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def built():
    model, params = tiny.build()
    return model, params, make(model)


def make(model, mesh=None, eos=EOS):
    return Sampler(model, mesh or tiny.mesh(), eos_id=eos, pad_id=PAD, vocab=VOCAB)


def generate(sampler, params, settings, prompts=PROMPTS, ids=IDS, samples=3, key=KEY, **how):
    how |= {"key": key, "prompt_ids": ids, "samples": samples}
    return sampler.generate(sampler.weights(params, settings), prompts, settings, **how)


def assert_same(got, want):
    for name in ("tokens_BR", "length_B", "ended_B"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    np.testing.assert_allclose(got.behaviour_logp_BR, want.behaviour_logp_BR, atol=1e-5)


# --- what is drawn --------------------------------------------------------------------------------


def greedy_without_cache(model, params, prompt, steps):
    tokens, out = list(prompt), []
    while len(out) < steps:
        out.append(int(np.argmax(tiny.naive_logits(model, params, tokens)[-1])))
        tokens.append(out[-1])
        if out[-1] == EOS:
            break
    return out


def test_greedy_equals_an_argmax_loop_without_cache():
    model, params = tiny.build(tiny.CONFIG)
    sampler = make(model)
    settings = dataclasses.replace(SHORT, temperature=0.0)
    prompts = [*PROMPTS, [2], [4, 4, 4]]
    got = generate(sampler, params, settings, prompts, list(range(6)), samples=1)
    for row, prompt in enumerate(prompts):
        want = greedy_without_cache(model, params, prompt, 12)
        n = got.length_B[row]
        assert got.tokens_BR[row, :n].tolist() == want
        assert got.ended_B[row] == (want[-1] == EOS)
        assert np.all(got.tokens_BR[row, n:] == PAD)


@pytest.mark.parametrize(
    "change",
    [{}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.7}],
    ids=["plain", "cold_top_k", "top_p"],
)
def test_samples_fit_the_model(built, change):
    model, params, sampler = built
    settings = dataclasses.replace(SHORT, max_new_tokens=2, segment=2, **change)
    N, prompt = 3000, [3, 9, 4]
    out = generate(sampler, params, settings, [prompt], [0], samples=N)
    firsts = out.tokens_BR[:, 0]
    check_fit(firsts, out.behaviour_logp_BR[:, 0], model, params, prompt, settings)
    # The second token, after the commonest first one that is not EOS.
    counts = np.bincount(firsts, minlength=VOCAB)
    counts[EOS] = 0
    chosen = firsts == counts.argmax()
    second, logp = out.tokens_BR[chosen, 1], out.behaviour_logp_BR[chosen, 1]
    check_fit(second, logp, model, params, [*prompt, counts.argmax()], settings)


def check_fit(tokens, logp, model, params, prefix, settings):
    policy = np.exp(
        tiny.log_softmax(tiny.naive_logits(model, params, prefix)[-1] / settings.temperature)
    )
    order = np.argsort(-policy)
    size = VOCAB
    if settings.top_k:
        size = settings.top_k
    if settings.top_p < 1:
        size = int(np.searchsorted(np.cumsum(policy[order]), settings.top_p)) + 1
    p = np.zeros(VOCAB)
    p[order[:size]] = policy[order[:size]] / policy[order[:size]].sum()
    counts = np.bincount(tokens, minlength=VOCAB)
    assert counts[p == 0].sum() == 0
    np.testing.assert_allclose(logp, np.log(p[tokens]), atol=2e-5)
    # Rare tokens share a bin: chi-square wants at least five expected in each.
    expected, seen = p * len(tokens), counts
    rare = expected < 5
    expected = np.r_[expected[~rare], expected[rare].sum()]
    seen = np.r_[seen[~rare], seen[rare].sum()]
    keep = expected > 1e-9
    assert stats.chisquare(seen[keep], expected[keep]).pvalue > 1e-3


def test_padding_rows_of_the_head_are_never_drawn(built):
    model, params, _ = built
    params = jax.tree.map(np.copy, params)
    params["base"]["embed_tokens"]["embedding"][VOCAB:] *= 100.0
    out = generate(make(model), params, SHORT)
    assert out.tokens_BR.max() < VOCAB


# --- what a sample does not depend on -------------------------------------------------------------


def test_samples_are_the_same_alone_and_in_any_batch(built):
    _, params, sampler = built
    whole = generate(sampler, params, SHORT)
    for i in (0, 1):
        # Fewer samples of a prompt are the first ones of more.
        alone = generate(sampler, params, SHORT, [PROMPTS[i]], [IDS[i]], samples=2)
        rows = slice(i * 3, i * 3 + 2)
        assert_same(alone, type(whole)(*(leaf[rows] for leaf in whole)))
    order = [2, 0, 3, 1]
    other = generate(sampler, params, SHORT, [PROMPTS[i] for i in order], [IDS[i] for i in order])
    rows = np.concatenate([np.arange(3) + 3 * i for i in order])
    assert_same(other, type(whole)(*(leaf[rows] for leaf in whole)))
    # The samples of a prompt differ from each other, and other keys and ids draw others.
    assert len({tuple(t) for t in whole.tokens_BR[:3]}) == 3
    assert not np.array_equal(
        generate(sampler, params, SHORT, key=jax.random.key(6)).tokens_BR, whole.tokens_BR
    )
    assert not np.array_equal(
        generate(sampler, params, SHORT, ids=[1, 2, 4, 5]).tokens_BR, whole.tokens_BR
    )


# The last segment of 12 steps has 2 where segments have 5.
@pytest.mark.parametrize("change", [{"segment": 1}, {"segment": 5, "prompt_multiple": 16}])
def test_samples_do_not_depend_on_segments_or_padding(built, change):
    _, params, sampler = built
    want = generate(sampler, params, SHORT)
    assert_same(generate(sampler, params, dataclasses.replace(SHORT, **change)), want)


def test_a_stop_and_rooms_end_a_completion_where_the_whole_one_has_that_place(built):
    _, params, sampler = built
    want = generate(sampler, params, SHORT)
    rooms = [12, 3, 7, 12]

    def nth_even(n, tokens):
        even = [place for place, token in enumerate(tokens) if token % 2 == 0]
        return even[n - 1] + 1 if len(even) >= n else None

    stops = [functools.partial(nth_even, n) for n in (2, 9, 1, 3)]
    weights = sampler.weights(params, SHORT)
    got = sampler.generate(
        weights, PROMPTS, SHORT, key=KEY, prompt_ids=IDS, samples=3,
        stops=stops, rooms=rooms,
    )  # fmt: skip
    lengths = []
    for row, room in enumerate(np.repeat(rooms, 3)):
        whole = want.tokens_BR[row, : want.length_B[row]].tolist()
        n = min(stops[row // 3](whole) or 12, room, len(whole))
        assert got.tokens_BR[row, : got.length_B[row]].tolist() == whole[:n]
        assert got.ended_B[row] == (EOS in whole[:n])
        assert np.all(got.tokens_BR[row, n:] == PAD) and np.all(got.behaviour_logp_BR[row, n:] == 0)
        lengths.append((n, n == room, n == len(whole)))
    assert len({n for n, _, _ in lengths}) > 3 and any(at_room for _, at_room, _ in lengths)


def test_rooms_are_checked_and_need_no_more_positions_than_they_say(built):
    _, params, sampler = built
    weights = sampler.weights(params, SHORT)
    limit = sampler.model.config.max_position_embeddings
    how = {"key": KEY, "prompt_ids": [0], "samples": 1}
    long = [[3] * (limit - 2)]
    out = sampler.generate(weights, long, SHORT, **how, rooms=[2])
    assert out.length_B[0] <= 2
    with pytest.raises(ConfigError, match="positions"):
        sampler.generate(weights, long, SHORT, **how, rooms=[3])
    for rooms in ([], [0], [13]):
        with pytest.raises(DataError, match="rooms"):
            sampler.generate(weights, [[3]], SHORT, **how, rooms=rooms)


def test_samples_do_not_depend_on_the_device_count(built):
    model, params, sampler = built
    mesh = tiny.mesh(4)
    got = generate(make(model, mesh), tiny.placed(params, mesh), SHORT)
    assert_same(got, generate(sampler, params, SHORT))


LONG = (dataclasses.replace(SHORT, max_new_tokens=24, segment=1), PROMPTS[:2], IDS[:2], 4)


@pytest.fixture(scope="module")
def thinned(built):
    """A token that ends rows one after another, the rows, and the sizes that were left."""
    model, params, sampler = built
    # The commonest token ends an answer here.
    eos = int(np.bincount(generate(sampler, params, SHORT).tokens_BR.ravel())[1:].argmax()) + 1
    sampler, sizes = make(model, eos=eos), []
    compact = sampler._compact
    sampler._compact = lambda c, k, *more: sizes.append(len(k)) or compact(c, k, *more)
    return eos, generate(sampler, params, *LONG), sizes


def test_rows_that_ended_leave_the_batch_and_change_nothing(built, thinned, monkeypatch):
    model, params, _ = built
    eos, got, sizes = thinned
    sampler = make(model, eos=eos)
    monkeypatch.setattr(sampler, "_batch_size", lambda live, current: current)
    monkeypatch.setattr(sampler, "_compact", None)
    assert_same(got, generate(sampler, params, *LONG))
    assert len(sizes) >= 3  # 4, 2, ...: each at most half of the one before
    assert all(b <= a / 2 for a, b in zip([8, *sizes], sizes, strict=False))
    assert got.ended_B.sum() >= 6 and len(set(got.length_B)) > 3


def test_few_numbers_of_rows_change_nothing(built, thinned):
    model, params, _ = built
    eos, want, _ = thinned
    settings, prompts, *rest = LONG
    sampler, sizes = make(model, eos=eos), []
    compact = sampler._compact
    sampler._compact = lambda c, k, *more: sizes.append(len(k)) or compact(c, k, *more)
    few = dataclasses.replace(settings, row_counts=2)
    assert_same(generate(sampler, params, few, prompts, *rest), want)
    assert sizes == [2]


def test_over_all_axes_samples_are_the_same_and_the_cache_is_split(built, thinned, monkeypatch):
    model, params, _ = built
    mesh, (eos, want, _) = tiny.mesh(2, 2, 2), thinned
    sampler = make(model.replace(fuse=False), mesh, eos)
    seen = []
    for name, pick in (
        ("_start", lambda out: out),
        ("_segment", lambda out: out[0]),
        ("_compact", lambda out: out),
    ):
        inner = getattr(sampler, name)

        def watched(*args, inner=inner, pick=pick, name=name):
            out = inner(*args)
            for leaf in jax.tree.leaves(pick(out).cache):
                seen.append((name, leaf.sharding, leaf.shape[0]))
            return out

        monkeypatch.setattr(sampler, name, watched)
    # 2 prompts are filled up to the mesh's 4 parts.
    assert_same(generate(sampler, tiny.placed(params, mesh), *LONG), want)
    assert {name for name, _, _ in seen} == {"_start", "_segment", "_compact"}
    for name, where, rows in seen:
        assert where.is_equivalent_to(sampler.cache_sharding, 4), (name, where)
        shard = where.shard_shape((rows, 2, 4, 28))
        assert shard == (rows // 4, 1, 4, 28)


def test_samplers_of_a_base_share_programs_whatever_the_adapter(built):
    model, params, sampler = built
    plain = make(model.replace(lora=None))
    generate(sampler, params, SHORT)
    compiled = type(sampler.programs).segment._cache_size()
    generate(plain, {**params, "lora": {}}, SHORT)
    assert type(plain.programs).segment._cache_size() == compiled
    assert make(model, eos=EOS + 1).programs != sampler.programs == plain.programs


def test_batch_sizes_halve_and_stay_divisible(built):
    model, _, sampler = built
    assert [sampler._batch_size(live, 16) for live in (16, 9, 8, 5, 4, 2, 1)] == [
        16, 16, 8, 8, 4, 2, 1,
    ]  # fmt: skip
    assert sampler._batch_size(3, 12) == 3 and sampler._batch_size(1, 12) == 3
    split = make(model, tiny.mesh(2, 2))
    assert [split._batch_size(live, 24) for live in (13, 12, 1)] == [24, 12, 12]


# --- log-probabilities ----------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 3))
def trainers(model, params, b, temperature):
    given = (params, b.tokens_BT, b.prompt_len_B, b.targets_BR)
    return response_scores(model, *given, temperature=temperature, vocab=VOCAB)


# Merged weights and an adapter beside them; what is drawn from is made alike of the states of both.
@pytest.mark.parametrize(
    "change, merge_lora", [({"temperature": 0.7}, False), ({"temperature": 1.3, "top_k": 6}, True)]
)
def test_log_probabilities_equal_the_trainers(built, change, merge_lora):
    model, params, sampler = built
    settings = dataclasses.replace(SHORT, merge_lora=merge_lora, **change)
    out = generate(sampler, params, settings)
    batch = training_batch(PROMPTS, out, 3, pad_id=PAD, multiple=8)
    trained = jax.tree.map(np.asarray, trainers(model, params, batch, settings.temperature))
    logp = np.asarray(trained.logp_BR)
    mask = batch.response_mask_BR > 0
    if settings.top_k:
        # Under top-k the sampler divides by the mass of the tokens kept.
        logits = trained.hidden_BRD @ model.head_VD(params)[:VOCAB].T
        every = tiny.log_softmax(logits / settings.temperature)
        kept = np.log(np.exp(np.sort(every)[..., -settings.top_k :]).sum(-1))
        assert np.all(kept[mask] < 0)
        logp = logp - kept
    assert out.behaviour_logp_BR.dtype == np.float32
    width = min(mask.shape[1], out.behaviour_logp_BR.shape[1])
    gap = logp[:, :width] - out.behaviour_logp_BR[:, :width]
    ratio = np.exp(gap)[mask[:, :width]]
    np.testing.assert_allclose(ratio, 1.0, atol=1e-5)


@pytest.mark.parametrize("merge_lora", [True, False])
def test_decode_weights_are_held_in_the_compute_dtype(merge_lora):
    model, params = tiny.build(compute_dtype=jnp.bfloat16)
    settings = dataclasses.replace(SHORT, merge_lora=merge_lora)
    weights = jax.eval_shape(lambda p: make(model).weights(p, settings), params)
    assert weights.pop("vocab").dtype == jnp.int32
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {jnp.dtype("bfloat16")}


def test_difference_of_merged_and_adapter_is_small_in_bfloat16():
    # Merged weights are rounded once, an adapter's sum in every product.
    model, params = tiny.build(noise=0.2, compute_dtype=jnp.bfloat16)
    first = dataclasses.replace(SHORT, max_new_tokens=1, segment=1)
    one, two = (
        generate(make(model), params, dataclasses.replace(first, merge_lora=m), samples=1)
        for m in (True, False)
    )
    same = one.tokens_BR[:, 0] == two.tokens_BR[:, 0]
    assert same.sum() >= 3
    gap = np.abs(one.behaviour_logp_BR - two.behaviour_logp_BR)[same, 0].max()
    assert 1e-4 <= gap < 0.2, gap


def test_the_prompts_cache_is_gone_when_decoding_begins(built, monkeypatch):
    _, params, sampler = built
    decode, sizes = Sampler._decode, set()

    def spied(self, *args):
        sizes.update(size for array in jax.live_arrays() for size in array.shape)
        return decode(self, *args)

    monkeypatch.setattr(Sampler, "_decode", spied)
    # Of one sample each; several would read it.
    generate(sampler, params, dataclasses.replace(SHORT, prompt_multiple=88), samples=1)
    assert 88 + SHORT.max_new_tokens in sizes and 88 not in sizes


def test_eos_counts_and_nothing_stands_after_it(built):
    _, params, sampler = built
    out = generate(sampler, params, SHORT)
    assert 0 < out.ended_B.sum() < 12
    for row in range(12):
        n, tokens = out.length_B[row], out.tokens_BR[row]
        assert out.mask_BR[row].sum() == n
        assert (tokens[n - 1] == EOS) == out.ended_B[row]
        assert EOS not in tokens[: n - 1]
        assert np.all(out.behaviour_logp_BR[row, :n] < 0)
        assert np.all(out.behaviour_logp_BR[row, n:] == 0) and np.all(tokens[n:] == PAD)
        assert out.ended_B[row] or n == 12


@pytest.mark.parametrize("segment", [1, 5, 24])
def test_who_asks_is_told_of_each_completion_once_when_it_ends(built, thinned, segment):
    model, params, _ = built
    eos, got, _ = thinned
    calls = []
    settings = dataclasses.replace(LONG[0], segment=segment)
    out = generate(make(model, eos=eos), params, settings, *LONG[1:], ended=calls.append)
    assert_same(out, got)
    rows = zip(got.tokens_BR, got.length_B, got.ended_B, strict=True)
    wanted = [tokens[:n].tolist() for tokens, n, ended in rows if ended]
    assert sorted(one for call in calls for one in call) == sorted(wanted)
    segments = {(len(one) - 1) // segment for one in wanted}
    found = [{(len(one) - 1) // segment for one in call} for call in calls if call]
    assert found == [{one} for one in sorted(segments)]


# --- what is refused ------------------------------------------------------------------------------


def test_bad_input_is_refused(built):
    _, params, sampler = built
    with pytest.raises(DataError, match="empty prompt"):
        generate(sampler, params, SHORT, [[1], []], [0, 1])
    with pytest.raises(DataError, match="no prompt"):
        generate(sampler, params, SHORT, [], [])
    with pytest.raises(DataError, match="1 ids of 2 prompts"):
        generate(sampler, params, SHORT, [[1], [2]], [0])
    with pytest.raises(ConfigError, match="72 positions, the model has 64"):
        generate(sampler, params, SHORT, [[1] * 60], [0])


def test_padding_slots_take_no_positions(built):
    # 52 tokens and 12 new ones are 64 positions, although 52 is padded to 60 slots.
    _, params, sampler = built
    settings = dataclasses.replace(SHORT, prompt_multiple=20, segment=50)
    prompt = [[1 + i % 17 for i in range(52)]]
    out = generate(sampler, params, settings, prompt, [0], samples=2)
    assert np.all(np.isfinite(out.behaviour_logp_BR))
