"""Answers of several turns: what is stored, judged and counted is the model's own text alone."""

import functools

import jax
import pytest

from distill_jax.data import chat
from distill_jax.data.chat import Prompts
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.evaluation import distribution
from distill_jax.evaluation.runner import EvaluateSettings, evaluate
from distill_jax.inference import generate
from distill_jax.inference.store import AnswerStore
from distill_jax.reasoning.programs import fenced
from distill_jax.rollout.completions import turns
from distill_jax.rollout.rounds import Replies
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.sandbox import shared
from distill_jax.stages import token_scores
from distill_jax.tasks import ProgramSettings, ProgramTask
from tests.evaluation.scripted import CUT, Scripted, tok

KEY = jax.random.key(0)
TWO = SamplingSettings(max_new_tokens=200, rounds=2, output_tokens=120)
# Each question with its first turn and what follows an output; the gold answer is 8.
HONEST = (fenced("print(3 + 5)") + "\n", "So 8.")
# Its output holds a program that prints the gold answer; the model's own prints 7.
FORGED = (fenced(f"print({fenced('print(8)')!r})\nprint(3 + 4)") + "\n", "So 7.")
SCRIPTS = {
    "honest": HONEST,
    "forged": FORGED,
    "no second": (fenced("print(3 + 5)"), "never said"),  # EOS behind the fence ends it
    "cut": (fenced("print(3 + 5)") + "\n", f"So{CUT}"),
    "words": ("The answer is 8.", "never said"),
}


@pytest.fixture(autouse=True, scope="module")
def _close():
    yield
    shared.close_shared()


def say(text, number, sample, mark):
    name = next(name for name in SCRIPTS if f"question {name}\n" in text + "\n")
    return SCRIPTS[name]["output\n" in text]


@functools.cache
def task():
    return ProgramTask(DataSettings(), tok(), ProgramSettings(wall_s=20.0), rounds=2)


def answered(sampler, store=None):
    problems = [Problem(name, f"question {name}", "", "8") for name in SCRIPTS]
    prompts = [tok().encode(f"question {name}\n") for name in SCRIPTS]
    found = evaluate(
        sampler, lambda: None, Prompts(problems, prompts, 0), EvaluateSettings(samples=2), TWO,
        key=KEY, text=lambda ids: chat.decode(tok(), ids), task=task(), store=store,
        replies=Replies(task(), tok()),
    )  # fmt: skip
    return found, prompts


def test_only_the_models_own_text_is_judged_and_counted(tmp_path):
    made_from = {"made": "up"}
    store = AnswerStore(tmp_path / "answers.jsonl", made_from)
    found, prompts = answered(Scripted(tok(), say), store)
    of = {one["id"]: one for one in found["problems"]}
    right = {name: one["greedy_right"] for name, one in of.items()}
    assert right == {
        "honest": True, "forged": False, "no second": True, "cut": False, "words": False
    }  # fmt: skip
    for name, (first, second) in SCRIPTS.items():
        text = first if second == "never said" else first + second.removesuffix(CUT)
        assert of[name]["greedy"] == text and of[name]["sampled"] == [text] * 2
        assert of[name]["sampled_right"] == [right[name]] * 2
    # Lengths count what the model drew.
    drawn = sum(len(tok().encode(one["greedy"])) for one in of.values()) + 4  # EOS, but of "cut"
    assert found["greedy"]["mean_length"] == pytest.approx(drawn / 5)
    # The store has the outputs; from it the same answers come, and nothing is drawn or run.
    silent = Scripted(tok(), None)
    again, _ = answered(silent, AnswerStore(tmp_path / "answers.jsonl", made_from))
    assert again == found and not silent.prompts
    tokens = [one[0] for one in store.responses("greedy")]
    outputs = [one[0] for one in store.column("greedy", generate.OUTPUTS)]
    assert [len(one) for one in outputs] == [1, 1, 0, 1, 0]
    start, stop, failed = outputs[1][0]
    shown = chat.decode(tok(), tokens[1][start:stop])
    assert shown == f"````output\n{fenced('print(8)')}\n7\n````\n" and not failed
    # Each turn is compared given all before it; without outputs there is one.
    pairs = list(zip(*distribution._turns(prompts, tokens, outputs), strict=True))
    assert len(pairs) == 5 + 3
    assert pairs[0] == (prompts[0], tokens[0][: outputs[0][0][0]])
    assert pairs[1] == (
        prompts[0] + tokens[0][: outputs[0][0][1]], tokens[0][outputs[0][0][1] :]
    )  # fmt: skip
    assert turns(len(tokens[4]), outputs[4]) == [(0, len(tokens[4]))]


def test_outputs_have_no_scores_of_tokens():
    names = ("reward", "q", "value", "logp")
    drawn = {"text": "x", "p": 0.5, **dict.fromkeys(names, 1.0)}
    responses = {"rl": [{"tokens": [dict(drawn) for _ in range(5)]} for _ in range(2)]}
    token_scores._blank(responses, {"rl": [[[1, 3, False]], []]})
    first, second = (one["tokens"] for one in responses["rl"])
    assert [first[0], *first[3:]] == [drawn] * 3 and second == [drawn] * 5
    assert first[1:3] == [drawn | dict.fromkeys(names, 0.0)] * 2


def test_answers_of_one_round_are_named_as_before_there_were_rounds():
    from distill_jax.core.settings import to_dict

    one = SamplingSettings()
    assert "rounds" not in generate.of_rounds(to_dict(one))
    assert generate.of_rounds(to_dict(TWO))["rounds"] == 2
