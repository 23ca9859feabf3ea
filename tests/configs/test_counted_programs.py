"""Programs that a whole run of qwen_1_5b compiles on rows as long as GSM8K's, counted by shapes.

Nothing is compiled: the sampler's programs are replaced by their bookkeeping on the host, and the
others are counted by the shapes of the arrays that they are given.
"""

import dataclasses
import types
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from configs import presets
from distill_jax.data import batching
from distill_jax.data.chat import Example
from distill_jax.inference import generate
from distill_jax.rollout.batch import training_batch
from distill_jax.rollout.compiled import BUCKET, NO_GROWTH
from distill_jax.rollout.completions import Rollout
from distill_jax.rollout.sampler import Carry, Sampler, SamplingSettings
from distill_jax.stages import batch_shapes
from distill_jax.stages.supervised import MULTIPLE
from tests import tiny
from tests.data.gsm8k_like import lengths
from tests.tiny import EOS, PAD, VOCAB

CONFIG = presets.qwen_1_5b()
TRAIN, VALIDATION, TEST = 7099, 374, 1319  # GSM8K's, 5% of its training rows held out
ROWS = lengths(TRAIN + VALIDATION + TEST)
# Rollouts whose shapes are counted, of the 1,000 of the preset; they meet all shapes early.
ROLLOUTS = 150


def prompts(start: int, count: int) -> list[list[int]]:
    return [[1] * int(total - response) for total, response in ROWS[start : start + count]]


class Prompts(NamedTuple):
    """Stands for a cache of prompts."""

    rows: int
    num_slots: int


def shape_of(carry: Carry) -> tuple[Any, ...]:
    return len(carry.done_B), carry.cache, None if carry.shared is None else carry.shared.cache


class Watched:
    """A sampler of the preset whose completions have lengths as of GSM8K; some are cut off.

    Args:
        bucket: of the sampler's programs: `BUCKET` on accelerators, NO_GROWTH on CPU.
        cut_off: shares of a batch's rows that never end, one drawn for each batch.

    Attributes:
        programs: (name, shapes and static arguments) of all that XLA would compile. In place of a
            cache stand its slots, in place of shared prompts their number and slots.
    """

    def __init__(self, bucket: int, cut_off: tuple[float, ...] = (0.0, 0.03)) -> None:
        shape = dataclasses.replace(tiny.ONE_LAYER, max_position_embeddings=4096)
        model, _ = tiny.build(shape, lora=False)
        how: dict[str, Any] = {"eos_id": EOS, "pad_id": PAD, "vocab": VOCAB}
        self.sampler = Sampler(model, tiny.mesh(), **how, bucket=bucket)
        self.programs: set[tuple[Any, ...]] = set()
        self.random, self.cut_off = np.random.default_rng(0), cut_off
        for name in ("prefill", "start", "segment", "compact", "grow"):
            setattr(self.sampler, f"_{name}", getattr(self, name))
        real = self.sampler.programs
        self.sampler.programs = types.SimpleNamespace(  # type: ignore[assignment]
            model=real.model, mesh=real.mesh, rows=real.rows, eos_id=EOS, pad_id=PAD,
            bucket=bucket, prefill=self.prefill, start=self.start, insert=self.insert,
            segment=self.segment,
        )  # fmt: skip

    def prefill(self, weights: Any, tokens_PT: Any, lengths_P: Any) -> tuple[None, Any]:
        self.programs.add(("prefill", tokens_PT.shape))
        return None, Prompts(*tokens_PT.shape)

    def insert(
        self, carry: Carry, hidden: Any, cache: Any, length_P: Any, key_data: Any, *rows_B: Any
    ) -> Carry:
        self.programs.add(
            ("insert", len(carry.done_B), len(length_P), cache.num_slots, carry.cache)
        )
        new_B = rows_B[0] >= 0
        ends_B = np.where(new_B, self.random.choice(ROWS[:, 1], len(new_B)), carry.length_B)
        return carry._replace(length_B=ends_B, done_B=carry.done_B & ~new_B)

    def start(self, hidden: Any, cache: Any, length_P: Any, *rest: Any) -> Carry:
        *_, count, samples, slots = rest
        rows = len(length_P) * samples
        self.programs.add(("start", len(length_P), cache, samples, slots))
        ends_B = self.random.choice(ROWS[:, 1], rows)
        ends_B[self.random.random(rows) < self.random.choice(self.cut_off)] = 10**6
        done_B = np.arange(rows) >= count * samples
        return Carry(None, slots, None, ends_B, done_B, None)  # type: ignore[arg-type]

    def segment(
        self, weights: Any, carry: Carry, offsets: Any, steps: int, settings: SamplingSettings
    ) -> Any:
        kind = "segment" if offsets.ndim == 1 else "refilled"
        self.programs.add((kind, *shape_of(carry), steps, settings))
        step_NX = np.add.outer(np.arange(steps), offsets[0]).reshape(steps, -1)
        drawn = step_NX + 1 == carry.length_B
        done_B = carry.done_B | drawn.any(axis=0)
        tokens_NB = np.where(drawn & ~carry.done_B, EOS, EOS + 1)
        return carry._replace(done_B=done_B), (tokens_NB, np.zeros(drawn.shape, np.float32))

    def grow(self, carry: Carry, slots: int) -> Carry:
        self.programs.add(("grow", len(carry.done_B), carry.cache, slots))
        return carry._replace(cache=slots)  # type: ignore[arg-type]

    def compact(self, carry: Carry, keep_N: Any, filler_N: Any, *how: Any) -> Carry:
        self.programs.add(("compact", *shape_of(carry), len(keep_N), *how))
        kept = carry._replace(length_B=carry.length_B[keep_N], done_B=carry.done_B[keep_N])
        if how:
            kept = kept._replace(cache=how[0], shared=None)
        return kept._replace(done_B=kept.done_B | filler_N)

    def rollout(self, step: int, sampling: SamplingSettings, count: int, samples: int) -> Any:
        index = batching.batch_indices(0, step, count, TRAIN)
        given = [prompts(int(i), 1)[0] for i in index]
        how: dict[str, Any] = {"prompt_ids": range(count), "samples": samples}
        return given, self.sampler.generate(None, given, sampling, key=jax.random.key(0), **how)

    def answers(self, given: list[list[int]], sampling: Any, batch: int, samples: int = 1) -> None:
        how: dict[str, Any] = {"batch": batch, "samples": samples}
        generate.answers(self.sampler, lambda: None, given, sampling, key=jax.random.key(0), **how)


@pytest.fixture(scope="module", params=[NO_GROWTH, BUCKET], ids=["cpu", "accelerator"])
def run(request: pytest.FixtureRequest) -> tuple[Watched, list[tuple[Any, Rollout]]]:
    """All that a whole run draws, by stage; the rollouts of stage rl."""
    return whole_run(CONFIG, Watched(request.param))


def whole_run(config: Any, watched: Watched) -> tuple[Watched, list[tuple[Any, Rollout]]]:
    sampling = config.sampling
    rl, evaluate = config.plan["rl"], config.plan["evaluate"]
    drawn = [
        watched.rollout(step, sampling, rl.prompts_per_step, rl.samples_per_prompt)
        for step in range(ROLLOUTS)
    ]
    held_out = prompts(TRAIN, VALIDATION)
    for stage in ("sft", "distill", "rl"):
        s = config.plan[stage]
        watched.answers(held_out[: s.eval_problems], sampling.whole(0.0), s.eval_batch)
    test = prompts(TRAIN + VALIDATION, evaluate.problems)
    watched.answers(test, sampling.whole(0.0), evaluate.batch)
    drawing = sampling.whole(evaluate.temperature)
    watched.answers(test, drawing, evaluate.batch, evaluate.samples)
    return watched, drawn


def counts(watched: Watched) -> dict[str, int]:
    kinds = [name for name, *_ in watched.programs]
    return {name: kinds.count(name) for name in kinds}


def test_the_sampler(run: Any) -> None:
    watched, _ = run
    # Of rl, whose samples share prompts: rows at first, and those that stay.
    wanted = {"prefill": 1, "start": 2, "segment": 2, "compact": 1}
    # Of evaluation, whose rows are refilled, and of validation: drawn and greedy. Its prefill is
    # that of rl.
    wanted |= {"insert": 1, "refilled": 2}
    assert counts(watched) == wanted
    assert len(watched.programs) <= 12


def test_the_sampler_on_accelerators_whatever_the_lengths() -> None:
    # None to all of the rows are cut off: a quarter is left in time for some, never for others.
    cut_off = tuple(np.linspace(0, 1, 9))
    watched, _ = whole_run(CONFIG, Watched(BUCKET, cut_off))
    more = {"segment": 3, "compact": 2, "grow": 1}
    assert counts(watched) == {"prefill": 1, "start": 2, "insert": 1, "refilled": 2} | more
    assert len(watched.programs) == 12


@pytest.mark.parametrize("bucket", [NO_GROWTH, BUCKET])
def test_without_the_presets_settings_there_are_many_more(bucket: int) -> None:
    sampling = dataclasses.replace(CONFIG.sampling, row_counts=0, prompt_multiple=64)
    watched, _ = whole_run(dataclasses.replace(CONFIG, sampling=sampling), Watched(bucket))
    assert len(watched.programs) > 40


@pytest.mark.parametrize("shared", [True, False], ids=["groups", "rows"])
def test_an_update_of_rl(run: Any, shared: bool) -> None:
    said: list[str] = []
    stub: Any = types.SimpleNamespace(config=CONFIG, say=said.append)
    multiple, limit = CONFIG.plan["rl"].batch_multiple, CONFIG.plan["rl"].drawn_lengths
    chosen = batch_shapes.of_drawn(
        stub, prompts(0, TRAIN), multiple=multiple, limit=limit, separate=shared
    )
    shapes, alone = set(), set()
    for given, rollout in run[1]:
        how: dict[str, Any] = {"pad_id": PAD, "multiple": multiple, "shared": shared}
        samples = CONFIG.plan["rl"].samples_per_prompt
        batch = training_batch(given, rollout, samples, **how, chosen=chosen)
        shapes.add((batch.tokens_BT.shape, batch.targets_BR.shape))
        batch = training_batch(given, rollout, samples, **how)
        alone.add((batch.tokens_BT.shape, batch.targets_BR.shape))
    assert len(chosen) == 6 and len(shapes) <= 6
    assert len(alone) > 6  # what each batch needs by itself
    assert said == [
        "train: drawn responses are padded to rows/responses of "
        + ", ".join(f"{T}/{R}" for T, R in chosen)
    ]


@pytest.mark.parametrize("stage", ["sft", "distill"])
@pytest.mark.parametrize(("packed", "most", "padding"), [(False, 6, 1.2), (True, 2, 0.15)])
def test_given_responses(stage: str, packed: bool, most: int, padding: float) -> None:
    s: Any = CONFIG.plan[stage]
    stub: Any = types.SimpleNamespace(
        data=types.SimpleNamespace(pad_id=PAD), say=lambda _: None, mesh=tiny.mesh()
    )
    examples = [
        Example([1] * int(total - response), [1] * int(response))
        for total, response in ROWS[:TRAIN]
    ]
    index = [batching.batch_indices(0, step, s.batch_size, TRAIN) for step in range(s.steps)]
    found = batch_shapes.padded(stub, examples, index, multiple=MULTIPLE)
    if packed:
        how: dict[str, Any] = {"budget": s.packing, "accumulate": s.accumulate}
        found = batch_shapes.packed(stub, examples, index, **how, multiple=MULTIPLE)
    made = [found.pack([examples[i] for i in one]) for one in index]
    assert len({(one["tokens_BT"].shape, one["targets_BR"].shape) for one in made}) <= most
    real = sum(batch_shapes.tokens_of(one) for one in made)
    assert sum(one["tokens_BT"].size for one in made) / real - 1 <= padding
