"""Task text: prompts that fit, and the answer check as the judge."""

import numpy as np
import pytest

from distill_jax import answers
from distill_jax.core.errors import DataError
from distill_jax.data import chat, synthetic
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.data.tokenizer import train_tokenizer
from distill_jax.tasks import TASKS, TextTask


def problem(answer, question="question"):
    return Problem("p", question, "", answer)


def judge(gold, texts, ended=None):
    ended_B = np.ones(len(texts), bool) if ended is None else np.array(ended)
    return TextTask(DataSettings(), None).judge([problem(g) for g in gold], texts, ended_B)


def test_the_registry_has_it():
    assert TASKS["text"] is TextTask


def test_verdicts_by_hand():
    found = judge(["24"] * 3, ["so #### 24", "so #### 23", "no answer at all"])
    assert found.right_B.tolist() == [True, False, False] and found.right_B.dtype == bool
    assert found.undecided_B.tolist() == [False] * 3 and found.undecided_B.dtype == bool
    assert found.details == [{}, {}, {}] and found.stated == ["24", "23", None]


def test_responses_to_train_on():
    task, worked = TextTask(DataSettings(), None), Problem("a", "q", "<<1+2=3>>\n#### 3", "3")
    assert task.response(worked, bare=False) == worked.solution
    assert task.response(worked, bare=True) == "#### 3"
    assert task.response(problem("3"), bare=False) == "#### 3"


def test_each_text_is_compared_with_the_answer_of_its_own_problem():
    assert judge(["1", "2"], ["#### 2", "#### 2"]).right_B.tolist() == [False, True]


def test_an_answer_counts_in_a_text_that_did_not_end():
    assert judge(["24"], ["#### 24"], ended=[False]).right_B.tolist() == [True]


def test_undecided_is_never_right_as_well(monkeypatch):
    verdicts = [answers.Verdict(word, "for this test") for word in ("undecided", "right", "wrong")]
    monkeypatch.setattr(answers, "check_batch", lambda *_: verdicts)
    found = judge(["24"] * 3, ["#### 24"] * 3)
    assert found.undecided_B.tolist() == [True, False, False]
    assert found.right_B.tolist() == [False, True, False]


def test_a_judgement_of_nothing():
    found = judge([], [])
    assert (
        len(found.right_B) == len(found.undecided_B) == len(found.details) == len(found.stated) == 0
    )
    assert found.right_B.dtype == found.undecided_B.dtype == bool


def test_prompts_take_the_run_s_tokenizer_or_the_given_one(monkeypatch):
    seen = []

    def fitting(tokenizer, problems, form, **limits):
        seen.append((tokenizer, problems, form, limits))
        return "prompts"

    monkeypatch.setattr(chat, "fitting_prompts", fitting)
    settings = DataSettings(max_prompt_tokens=7, on_long_prompt="error")
    task, problems = TextTask(settings, "of the run"), [problem("1")]
    assert task.prompts(problems) == task.prompts(problems, "given") == "prompts"
    limits = {"max_prompt_tokens": 7, "on_long_prompt": "error"}
    assert seen == [(name, problems, settings.chat, limits) for name in ("of the run", "given")]


@pytest.fixture(scope="module")
def tok():
    return train_tokenizer(synthetic.texts(synthetic.ProblemSettings(), 0, 200), 300)


ROWS = [problem("1", "Two?"), problem("2", "Two plus " * 9 + "two?"), problem("3", "Three?")]


def test_prompts_that_are_too_long_are_dropped_and_counted(tok):
    rendered = [chat.render_prompt(tok, row, DataSettings().chat) for row in ROWS]
    lengths = [len(prompt) for prompt in rendered]
    assert lengths[0] <= lengths[2] < lengths[1]
    # At the limit a prompt still fits.
    found = TextTask(DataSettings(max_prompt_tokens=lengths[2]), tok).prompts(ROWS)
    assert found.problems == [ROWS[0], ROWS[2]] and found.dropped == 1
    assert found.prompts == [rendered[0], rendered[2]]
    found = TextTask(DataSettings(max_prompt_tokens=lengths[1]), tok).prompts(ROWS)
    assert (found.problems, found.prompts, found.dropped) == (ROWS, rendered, 0)
    said = (
        f"all 3 prompts are longer than {lengths[0] - 1} tokens: {lengths[0]} to {lengths[1]}; "
        f"fix: raise data.max_prompt_tokens to {lengths[1]}"
    )
    with pytest.raises(DataError, match=said):
        TextTask(DataSettings(max_prompt_tokens=lengths[0] - 1), tok).prompts(ROWS)


def test_a_prompt_that_is_too_long_is_an_error_where_that_is_asked(tok):
    longest = len(chat.render_prompt(tok, ROWS[1], DataSettings().chat))
    for limit, fits in ((longest, True), (longest - 1, False)):
        task = TextTask(DataSettings(max_prompt_tokens=limit, on_long_prompt="error"), tok)
        if fits:
            assert task.prompts(ROWS).dropped == 0
            continue
        with pytest.raises(DataError, match=f"a prompt of {longest} tokens; wanted: at most"):
            task.prompts(ROWS)


def test_keys_guesses_and_what_can_be_left_out():
    task = TextTask(DataSettings(), None)
    assert task.key("5+1 = 6\n\n #### 6\n") == task.key("5+1  = 6\n#### 6") != task.key("#### 6")
    texts = ["#### 7", "The answer is 7", "15-6-2=7 #### 7", "15-8=7\n#### 7", r"\boxed{7}", ""]
    assert task.guesses([problem("7")] * 6, texts) == [True, True, False, False, True, True]
    assert task.guesses([], []) == []
    assert task.shortened("first\nthen\n#### 7") is None
