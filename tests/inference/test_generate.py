"""The one generator of answers: any batch size, going on from a store, further columns, a stop."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.inference import generate
from distill_jax.inference.generate import Answers
from distill_jax.inference.store import AnswerStore
from distill_jax.rollout.sampler import Rollout, Sampler, SamplingSettings
from distill_jax.run.stop import Interrupted
from tests import tiny

KEY = jax.random.key(0)
LIMITS = SamplingSettings(max_new_tokens=4, segment=4, prompt_multiple=4, top_k=3, top_p=0.5)
# Batches of two go by length: prompts 1 and 3, then 2 and 0, then 4.
PROMPTS = [[3, 4, 5], [6], [7, 8], [9], [2, 2, 2]]

Draw = Callable[..., Answers]


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    model, _ = tiny.build()
    return Sampler(model, tiny.mesh(), eos_id=tiny.EOS, pad_id=tiny.PAD, vocab=tiny.VOCAB)


@pytest.fixture(scope="module")
def weights(sampler: Sampler) -> Any:
    return sampler.weights(tiny.build()[1], LIMITS)


@pytest.fixture
def draw(sampler: Sampler, weights: Any) -> Draw:
    def drawn(prompts: list[list[int]] = PROMPTS, **how: Any) -> Answers:
        how = {"samples": 2, "batch": 4, **how}
        return generate.answers(sampler, lambda: weights, prompts, LIMITS, key=KEY, **how)

    return drawn


def same(one: Answers, other: Answers) -> bool:
    return (
        one.tokens == other.tokens
        and one.length_B.tolist() == other.length_B.tolist()
        and one.ended_B.tolist() == other.ended_B.tolist()
        and one.columns == other.columns
    )


def test_the_same_in_any_batch_and_ticks(draw: Draw, sampler: Sampler, weights: Any) -> None:
    ticks: list[int] = []
    four, ten, one = (draw(batch=size, tick=ticks.append) for size in (4, 10, 1))
    assert same(four, ten) and same(four, one) and ticks == [4, 4, 2, 10, 2, 2, 2, 2, 2]
    assert len(four.tokens) == 10 and four.length_B.tolist() == list(map(len, four.tokens))
    assert (four.length_B.dtype, four.ended_B.dtype) == (np.int32, bool)
    assert four.ended_B.tolist() == [row[-1] == tiny.EOS for row in four.tokens]
    # Row 2·i + g is sample g of prompt i.
    alone = sampler.generate(weights, [PROMPTS[3]], LIMITS, key=KEY, prompt_ids=[3], samples=2)
    assert [
        row[:n].tolist() for row, n in zip(alone.tokens_BR, alone.length_B, strict=True)
    ] == four.tokens[6:8]


def test_a_prompt_is_seeded_and_stored_by_its_number(draw: Draw, tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "x.jsonl", {})
    some = draw([PROMPTS[4], PROMPTS[1]], ids=[4, 1], store=store, decoding="s")
    whole = draw()
    assert some.tokens == whole.tokens[8:10] + whole.tokens[2:4]
    assert store.responses("s") == [whole.tokens[2:4], whole.tokens[8:10]]
    other = draw([PROMPTS[4], PROMPTS[1]], ids=[0, 1])
    assert other.tokens[:2] != some.tokens[:2] and other.tokens[2:] == some.tokens[2:]


@pytest.mark.parametrize("lines", [1, 2, 3, 4])
def test_batches_drawn_after_a_kill_equal_those_of_a_whole_run(
    draw: Draw, tmp_path: Path, lines: int
) -> None:
    whole = draw()
    path = tmp_path / "x.jsonl"
    assert same(draw(store=AnswerStore(path, {}), decoding="s"), whole)
    held = path.read_bytes().splitlines(keepends=True)
    assert len(held) == 4
    torn = held[lines][:9] if lines < 4 else b""
    path.write_bytes(b"".join(held[:lines]) + torn)  # killed in this batch
    ticks: list[int] = []
    again = draw(store=AnswerStore(path, {}), decoding="s", tick=ticks.append)
    assert same(again, whole) and ticks == [4, 4, 2][lines - 1 :]
    assert path.read_bytes() == b"".join(held)


def test_decodings_do_not_share_batches(draw: Draw, tmp_path: Path) -> None:
    store, ticks = AnswerStore(tmp_path / "x.jsonl", {}), []
    for decoding in ("a", "b", "a"):
        draw(store=store, decoding=decoding, tick=ticks.append)
    assert ticks == [4, 4, 2] * 2 and store.count() == 20


def test_weights_are_not_made_if_nothing_is_drawn(
    draw: Draw, sampler: Sampler, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl"
    whole = draw(store=AnswerStore(path, {}))

    def never() -> Any:
        raise AssertionError

    again = generate.answers(
        sampler, never, PROMPTS, LIMITS, key=KEY, samples=2, batch=4, store=AnswerStore(path, {})
    )
    assert same(again, whole)


def test_columns_are_of_their_completions_and_kept(draw: Draw, tmp_path: Path) -> None:
    calls = []

    def columns(rows: Any, out: Rollout) -> dict[str, list[Any]]:
        calls.append(list(rows))
        assert len(out.tokens_BR) == len(out.length_B) == 2 * len(rows)  # without repeats
        names = [f"{i}.{g}" for i in rows for g in range(2)]
        firsts = [row[:1].tolist() for row in out.tokens_BR]
        return {"name": names, "first": firsts}

    path = tmp_path / "x.jsonl"
    found = draw(store=AnswerStore(path, {}), columns=columns)
    assert calls == [[1, 3], [2, 0], [4]]
    assert found.columns["name"] == [f"{i}.{g}" for i in range(5) for g in range(2)]
    assert found.columns["first"] == [row[:1] for row in found.tokens]
    assert same(draw(store=AnswerStore(path, {}), columns=columns), found) and len(calls) == 3


def test_no_prompts(draw: Draw) -> None:
    assert draw([]).tokens == [] and draw([]).columns == {}


def test_a_stop_comes_after_the_batch_is_kept(draw: Draw, tmp_path: Path) -> None:
    shown: list[int] = []
    asked = [False, True]
    run: Any = SimpleNamespace(stop=SimpleNamespace(due=lambda done: asked.pop(0)))
    progress: Any = SimpleNamespace(update=shown.append)
    tick = generate.stopping(run, progress, 3, "toy was asked to stop;", "13 answers are done")
    store = AnswerStore(tmp_path / "x.jsonl", {})
    message = "toy was asked to stop; 11 of 13 answers are done; run the same command again"
    with pytest.raises(Interrupted, match=message):
        draw(store=store, tick=tick)
    assert shown == [7, 11] and AnswerStore(store.path, {}).count() == 8


@pytest.mark.parametrize("row_counts", [1, 3])
def test_many_batches_refill_rows_and_a_resumed_draw_goes_on(
    sampler: Sampler,
    weights: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row_counts: int,
) -> None:
    """5 batches: enough for a stream where batches hardly shrink, too few where they halve."""
    limits = dataclasses.replace(LIMITS, row_counts=row_counts, temperature=1.0, top_p=1.0)
    streams: list[int] = []
    real = Sampler.stream

    def counted(self: Sampler, weights: Any, parts: Any, *rest: Any, **how: Any) -> Any:
        streams.append(len(parts))
        return real(self, weights, parts, *rest, **how)

    def drawn(**how: Any) -> Answers:
        how = {"samples": 2, "batch": 2, **how}
        return generate.answers(sampler, lambda: weights, PROMPTS, limits, key=KEY, **how)

    def stop_at_third(count: int) -> None:
        ticks.append(count)
        if len(ticks) == 3:
            raise Interrupted("3")

    ticks: list[int] = []
    monkeypatch.setattr(Sampler, "stream", counted)
    whole, one_batch = AnswerStore(tmp_path / "whole.jsonl", {}), drawn(batch=10)
    assert same(drawn(store=whole), one_batch)
    cut = AnswerStore(tmp_path / "cut.jsonl", {})
    with pytest.raises(Interrupted):
        drawn(store=cut, tick=stop_at_third)
    assert cut.count() == 6
    assert same(drawn(store=AnswerStore(cut.path, {})), one_batch)
    assert cut.path.read_bytes() == whole.path.read_bytes()
    # Of the draw that was broken off 2 batches are left; the number of all decides.
    assert streams == ([5, 5, 2] if row_counts == 1 else [])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert not generate._refills(100, limits, None, alone=True)


@pytest.mark.parametrize(("samples", "row_counts"), [(1, 2), (2, 2), (1, 0)])
def test_a_batch_of_single_samples_shares_evaluations_programs_where_prompts_are_shared(
    weights: Any, sampler: Sampler, monkeypatch: pytest.MonkeyPatch, samples: int, row_counts: int
) -> None:
    limits = dataclasses.replace(LIMITS, row_counts=row_counts)
    how: dict[str, Any] = {"eos_id": tiny.EOS, "pad_id": tiny.PAD, "vocab": tiny.VOCAB}
    sharing = Sampler(sampler.model, sampler.mesh, **how, bucket=4)
    drawn = []
    for one in (sampler, sharing):
        given = (one, lambda: weights, PROMPTS, limits)
        drawn.append(generate.answers(*given, key=KEY, batch=20, samples=samples))
        name = "generate" if (samples, row_counts) == (1, 2) else "stream"
        monkeypatch.setattr(Sampler, name, None)  # which the other one does not call
    assert same(*drawn)


@pytest.mark.parametrize(("powers", "sizes"), [(False, [5]), (True, [8])])
def test_draws_of_other_numbers_of_prompts_can_share_programs(
    draw: Draw, sampler: Sampler, monkeypatch: pytest.MonkeyPatch, powers: bool, sizes: list[int]
) -> None:
    plain, asked = draw(batch=10), []
    real = Sampler.generate

    def counted(self: Sampler, weights: Any, prompts: Any, *rest: Any, **more: Any) -> Rollout:
        asked.append(len(prompts))
        return real(self, weights, prompts, *rest, **more)

    monkeypatch.setattr(Sampler, "generate", counted)
    assert same(draw(batch=100, powers=powers), plain) and asked == sizes
