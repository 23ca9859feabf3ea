"""Tokens on the page: classes by hand, hidden letters, letters of several tokens."""

import math

import pytest

from distill_jax.report import tokens
from distill_jax.report.tokens import stored_text


def token(raw, reward=-1.0):
    return {**stored_text(raw), "reward": reward, "q": 2.0, "value": 2.0 - reward, "logp": -0.25}


@pytest.mark.parametrize(
    ("reward", "alpha", "wanted"),
    [
        # exp(r/α): 1, .905, .819, .368, .135, .0183, .0067
        (0.0, 1.0, "t0"), (-0.1, 1.0, "t0"), (-0.2, 1.0, "t1"), (-1.0, 1.0, "t2"),
        (-2.0, 1.0, "t3"), (-4.0, 1.0, "t4"), (-5.0, 1.0, "t5"), (-2000.0, 1.0, "t5"),
        (-0.2, 2.0, "t0"), (-0.1, 0.5, "t1"),
    ],
)  # fmt: skip
def test_colours_go_by_the_teachers_probability(reward, alpha, wanted):
    assert tokens.colour(reward, alpha) == wanted


def test_the_legend_has_a_line_for_every_colour():
    legend = tokens.legend(2.0)
    assert [swatch.colour for swatch in legend] == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert legend[0][1:] == ("0.9 to 1", f"{2 * math.log(0.9):.2f} to 0.00")
    assert legend[2][1:] == ("0.2 to 0.5", "-3.22 to -1.39")
    assert legend[5][1:] == ("below 0.01", "below -9.21")


def test_what_is_hidden_is_shown():
    shown = tokens.visible("a\n\tb\x00\u202e\u200bé 5")
    assert shown == "a↵\n⇥\tb\\u0000\\u202e\\u200bé 5"


def test_figures_and_their_line():
    said = tokens.title(token(b"x", -math.log(4)), 1.0)
    assert said == (
        "r -1.386, teacher's probability 0.25, Q 2.000, V 3.386, writer's log-probability -0.250"
    )
    assert tokens.number(-0.0001) == "0.000" and tokens.number(-0.0006) == "-0.001"


@pytest.mark.parametrize(
    ("parts", "shown", "joined"),
    [
        ([b"ab", b" c"], ["ab", " c"], ["", ""]),
        # The euro's three bytes, in two tokens, the first with a letter before them.
        ([b"a\xe2", b"\x82\xac", b"!"], [r"a\xe2", r"\x82\xac", "!"], ["", "a€", ""]),
        # Two letters one after the other, each of two tokens.
        ([b"\xc3", b"\xa9", b"\xc3", b"\xa8"], [r"\xc3", r"\xa9", r"\xc3", r"\xa8"],
         ["", "é", "", "è"]),
        # A byte that never becomes a letter does not swallow what follows.
        ([b"\xe2", b"\xc3", b"\xa9"], [r"\xe2", r"\xc3", r"\xa9"], ["", "", "é"]),
        ([b"\xe2", b"x", b"\x82"], [r"\xe2", "x", r"\x82"], ["", "", ""]),
        ([b"\xff"], [r"\xff"], [""]),
    ],
)  # fmt: skip
def test_letters_of_several_tokens(parts, shown, joined):
    cells = tokens.cells([token(raw) for raw in parts], 1.0)
    assert [cell.shown for cell in cells] == shown
    assert [cell.joined for cell in cells] == joined
    raw = ["raw" in cell.colour.split() for cell in cells]
    assert raw == ["\\" in text for text in shown]
    assert [tokens.raw_bytes(token(part)) for part in parts] == parts
