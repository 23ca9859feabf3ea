"""Published forms of traces: what becomes of each, and what is refused."""

import pytest

from distill_jax import answers
from distill_jax.core.errors import DataError
from distill_jax.data.rows import Columns, problem_of_row

STRATOS = {
    "system": "Your role as an assistant ...",
    "conversations": [
        {"from": "user", "value": "What is 2+3?"},
        {
            "from": "assistant",
            "value": "<|begin_of_thought|>\n\nFirst \\boxed{4}? No.\n\n<|end_of_thought|>\n\n"
            "<|begin_of_solution|>\n\nIt is \\boxed{5}.\n\n<|end_of_solution|>",
        },
    ],
}


def test_bespoke_stratos():
    found = problem_of_row(STRATOS, "here", "x")
    assert found.question == "What is 2+3?"
    assert found.solution == "<think>\nFirst \\boxed{4}? No.\n</think>\n\nIt is \\boxed{5}."
    assert found.answer == "5" and found.extra == {}
    # the thought is no answer
    assert answers.extract(found.solution.replace("\\boxed{5}", "five")) is None


def test_numina_math_takes_its_solution():
    row = {"source": "x", "problem": "2+3?", "solution": "$\\boxed{5}$", "messages": [{}]}
    found = problem_of_row(row, "here", "x")
    assert (found.question, found.solution, found.answer) == ("2+3?", "$\\boxed{5}$", "5")


def test_open_r1_takes_the_first_right_generation():
    row = {
        "problem": "2+3?", "answer": "5", "messages": [],
        "generations": ["<think>a</think>\\boxed{6}", "<think>b</think>\\boxed{5}", "<think>c"],
        "correctness_math_verify": [False, True, True],
        "is_reasoning_complete": [True, True, False],
    }  # fmt: skip
    assert problem_of_row(row, "here", "x").solution == "<think>b</think>\\boxed{5}"
    with pytest.raises(DataError, match="none of 3 generations"):
        problem_of_row({**row, "correctness_math_verify": [False] * 3}, "here, row 1", "x")


def test_verified_programs_are_fenced():
    row = {"id": "7", "question": "2+3?", "cot_program": "print(2 + 3)\n", "final_answer": 5}
    found = problem_of_row({**row, "tests": ["assert True"]}, "here", "x")
    assert found.solution == "```python\nprint(2 + 3)\n```"
    assert (found.id, found.answer, found.extra) == ("7", "5", {"tests": ["assert True"]})
    whole = f"So:\n{found.solution}"
    assert problem_of_row({**row, "cot_program": whole}, "here", "x").solution == whole
    assert problem_of_row({**row, "answer": "6"}, "here", "x").answer == "6"
    with pytest.raises(DataError, match="field cot_program"):
        problem_of_row({**row, "cot_program": " "}, "here, row 1", "x")


@pytest.mark.parametrize("messages", [False, True])
def test_prompt_and_completion(messages):
    row = {"prompt": "2+3?", "completion": "2+3=5\n#### 5"}
    if messages:
        row = {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
    found = problem_of_row(row, "here", "x")
    assert (found.question, found.solution, found.answer) == ("2+3?", "2+3=5\n#### 5", "5")


def test_columns_that_were_set_are_read_as_they_are():
    row = {"prompt": "2+3?", "completion": "#### 5", "text": "2+4=6 #### 6"}
    found = problem_of_row(row, "here", "x", Columns(solution="text"))
    assert (found.answer, found.extra) == ("6", {"completion": "#### 5"})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"conversations": "x"}, "conversations is 'x'"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "from: user or assistant"),
        ({"prompt": "x", "completion": 5}, "completion is 5"),
        ({"prompt": ["x"], "completion": ["y"]}, "messages of"),
        ({"problem": "x", "generations": [None]}, "a list of texts"),
        ({"prompt": "x", "completion": "no answer"}, "no gold answer"),
    ],
)
def test_refused(row, said):
    with pytest.raises(DataError, match=said):
        problem_of_row(row, "file, line 3", "x")
