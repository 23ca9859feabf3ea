import copy
import json

import pytest

from distill_jax import answers
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data.chat import (
    ChatSettings,
    Prompts,
    decode,
    fitting_prompts,
    render_examples,
    render_prompt,
    render_prompts,
    solution_text,
)
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.data.synthetic import ProblemSettings, problems
from distill_jax.data.tokenizer import eos_id
from distill_jax.tasks import TextTask
from tests.sentence_piece import sentence_piece

PLAIN = ChatSettings()
ONE = Problem("a/1", "Tom has 3 pens and buys 2. How many now?", "<<3+2=5>>\n#### 5", "5")


def test_the_format_by_hand(tok):
    prompt = render_prompt(tok, ONE, PLAIN)
    assert (
        tok.decode(prompt) == f"<|im_start|>user\n{ONE.question}<|im_end|>\n<|im_start|>assistant\n"
    )
    settings = ChatSettings(system_prompt="Be brief.", instruction="Show your work.")
    assert tok.decode(render_prompt(tok, ONE, settings)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\n{ONE.question}\nShow your work.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_worked_examples_are_earlier_turns(tok, tmp_path):
    file = tmp_path / "shots.jsonl"
    rows = [
        {"question": "1 + 1?", "answer": "1 + 1 = 2\n#### 2"},
        {"question": "2 + 2?", "answer": "#### 4"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ChatSettings(instruction="Show your work.", shots=str(file), boxed=True)
    assert tok.decode(render_prompt(tok, ONE, settings)) == (
        "<|im_start|>user\n1 + 1?\nShow your work.<|im_end|>\n"
        "<|im_start|>assistant\n1 + 1 = 2\nThe final answer is \\boxed{2}.<|im_end|>\n"
        "<|im_start|>user\n2 + 2?\nShow your work.<|im_end|>\n"
        "<|im_start|>assistant\nThe final answer is \\boxed{4}.<|im_end|>\n"
        f"<|im_start|>user\n{ONE.question}\nShow your work.<|im_end|>\n<|im_start|>assistant\n"
    )
    file.write_text('{"question": "3?", "solution": "", "answer": "3"}\n')
    with pytest.raises(DataError, match="shots.jsonl.*solution"):
        render_prompt(tok, ONE, settings)
    file.write_text('{"question": "3?<|im_end|>", "answer": "#### 3"}\n')
    with pytest.raises(DataError, match="shots.jsonl/1: its text holds the special token"):
        render_prompt(tok, ONE, settings)
    with pytest.raises(ConfigError, match="no file data.chat.shots=none.jsonl"):
        render_prompt(tok, ONE, ChatSettings(shots="none.jsonl"))


@pytest.mark.parametrize(
    ("solution", "boxed"),
    [
        ("3+2 = <<3+2=5>>5\n#### 5", "3+2 = <<3+2=5>>5\nThe final answer is \\boxed{5}."),
        ("#### 5", "The final answer is \\boxed{5}."),
        ("It is 5.", "It is 5.\nThe final answer is \\boxed{5}."),
        ("So \\boxed{5}.", "So \\boxed{5}."),
    ],
)
def test_solutions_end_in_a_box_where_it_is_asked_for(solution, boxed):
    assert solution_text(solution, "5", PLAIN) == solution
    assert solution_text(solution, "5", ChatSettings(boxed=True)) == boxed
    assert answers.extract(boxed).text == "5"
    problem = Problem("a/2", "5?", solution, "5")
    data = DataSettings(chat=ChatSettings(boxed=True))
    assert TextTask(data, None).response(problem, bare=False) == boxed
    assert TextTask(data, None).response(problem, bare=True) == "The final answer is \\boxed{5}."
    assert TextTask(DataSettings(), None).response(problem, bare=True) == "#### 5"


def test_training_and_sampling_see_one_prompt_and_train_the_end(tok):
    (example,) = render_examples(tok, [ONE], [ONE.solution], PLAIN)
    assert example.prompt == render_prompt(tok, ONE, PLAIN)
    assert example.response[-1] == eos_id(tok)
    assert example.response.count(eos_id(tok)) == 1
    assert decode(tok, example.response) == ONE.solution
    assert decode(tok, tok("a<|im_start|>b<|endoftext|>")["input_ids"]) == "ab"
    # Tokens of the whole text equal the two parts put together: no merge spans the boundary.
    whole = tok.decode(example.prompt) + ONE.solution + "<|im_end|>"
    assert tok(whole)["input_ids"] == [*example.prompt, *example.response]


def test_many_are_rendered_as_one_alone(tok):
    rows = problems("train", 50, ProblemSettings(), 0)
    solutions = [p.solution for p in rows]
    many = render_examples(tok, rows, solutions, PLAIN)
    assert many == [render_examples(tok, [p], [p.solution], PLAIN)[0] for p in rows]
    assert render_prompts(tok, [], PLAIN) == render_examples(tok, [], [], PLAIN) == []


def test_lengths_that_the_tiny_preset_counts_on(tok):
    rows = problems("train", 1000, ProblemSettings(), 0)
    examples = render_examples(tok, rows, [p.solution for p in rows], PLAIN)
    # Prompt: 8 of the chat format, 6 of the start ("Tom has 23 pens"), 4 a step, stop, ending 6.
    assert max(len(e.prompt) for e in examples) == 8 + 6 + 5 * 4 + 1 + 6
    # Response: "<<23+4=27>>\n" is 9 tokens, "#### 27" is 4, EOS.
    assert max(len(e.response) for e in examples) == 5 * 9 + 4 + 1


def test_thinking_reaches_templates_that_know_it(tok):
    qwen3 = copy.deepcopy(tok)
    qwen3.chat_template = "{% if enable_thinking %}+{% else %}-{% endif %}"
    assert tok.decode(render_prompt(qwen3, ONE, PLAIN)) == "-"
    assert tok.decode(render_prompt(qwen3, ONE, ChatSettings(enable_thinking=True))) == "+"


def test_the_date_of_a_template_is_the_same_each_day(tok):
    llama3 = copy.deepcopy(tok)
    llama3.chat_template = (
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}"
        "{% endif %}Today Date: {{ date_string }}"
    )
    assert tok.decode(render_prompt(llama3, ONE, PLAIN)) == "Today Date: 26 Jul 2024"


def test_the_format_of_mistral():
    tok = sentence_piece([ONE.question, "[INST] [/INST]"])
    prompt = render_prompt(tok, ONE, PLAIN)
    assert prompt[0] == tok.bos_token_id and prompt.count(tok.bos_token_id) == 1
    assert tok.decode(prompt) == f"<s> [INST] {ONE.question} [/INST]"
    (example,) = render_examples(tok, [ONE], ["so 5\n\n#### 5"], PLAIN)
    assert example.response[-1] == tok.eos_token_id
    assert decode(tok, example.response) == "so 5\n\n#### 5"
    with pytest.raises(DataError, match=r"refuses a prompt: .*alternate.*system_prompt=None"):
        render_prompt(tok, ONE, ChatSettings(system_prompt="Be brief."))


@pytest.mark.parametrize("special", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_special_tokens_in_data_are_refused(tok, special):
    bad = Problem("file/7", f"Tom {special} has", "#### 1", "1")
    with pytest.raises(DataError, match=r"file/7.*question.*special"):
        render_prompt(tok, bad, PLAIN)
    with pytest.raises(DataError, match=r"a/1.*solution.*special"):
        render_examples(tok, [ONE], [f"x{special}"], PLAIN)


def test_half_a_surrogate_pair_is_a_replacement_character(tok):
    def rendered(question, solution):
        problem = Problem("p", question, "", "4")
        return render_examples(tok, [problem], [solution], ChatSettings())

    # As json.loads gives it; alone, before another character, as a low half, and a whole pair.
    found = rendered("\ufeffwhat \ud83d", "a\ud83db \udc00 \ud83d\ude00")
    assert found == rendered("\ufeffwhat \ufffd", "a\ufffdb \ufffd \U0001f600")


def test_a_solution_must_not_be_empty(tok):
    with pytest.raises(DataError, match="a/1 has no solution"):
        render_examples(tok, [ONE], [" "], PLAIN)


def test_no_template_is_said(tok):
    bare = copy.deepcopy(tok)
    bare.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        render_prompt(bare, ONE, PLAIN)


def test_long_prompts_are_dropped_and_counted_or_refused(tok):
    rows = problems("test", 10, ProblemSettings(), 0)
    lengths = [len(p) for p in render_prompts(tok, rows, PLAIN)]
    limit = sorted(lengths)[5]
    found = fitting_prompts(tok, rows, PLAIN, max_prompt_tokens=limit, on_long_prompt="drop")
    assert [p.id for p in found.problems] == [
        p.id for p, n in zip(rows, lengths, strict=True) if n <= limit
    ]
    assert [len(p) for p in found.prompts] == [n for n in lengths if n <= limit]
    assert found.dropped == sum(n > limit for n in lengths) > 0
    with pytest.raises(DataError, match=rf"test/\d+ has a prompt of \d+ tokens.*={limit}"):
        fitting_prompts(tok, rows, PLAIN, max_prompt_tokens=limit, on_long_prompt="error")
    with pytest.raises(DataError, match="all 10 prompts are longer"):
        fitting_prompts(tok, rows, PLAIN, max_prompt_tokens=3, on_long_prompt="drop")


def test_the_first_prompts():
    two = Problem("a/2", "Ann has 1 pen. How many?", "", "1")
    pool = Prompts([ONE, two], [[1], [2]], 7)
    assert pool.first(1) == ([ONE], [[1]], 7)
    assert pool.first(0) == pool == pool.first(9)
