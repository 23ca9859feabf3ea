import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.answers import Answer, extract, printed
from distill_jax.answers.extract import MAX_TEXT
from distill_jax.answers.spelling import MAX_ANSWER


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("48/2 = <<48/2=24>>24\n#### 24", "24"),
        ("#### 5\nno, wait\n#### 7\ndone", "7"),
        ("#### 24 #### 25", "25"),
        ("#### 5\n####  \n", "5"),
        ("#### 5\n\n#### Verification\nall good", "5"),
        ("#### yes", "yes"),
        (r"so \boxed{5}, corrected: \boxed{7}.", "7"),
        (r"\boxed{5} #### 7", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"first \boxed{3}, then cut off \boxed{\frac{1}{2", "3"),
        (r"\boxed{3} or \boxed{5}", "3, 5"),
        (r"$x = \boxed{3}$ or $x = \boxed{5}$", "3, 5"),
        (r"\boxed{3}. No: \boxed{5}", "5"),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed 7", "7"),
        (r"#### 3 and \boxed{4}", "4"),
        ("<answer> 7 </answer>", "7"),
        (r"<answer>so \boxed{7} cm</answer>", "7"),
        ("<answer>7</answer> #### 8", "8"),
        ("The answer is 3.5. That was easy.", "3.5"),
        ("The answer is: $12.", "$12"),
        ("Final Answer: 1,234", "1,234"),
        ("**Answer:** 7", "7"),
        ("The answer is 5. Wait. The answer is 6, because 5 is odd.", "6"),
        (r"\boxed{5} Hold on, the answer is 6.", "6"),
        (r"\boxed{5} So the answer is clear.", "5"),
        ("<think>\\boxed{5}</think> The answer is 6.", "6"),
        ("thoughts </think> 6", "6"),
        (" 1,234 ", "1,234"),
    ],
)
def test_extracts(text, wanted):
    assert extract(text) == Answer(wanted)


@pytest.mark.parametrize(
    "text",
    ["", "no idea 7", "####", r"\boxed{}", "#### " + "9" * (MAX_ANSWER + 1), "<answer></answer>"]
    + [
        "<think> the answer is 5",
        r"\boxed{\frac{1}{2",
        "The answer is not 5.",
        "x = 5, y = 7 or so",
    ],
)
def test_extracts_nothing(text):
    assert extract(text) is None


@pytest.mark.parametrize(
    ("stdout", "wanted"),
    [
        ("3\n5\n", "5"),
        ("Answer: 5", "5"),
        ("The total cost = 12.5", "12.5"),
        ("[1, 2, 3]", "[1, 2, 3]"),
        ("x**2 + 2*x", "x**2 + 2*x"),
        (r"so \boxed{7}", "7"),
        ("x >= 5", "x >= 5"),
    ],
)
def test_reads_what_a_program_printed(stdout, wanted):
    assert printed(stdout) == Answer(wanted)


def test_a_program_that_prints_nothing_gives_no_answer():
    assert printed(" \n") is None


def test_a_long_text_is_read_from_its_end():
    assert extract("#### 1\n" + "x" * MAX_TEXT) is None
    assert extract("x" * MAX_TEXT + "\n#### 1") == Answer("1")


@pytest.mark.parametrize(
    "piece",
    [r"\boxed{", r"\boxed{1}", "<answer>", "####", "#### 1\n", "{", "answer is ", " \t", "<think>"]
    + ["</think>", "answer: ", r"\boxed{1} or ", "<", " ", "\n", ", ", "the answer is $", "1,"],
)
@pytest.mark.parametrize("frame", ["{}", "The answer is 5{}x", r"\boxed{}x", "a{}b", "a ={}b"])
def test_hostile_repetition_stays_fast(frame, piece):
    text = frame.replace("{}", piece * (MAX_TEXT // len(piece) - 20))
    start = time.perf_counter()
    extract(text)
    printed(text)
    assert time.perf_counter() - start < 5.0


@given(st.integers(-(10**12), 10**12), st.text(max_size=30))
def test_finds_what_was_marked_after_any_text(number, before):
    plain = before.replace("\\", "").replace("<", "")
    assert extract(f"{plain}\n#### {number}") == Answer(str(number))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("So he has 18.\nA: 18", "18"),
        ("x\n**A:** $18$", "$18$"),
        ("It follows.\nAnswer: 18", "18"),
        ("Ans: -3/4", "-3/4"),
        # A corrected answer counts by its last statement; not the last line, or one of several.
        ("A: 3\nSo it holds.", None),
        ("A: 3\nB: 4", None),
        ("Q: 5?\nA: five", "five"),
        ("The answer is 4.\nA: 5", "5"),
        ("#### 4\nA: 5", "5"),
    ],
)
def test_a_last_line_with_a_letter_before_it(text: str, found: str | None) -> None:
    answer = extract(text)
    assert (answer.text if answer else None) == found
