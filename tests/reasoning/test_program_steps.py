"""Where the steps of a program begin: by hand, by Python's parser, of every prefix, on tokens."""

import ast
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import decoders

from distill_jax.data import synthetic_programs
from distill_jax.data import tokenizer as tokenizers
from distill_jax.data.fences import fenced
from distill_jax.data.synthetic_programs import Story
from distill_jax.reasoning import program_steps, steps
from distill_jax.reasoning.steps import Format
from tests.sentence_piece import sentence_piece

PROGRAM = Format("program")
STORIES = [Story("Tom", "pens", 12, [("+", 5), ("-", 3)]), Story("Ann", "cards", 4, [("+", 2)])]
STYLED = [
    fenced("\n".join(style(story)))
    for style in synthetic_programs.STYLES.values()
    for story in STORIES
]


def parts(text: str) -> list[str]:
    """The steps of a completion's text."""
    return steps.split_text(text, PROGRAM)


def of_program(program: str) -> list[str]:
    """The steps of a program alone: its fence's lines are of the first and of the last."""
    opening, closing = "```python\n", "\n```"
    first, *rest = parts(f"{opening}{program}{closing}")
    found = [first.removeprefix(opening), *rest]
    assert found[-1].endswith(closing)
    return [*found[:-1], found[-1].removesuffix(closing)]


@pytest.mark.parametrize(
    "found",
    [
        # Without comments each line with a top-level statement.
        ["x = 2  # two\n", "y = 3; z = 4\n",
         "@f\n# no step\ndef g():\n    # no step\n    return 1\n",
         "print(x)"],
        # A comment opens a step, and from there on nothing else does.
        ["import math\n", "import sympy\n", "# Step 1\nx = 2\ny = 3\n\n",
         "# Step 2\n# adds\nz = x + y\n# end"],
        ["\n# a\nx = 1\ny = 2\n", "# b\nz = 3"],
        # Statements of many lines; other clauses of a statement; comments inside it.
        ["x = (1 +\n2)\n",
         "if x:\n    y = 1\n# still\nelif y:\n    y = 2\nelse:\n    y = 3\n", "z = 1"],
        ["try:\n    x = 1\nexcept E:\n    x = 2\nfinally:\n    x = 3\n", "elsewhere = 1"],
        ["x = 1 + \\\n2\n",
         "for i in [\n0,\n1\n]:\n    x += i\n# in the loop\n    x += 1\n", "print(x)"],
        ["s = '''\n# a\nb = 1\n'''\n", 't = """\nc\\"""\nd"""\n', "u = '\\'#'\n", "print(s)"],
        ["s = r'\\'  # '\n", "x = 'open\n", "y = 1\r\n", "\tz\r\n", "w = 1"],
        # A syntax error moves no other step, but an open bracket or string holds the rest.
        ["x = = 1\n", "y = 2"],
        ["a = 1\n", "x = (1\ny = 2\nz = 3"],
        ["a = 1\n", "x = '''1\ny = 2\nz = 3"],
        ["x = 1)\n", "y = 2"],
        ["# only a comment"],
        ["é = 'ß'\n", "print(é)"],
    ],
)  # fmt: skip
def test_steps_by_hand(found: list[str]) -> None:
    joined = [*found]
    if "\tz\r\n" in joined:  # an indented line belongs to the statement above
        place = joined.index("\tz\r\n")
        joined[place - 1 : place + 1] = ["".join(joined[place - 1 : place + 1])]
    assert of_program("".join(found)) == joined


@pytest.mark.parametrize(
    "found",
    [
        ["So:\n```python\nx = 1\n", "print(x)\n```\nIt prints 1."],
        ["no program at all\n\nin two paragraphs"],
        ["```\nx = 1\ny = 2\n```"],
        ["```python\n```"],
        ["```python\nx = 1\n", "y = (\n"],
        ["<think>\n```python\na = 1\nb = 2\n```\n</think>\n```py\nx = 1\n", "print(x)\n```"],
        # Each program; what stands between two belongs to the second.
        ["```python\nx = 1\n", "y = 2\n```\n",
         "No:\n```python\n# a\nx = 1\ny = 3\n", "# b\nprint(x)\n```"],
        # Backticks inside, and a line that would open another fence.
        ["````python\nx = '''\n```\n'''\n", "y = 1\n````"],
        ["```python\nx = 1\n```python\n", "y = 2\n```"],
    ],
)  # fmt: skip
def test_text_around_programs(found: list[str]) -> None:
    assert parts("".join(found)) == found


def by_parser(program: str) -> list[str]:
    """The same from Python's parser and all lines at once."""
    tree, lines = ast.parse(program), program.splitlines(keepends=True)
    cuts, commented, last = [0], False, 0
    for number, statement in enumerate(tree.body):
        gap = range(last, statement.lineno - 1)
        comments = [line for line in gap if lines[line].startswith("#")]
        if number and (comments or not commented) and statement.lineno > last:
            cuts.append(comments[0] if comments else statement.lineno - 1)
        commented = commented or bool(comments)
        last = statement.end_lineno or 0
    cuts.append(len(lines))
    return ["".join(lines[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]


@pytest.mark.parametrize("text", STYLED)
def test_embedded_programs_split_as_the_parser_says(text: str) -> None:
    program = text.removeprefix("```python\n").removesuffix("\n```")
    found = of_program(program)
    assert found == by_parser(program) and "".join(found) == program
    for count in range(1, len(found) + 1):
        ast.parse("".join(found[:count]))


WRITTEN = [
    *STYLED[::3],
    "So\n```python\nimport math\n@f\ndef g():\n  return 1\nif g():\n  x = 1\nelse:\n  x = 2\n"
    "# é\ny = '''\n#```\n'''\nz = [\n1]\n```\nor\n```python\nx = 1\nprint(x)\n```\nso 1",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_the_steps_of_a_prefix_are_those_of_the_whole(text: str) -> None:
    whole = [one.place for one in program_steps.begins(text)]
    for length in range(len(text)):
        found = program_steps.begins(text[:length])
        sure = [one.place for one in found if one.sure]
        assert sure == whole[: len(sure)] and len(found) <= len(sure) + 1
    assert all(one.sure for one in program_steps.begins(text))


# --- tokens ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tok():
    return tokenizers.train_tokenizer([*WRITTEN, *STYLED] * 4, 400)


def ids(tok, text: str) -> list[int]:
    return tok.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("text", WRITTEN)
def test_tokens_split_as_the_text(tok, text: str) -> None:
    found = [*ids(tok, text), tokenizers.eos_id(tok)]
    split = steps.split_tokens(tok, found, PROGRAM)
    assert [tok.decode(one.tokens).strip("\n") for one in split] == [
        part.strip("\n") for part in parts(text)
    ]
    assert split[-1].stop == len(found) - 1
    # Every step's own tokens, in order, and nothing between them but blanks and EOS.
    kept = [index for one in split for index in one.tokens]
    between = [index for index in found if index not in kept]
    assert not tok.decode(between, skip_special_tokens=True).strip()


@pytest.mark.parametrize("text", WRITTEN)
def test_a_beam_ends_where_the_whole_has_its_steps(tok, text: str) -> None:
    found = [*ids(tok, text), tokenizers.eos_id(tok)]
    wanted = [one.stop + 1 for one in steps.split_tokens(tok, found, PROGRAM)]
    written, stops = 0, []
    while written < len(found):
        new = found[written:]
        for count in range(1, len(new) + 1):  # a segment of one token at a time
            kept = steps.next_step(tok, found[:written], new[:count], PROGRAM)
            if kept is not None:
                break
        else:
            kept = len(new)
        assert kept > 0
        written += kept
        stops.append(written)
    assert stops == wanted


def test_a_boundary_within_a_token_belongs_to_the_token() -> None:
    pieces = ["```python\n", "x", " = 1\ny", " = 2\nz = 3\nprint", "(x)\n```"]
    letters = [piece.replace("\n", "Ċ").replace(" ", "Ġ") for piece in pieces]
    tok: Any = SimpleNamespace(
        backend_tokenizer=SimpleNamespace(decoder=decoders.ByteLevel()),
        added_tokens_decoder={},
        convert_ids_to_tokens=lambda ids: [letters[index] for index in ids],
    )
    split = steps.split_tokens(tok, range(5), PROGRAM)
    # z's line begins and ends within the fourth token, with y's: it is no step of its own.
    assert [one.tokens for one in split] == [[0, 1, 2], [3], [4]]
    assert [one.stop for one in split] == [2, 3, 4]
    assert steps.step_of_tokens(split, 6) == [0, 0, 0, 1, 2, 2]
    # A token that ends where a step does is the step's last one.
    letters[2:] = ["Ġ=Ġ1Ċ", "yĠ=Ġ2Ċz", "Ċ```"]
    assert [one.stop for one in steps.split_tokens(tok, range(5), PROGRAM)] == [2, 3, 4]


def test_steps_of_a_sentencepiece_tokenizer_and_of_torn_letters(tok) -> None:
    other = sentence_piece(["```python", "x = 1", "print ( x )"] * 3)
    text = "```python\nx = 1\nprint ( x )\n```"
    split = steps.split_tokens(other, ids(other, text), PROGRAM)
    assert [other.decode(one.tokens).strip() for one in split] == [
        "```python\nx = 1", "print ( x )\n```",
    ]  # fmt: skip
    # A completion cut within a letter: half of it is no character.
    torn = ids(tok, "```python\nx = 1\ny = 'ж'")[:-1]
    while tok.decode(torn)[-1] != "\ufffd":
        torn.pop()
    assert [len(one.tokens) > 0 for one in steps.split_tokens(tok, torn, PROGRAM)] == [True, True]
    # Or that goes on behind the half: what follows keeps its place.
    half = [*torn, *ids(tok, "'\nz = 3\nprint(z)\n```")]
    texts = [tok.decode(one.tokens).strip() for one in steps.split_tokens(tok, half, PROGRAM)]
    assert texts == ["```python\nx = 1", "y = '\ufffd'", "z = 3", "print(z)\n```"]
