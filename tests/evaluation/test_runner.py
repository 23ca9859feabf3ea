"""Evaluation of a scripted model: scores by hand, going on after a stop."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.evaluation import runner
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.inference.store import AnswerStore
from distill_jax.rollout.sampler import Rollout, SamplingSettings
from distill_jax.tasks import TextTask

KEY = jax.random.key(0)
TASK = TextTask(DataSettings(), None)
LIMITS = SamplingSettings(max_new_tokens=4, segment=4, prompt_multiple=4, top_k=3, top_p=0.5)


class Scripted:
    """Answers prompt [.., n] with n on even samples (and when greedy), with n + 1 on odd ones."""

    def __init__(self):
        self.calls = []

    def generate(self, weights, prompts, settings, *, key, prompt_ids, samples, ended):
        assert ended is None
        self.calls.append((len(prompts), settings, list(prompt_ids)))
        rows = [[p[-1] + g % 2, 99] for p in prompts for g in range(samples)]
        tokens = np.array(rows)
        ended = tokens[:, 0] % 2 == 0
        return Rollout(tokens, np.array([2] * len(rows)), ended, np.zeros(tokens.shape))


def problems():
    # Prompts of lengths 3, 1, 2, 2, 1; the answer is the last token, except for problem 3.
    prompts = [[1, 1, 20], [11], [1, 12], [1, 13], [14]]
    golds = ["20", "11", "12", "77", "14"]
    levels = [2, 1, 1, 2, None]
    found = [
        Problem(id=f"p{i}", question=f"q{i}", solution="", answer=g, level=level)
        for i, (g, level) in enumerate(zip(golds, levels, strict=True))
    ]
    return Prompts(found, prompts, 0)


def text(tokens):
    return f"#### {tokens[0]}"


def run(sampler, **changes):
    settings = EvaluateSettings(**{"samples": 2, "batch": 4, "temperature": 0.9, **changes})
    return runner.evaluate(
        sampler, lambda: None, problems(), settings, LIMITS, key=KEY, text=text, task=TASK
    )


def test_scores_by_hand():
    got = run(Scripted())
    # Greedy: all but problem 3. Sampled: the first of two samples right, again without problem 3.
    assert got["greedy"]["accuracy"]["mean"] == 4 / 5 and got["num_problems"] == 5
    np.testing.assert_allclose(got["sampled"]["pass@1"]["mean"], 0.4)
    greedy, sampled = got["greedy"]["levels"], got["sampled"]["levels"]
    assert {k: (v["mean"], v["num_problems"]) for k, v in greedy.items()} == {
        "1": (1.0, 2), "2": (0.5, 2),
    }  # fmt: skip
    assert {k: v["mean"] for k, v in sampled.items()} == {"1": 0.5, "2": 0.25}
    assert got["greedy"]["terminated"] == 3 / 5 and got["greedy"]["mean_length"] == 2.0
    rows = got["problems"]
    assert [r["id"] for r in rows] == ["p0", "p1", "p2", "p3", "p4"]
    assert rows[2]["greedy"] == "#### 12" and rows[2]["sampled"] == ["#### 12", "#### 13"]
    assert rows[2]["sampled_right"] == [True, False] and not rows[3]["greedy_right"]
    json.dumps(got, allow_nan=False)


def test_the_last_number_of_the_text_next_to_the_strict_figure():
    def prose(tokens):
        return f"So it is {tokens[0]} now." if tokens[0] != 12 else f"#### {tokens[0]} of 3"

    settings = EvaluateSettings(samples=2, batch=4, temperature=0.9)
    data = problems()
    data.problems[4] = dataclasses.replace(data.problems[4], answer="x + 1")
    got = runner.evaluate(
        Scripted(), lambda: None, data, settings, LIMITS, key=KEY, text=prose, task=TASK
    )
    assert got["greedy"]["accuracy"]["mean"] == 0.0  # 12 of 3 is another answer
    # Right by hand: 20 and 11, of 20, 11, 12 and 77; the fifth gold answer is no number.
    flexible = got["greedy"]["flexible"]
    assert (flexible["mean"], flexible["problems"]) == (0.5, 4)
    # Of two samples the first: each of those two is right half of the time.
    assert got["sampled"]["flexible"]["mean"] == 0.25
    none = Prompts([data.problems[4]], [[14]], 0)
    got = runner.evaluate(
        Scripted(), lambda: None, none, settings, LIMITS, key=KEY, text=prose, task=TASK
    )
    assert got["greedy"]["flexible"] is None


def test_greedy_alone():
    sampler = Scripted()
    got = run(sampler, samples=0, temperature=1.0)
    assert got["greedy"] == run(Scripted())["greedy"] and got["sampled"] is None
    assert {s.temperature for _, s, _ in sampler.calls} == {0.0}
    assert all(row["sampled"] == row["sampled_right"] == [] for row in got["problems"])
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_the_batch_size_changes_nothing(batch):
    sampler = Scripted()
    assert run(sampler, batch=batch) == run(Scripted())
    # One size of batch serves all: the last one is filled up.
    for samples in (1, 2):
        each = max(1, min(batch // samples, 5))
        sizes = {n for n, s, _ in sampler.calls if (s.temperature == 0) == (samples == 1)}
        assert sizes == {each}
    # A prompt is named by its number, whatever batch it stands in.
    assert {i for _, _, ids in sampler.calls for i in ids} == set(range(5))


def test_decoding_is_greedy_once_and_then_from_the_whole_distribution():
    sampler = Scripted()
    run(sampler, batch=64)
    (_, greedy, _), (_, sampled, _) = sampler.calls
    assert (greedy.temperature, greedy.top_k, greedy.top_p) == (0.0, 0, 1.0)
    assert (sampled.temperature, sampled.top_k, sampled.top_p) == (0.9, 0, 1.0)
    assert greedy.max_new_tokens == sampled.max_new_tokens == 4


class Cut(Exception):
    """The process died."""


def drawn(sampler):
    """(greedy?, problem) of all that was drawn, without the repeats that fill a batch."""
    return [(s.temperature == 0, i) for _, s, ids in sampler.calls for i in dict.fromkeys(ids)]


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_stopped_anywhere_it_goes_on_and_draws_nothing_twice(tmp_path, after):
    whole_file = AnswerStore(tmp_path / "whole.jsonl", {"weights": "w"})
    whole_sampler = Scripted()
    whole = run_kept(whole_sampler, whole_file)
    assert len(whole_sampler.calls) == 5  # problems 4 + 1, then 2 + 2 + 1

    file, sampler, ticks = tmp_path / "cut.jsonl", Scripted(), []

    def tick(count):
        ticks.append(count)
        if len(ticks) == after:
            raise Cut

    with pytest.raises(Cut):
        run_kept(sampler, AnswerStore(file, {"weights": "w"}), tick)
    again = AnswerStore(file, {"weights": "w"})
    assert again.count() == sum(ticks)
    assert run_kept(sampler, again) == whole
    assert file.read_bytes() == whole_file.path.read_bytes()
    both = drawn(sampler)
    assert len(both) == len(set(both)) == 10 and sorted(both) == sorted(drawn(whole_sampler))
    # Once more: nothing is left to draw.
    count = len(sampler.calls)
    assert run_kept(sampler, AnswerStore(file, {"weights": "w"})) == whole
    assert len(sampler.calls) == count


def run_kept(sampler, store, tick=None):
    settings = EvaluateSettings(samples=2, batch=4, temperature=0.9)
    return runner.evaluate(
        sampler, lambda: None, problems(), settings, LIMITS, key=KEY, text=text, task=TASK,
        tick=tick, store=store,
    )  # fmt: skip


@pytest.mark.parametrize("checkpoints", ["some", "-1", "1.5", ""])
def test_checkpoints_are_none_all_or_a_step(checkpoints):
    with pytest.raises(ConfigError, match="none, all or a step"):
        EvaluateSettings(checkpoints=checkpoints)
