"""Comments stripped, keys of equal programs: by hand."""

import pytest

from distill_jax.reasoning.programs import normalised, strip_comments

# --- comments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "stripped"),
    [
        ("x = 1  # one\nprint(x)\n", "x = 1\nprint(x)\n"),
        ("# all\n\nx = 1\n    # deep\nprint(x)", "\nx = 1\nprint(x)"),
        ("print('# no comment')  # one", "print('# no comment')"),
        ('"""Doc."""\nx = 0x1F\n', "x = 0x1F\n"),  # literals stay as written
        ('def f():\n    """Doc\n    goes on."""\n    return 1\n', "def f():\n    return 1\n"),
        ('def f(): "Doc"; return 1\n', "def f(): return 1\n"),
        ('def f():\n    "Doc"  # alone\n', "def f():\n    pass\n"),
        ("class A:\n  'é' ; x = 1 # é\n", "class A:\n  x = 1\n"),
        ("x = 1 # a\r\nprint(x)\r\n", "x = 1\r\nprint(x)\r\n"),
        ("x = [1, # a\n     # b\n     2]\n", "x = [1,\n     2]\n"),
        ("s = 'a'\n'no doc'\n", "s = 'a'\n'no doc'\n"),
        ("# only\n", ""),
        ("'doc'\n'no doc'\nx = 1", "'no doc'\nx = 1"),
    ],
)
def test_comments_and_docstrings_go_and_all_else_stays(program, stripped):
    assert strip_comments(program) == stripped


@pytest.mark.parametrize(
    "program",
    [
        "x = (",
        "x = '\0'",
        "#" * 20_001,
    ],
)
def test_what_cannot_be_stripped_is_none(program):
    assert strip_comments(program) is None


# --- keys -----------------------------------------------------------------------------------------

BASE = "total = 2 + 3\nprint(total)\n"


@pytest.mark.parametrize(
    "same",
    ["x=2+3;print(x)", "# add\ntotal = (2 + 3)\n\nprint(total)", "'''Doc'''\nn = 2 + 3\nprint(n)"],
)
def test_layout_comments_and_names_do_not_change_the_key(same):
    assert normalised(same) == normalised(BASE)
    assert len(normalised(BASE)) == 32


@pytest.mark.parametrize(
    "other",
    [
        "total = 3 + 2\nprint(total)",
        "total = 2 + 3.0\nprint(total)",
        "print(2 + 3)",
        "total = 2 + 3\nprint(totaI)",
        "total = 2 + 3\nassert total\nprint(total)",
    ],
)
def test_another_program_has_another_key(other):
    assert normalised(other) != normalised(BASE)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # arguments by keyword: the names matter
        ("def f(a, b): return a - b\nf(a=1, b=2)", "def f(b, a): return b - a\nf(a=1, b=2)"),
        ("end = 'x'\nprint(1, end=end)", "sep = 'x'\nprint(1, sep=sep)"),
        ("class A:\n x = 1\nA.x", "class A:\n y = 1\nA.x"),
        ("import math as m\nm = 1", "import math as n\nm = 1"),
        ("a = 1\nb = 2\nprint(a)", "a = 1\nb = 2\nprint(b)"),
    ],
)
def test_names_that_matter_stay(first, second):
    assert normalised(first) != normalised(second)


def test_text_that_does_not_parse_has_the_key_of_itself():
    assert normalised("x = (") == normalised("x = (") != normalised("y = (")
    assert normalised("\ud800")


# --- any text ---


@pytest.mark.parametrize(
    "text",
    ["(" * 9999, "-" * 19_000 + "1", "1" + "+1" * 9000, "a" + "()" * 9000, "not " * 4000 + "1"],
)
def test_deep_text_does_no_harm(text):
    assert isinstance(normalised(text), str)
    assert strip_comments(text) in (None, text)
