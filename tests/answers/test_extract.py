import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.answers import Answer, extract
from distill_jax.answers.extract import MAX_ANSWER, MAX_TEXT


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("48/2 = <<48/2=24>>24\n#### 24", "24"),
        ("#### 5\nno, wait\n#### 7\ndone", "7"),
        ("#### 24 #### 25", "25"),
        (r"so \boxed{5}, corrected: \boxed{7}.", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"first \boxed{3}, then cut off \boxed{\frac{1}{2", "3"),
        (r"\fbox{7}", "7"),
        (r"#### 3 and \boxed{4}", "4"),
        ("<answer> 7 </answer>", "7"),
        ("<answer>7</answer> #### 8", "8"),
        ("The answer is 3.5. That was easy.", "3.5"),
        ("The answer is: $12.", "$12"),
        ("Final Answer: 1,234", "1,234"),
    ],
)
def test_extracts(text, wanted):
    assert extract(text) == Answer(wanted)


@pytest.mark.parametrize(
    "text",
    ["", "no idea 7", "####", "#### 5\n####  \n", r"\boxed{}", "#### " + "9" * (MAX_ANSWER + 1)],
)
def test_extracts_nothing(text):
    assert extract(text) is None


def test_a_long_text_is_read_from_its_end():
    assert extract("#### 1\n" + "x" * MAX_TEXT) is None
    assert extract("x" * MAX_TEXT + "\n#### 1") == Answer("1")


@pytest.mark.parametrize("piece", [r"\boxed{", "<answer>", "####", "{", "answer is ", " \t"])
def test_hostile_repetition_stays_fast(piece):
    start = time.perf_counter()
    extract(piece * (MAX_TEXT // len(piece)))
    assert time.perf_counter() - start < 2.0


@given(st.integers(-(10**12), 10**12), st.text(max_size=30))
def test_finds_what_was_marked_after_any_text(number, before):
    plain = before.replace("\\", "").replace("<", "")
    assert extract(f"{plain}\n#### {number}") == Answer(str(number))
