"""The program of a completion: each kind of text with its program or its failure class, by hand."""

import pytest

from distill_jax.reasoning.programs import extract, fenced, is_closed

ONE = "Add.\n```python\nx = 2\nprint(x)\n```\nSo 2."


def test_the_program_is_a_slice_of_the_text():
    found = extract(ONE)
    assert found == ("x = 2\nprint(x)\n", "", 15, 30)
    assert ONE[found.start : found.stop] == found.program


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("print(2)", "none"),
        ("", "none"),
        ("`print(2)` or ```print(2)```", "none"),
        ("```python print(2)```", "none"),
        ("```python\nprint(2)", "unterminated"),
        ("```python\nprint(2)\n``", "unterminated"),
        ("````python\nprint(2)\n```", "unterminated"),  # fewer backticks close nothing
        ("```python\nprint(2)\n```python\nprint(3)", "unterminated"),
        ("```\nprint(2)\n```", "language"),
        ("```output\n2\n```", "language"),
        ("```output\n2", "language"),
        ("```pythonic\nprint(2)\n```", "language"),
        ("    ```python\nprint(2)\n    ```", "none"),  # four blanks make it indented code
        ("```python\n \n```", "empty"),
        ("```python\n```", "empty"),
        ("<think>\n```python\nprint(2)\n```\n", "none"),
        ("<think>\n```python\nprint(2)\n```\n</think>\nSo 2.", "none"),
    ],
)
def test_without_a_program_there_is_a_failure_class(text, failure):
    found = extract(text)
    assert (found.program, found.failure) == (None, f"no_program:{failure}")


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```py\nprint(2)\n```", "print(2)\n"),
        ("```python3\nprint(2)\n```", "print(2)\n"),
        ("``` Python title=x\nprint(2)\n```", "print(2)\n"),
        ("   ```python\nprint(2)\n  ```  ", "print(2)\n"),
        # the last complete fence counts
        ("```python\nprint(2)\n```\nNo:\n```python\nprint(3)\n```", "print(3)\n"),
        ("```python\nprint(2)\n```\n```python\nprint(3)", "print(2)\n"),
        ("```python\nprint(2)\n```\n```output\n5\n```", "print(2)\n"),
        # backticks inside
        ("````python\ns = '''\n```\n'''\nprint(s)\n````", "s = '''\n```\n'''\nprint(s)\n"),
        ("```python\ns = '``` x'\nprint(`2`)\n```", "s = '``` x'\nprint(`2`)\n"),
        ("```python\nprint(2)\n```python\nprint(3)\n```", "print(2)\n```python\nprint(3)\n"),
        # CRLF stays in the program, and is no part of a fence
        ("A\r\n```python\r\nx = 2\r\nprint(x)\r\n```\r\n", "x = 2\r\nprint(x)\r\n"),
        # other line ends than \r and \n do not end a line
        ("```python\nprint('\u2028```\x0c')\n```", "print('\u2028```\x0c')\n"),
        ("<think>```python\nprint(2)\n```</think>\n```python\nprint(3)\n```", "print(3)\n"),
    ],
)
def test_which_program_it_is(text, program):
    assert extract(text).program == program


def test_thousands_of_fences_take_linear_time():
    text = "```python\n" * 20_000
    assert extract(text).failure == "no_program:unterminated"
    assert extract("```\n" * 20_001 + "```python\n1\n```\n").program is None


@pytest.mark.parametrize("program", ["print(2)", "s = '''\n```\n'''", "s = '''\n`````\n'''\n\n"])
def test_fenced_is_read_back(program):
    assert extract(f"Text.\n{fenced(program)}\n").program == program.rstrip() + "\n"


# --- turns ----------------------------------------------------------------------------------------


def test_a_program_is_closed_when_the_line_of_its_fence_has_ended():
    turn = "Add.\n```python\nprint(2)\n```\n"
    assert [is_closed(turn[:n]) for n in range(len(turn) + 1)] == [False] * len(turn) + [True]
    assert is_closed(turn + "<think> more ```python")  # a continuation takes nothing back
    assert is_closed(turn.replace("\n", "\r\n"))
    for text in (
        "```python\nprint(2)\n```",  # it may go on with a fourth backtick
        "````python\nprint(2)\n```\n",
        "```python\n\n```\n",
        "```output\n2\n```\n",
        "<think>\n```python\nprint(2)\n```\n",
    ):
        assert not is_closed(text)


def test_an_output_is_fenced_so_that_no_line_of_it_closes_the_fence():
    assert fenced("7\n\n", "output") == "```output\n7\n```"
    said = "```\n```python\nprint(8)\n```"
    assert fenced(said, "output") == f"````output\n{said}\n````"
    assert extract(fenced(said, "output")).failure == "no_program:language"
