"""Text as tokens come: nothing is taken back, stop strings end it wherever they are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.serving.texts import Text


class Bytes:
    """A tokenizer with a token a byte; 0 is special."""

    def decode(self, tokens, skip_special_tokens):
        assert skip_special_tokens
        return bytes(one for one in tokens if one).decode("utf-8", "replace")


def run(text: str, stops=(), size=1, end=()):
    """(pieces, whether it was stopped) of a text that comes in parts of so many bytes."""
    raw, made = [*text.encode(), *end], Text(Bytes(), stops)
    parts = [raw[i : i + size] for i in range(0, len(raw), size)]
    out = [made.add(part, last=i + 1 == len(parts)) for i, part in enumerate(parts)]
    return [piece.text for piece in out], made.stopped


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("text", "stops", "wanted"),
    [
        ("plain text", (), "plain text"),
        ("één 漢字 🙂 end", (), "één 漢字 🙂 end"),
        ("Answer: 7\n\nQuestion: more", ("\n\nQuestion:",), "Answer: 7"),
        ("a b c d", ("c", "b"), "a "),
        ("almost STO", ("STOP",), "almost STO"),
        ("aaab", ("aab",), "a"),
        ("x🙂y", ("🙂",), "x"),
        ("stop at once", ("stop",), ""),
        ("no stop", ("", "zzz"), "no stop"),
        # The first letter of a stop string has come, the next one in part.
        ("a\n日b", ("\n日",), "a"),
        ("x🙂🙂", ("🙂🙂",), "x"),
        # The one that is whole first, not the one that begins first.
        ("abcd", ("bcd", "c"), "ab"),
    ],
)
def test_text_up_to_the_first_stop(text, stops, wanted, size):
    pieces, stopped = run(text, stops, size)
    assert "".join(pieces) == wanted
    assert stopped == (wanted != text)
    assert not any("�" in piece for piece in pieces)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="ab\né日🙂", max_size=10),
    stops=st.lists(st.text(alphabet="ab\né日🙂", min_size=1, max_size=3), max_size=2),
    sizes=st.lists(st.integers(1, 5), min_size=40, max_size=40),
)
def test_how_tokens_are_grouped_changes_nothing(text, stops, sizes):
    raw, one, other, taken = list(text.encode()), Text(Bytes(), stops), Text(Bytes(), stops), []
    for i, token in enumerate(raw):
        if not one.stopped:
            taken.append(one.add([token], last=i + 1 == len(raw)))
    found, start = [], 0
    for size in sizes:
        if start < len(raw) and not other.stopped:
            found.append(other.add(raw[start : start + size], last=start + size >= len(raw)))
            start += size
    assert "".join(p.text for p in found) == "".join(p.text for p in taken)
    assert one.stopped == other.stopped == any(stop in text for stop in stops)
    assert sum(p.taken for p in found) == len(taken)


def test_text_comes_as_soon_as_it_is_sure():
    pieces, _ = run("ab STOx", ("STOP",))
    assert pieces == ["a", "b", " ", "", "", "", "STOx"]
    assert run("é!")[0] == ["", "é", "!"]


def test_what_is_broken_at_the_end_is_shown():
    made = Text(Bytes())
    assert made.add([0xC3]).text == "" and made.add([], last=True).text == "�"
    assert run("done", end=[0])[0][-1] == ""
