"""Comments stripped, keys of equal programs, steps with their bytes: by hand."""

import pytest

from distill_jax.reasoning.programs import normalised, parsed, steps, strip_comments

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


# --- steps ----------------------------------------------------------------------------------------


def parts(program):
    return [group.text for group in steps(program)]


def test_leading_comments_open_steps():
    program = "import math\n# Step 1\nx = 2\ny = 3\n\n# Step 2\n# adds\nz = x + y\n# end\n"
    first, second, third = "import math\n", "# Step 1\nx = 2\ny = 3\n\n", program[34:]
    assert parts(program) == [first, second, third]
    assert third.startswith("# Step 2\n# adds")
    assert [group.line for group in steps(program)] == [1, 2, 6]


def test_without_comments_each_line_with_a_statement_is_a_step():
    program = "x = 2  # two\ny = 3; z = 4\n@f\ndef g():\n    # no step\n    return 1\nprint(x)"
    assert parts(program) == [
        "x = 2  # two\n",
        "y = 3; z = 4\n",
        "@f\ndef g():\n    # no step\n    return 1\n",
        "print(x)",
    ]


def test_a_program_that_begins_with_a_comment_has_no_empty_first_step():
    assert parts("\n# a\nx = 1\n# b\ny = 2") == ["\n# a\nx = 1\n", "# b\ny = 2"]


def test_a_first_line_that_is_continued_opens_the_first_step():
    assert parts("\\\nx = 1\ny = 2") == ["\\\nx = 1\n", "y = 2"]


def test_offsets_are_bytes_and_leave_no_gap():
    program = "s = 'é'\r\nt = '''\n# é\n'''\r\nprint(s)\r\n"
    found, raw = steps(program), program.encode()
    assert [(one.start, one.stop) for one in found] == [(0, 10), (10, 28), (28, len(raw))]
    assert b"".join(raw[one.start : one.stop] for one in found) == raw
    assert [one.line for one in found] == [1, 2, 5]


@pytest.mark.parametrize(
    "program",
    ["x = 1; \\\ny = 2\nprint(x)", "x = 1 + \\\n  2\n# a\nif x:\n    y = 1\nelse: 2\n"],
)
def test_every_prefix_of_steps_parses(program):
    for one in steps(program):
        assert parsed(program.encode()[: one.stop].decode()) is not None


@pytest.mark.parametrize("program", ["x = (", "", "# only\n"])
def test_what_has_no_statement_has_no_steps(program):
    assert steps(program) == []


@pytest.mark.parametrize(
    "text",
    ["(" * 9999, "-" * 19_000 + "1", "1" + "+1" * 9000, "a" + "()" * 9000, "not " * 4000 + "1"],
)
def test_deep_text_does_no_harm(text):
    assert isinstance(normalised(text), str)
    assert strip_comments(text) in (None, text)
    assert len(steps(text)) <= 1
