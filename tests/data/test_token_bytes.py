"""Bytes of tokens: joined they are the text, and letters without a merge fall apart."""

import unicodedata

import pytest

from distill_jax.data.token_bytes import token_bytes
from distill_jax.data.tokenizer import train_tokenizer
from tests.sentence_piece import sentence_piece


@pytest.fixture(scope="module")
def tok():
    return train_tokenizer(["How many hats? 6 hats.\n"] * 3, 300)


def ids(tok, text):
    return tok(text, add_special_tokens=False)["input_ids"]


def test_every_byte_of_every_text_comes_back(tok):
    # All one-byte and two-byte letters, and some of three and four bytes: every possible byte
    # of UTF-8 but 0xf5..0xff, which no text has.
    ranges = [range(0x800), range(0x800, 0xD800, 97), range(0xE000, 0x110000, 97)]
    text = "".join(chr(code) for codes in ranges for code in codes)
    text = unicodedata.normalize("NFC", text)
    raw = token_bytes(tok, ids(tok, text))
    assert b"".join(raw) == text.encode()
    assert len({byte for part in raw for byte in part}) == 243  # 0xc0, 0xc1 are in none either


def test_letters_fall_apart_and_specials_stand_for_themselves(tok):
    raw = token_bytes(tok, ids(tok, " hats€\n<|im_end|>"))
    assert raw[-5:] == [b"\xe2", b"\x82", b"\xac", b"\n", b"<|im_end|>"]
    assert b"".join(raw[:-5]) == b" hats" and len(raw) < 10  # merged


def test_bytes_that_no_text_has(tok):
    known = tok.get_vocab()
    # In the alphabet of byte-level BPE printable bytes are their own Latin-1 letters.
    assert token_bytes(tok, [known["ÿ"], known["õ"]]) == [b"\xff", b"\xf5"]
    assert token_bytes(tok, []) == []


def test_the_sentencepiece_form():
    tok = sentence_piece(["Step 1: 2 + 3 = 5 ки", "Step 2"] * 3)
    raw = token_bytes(tok, ids(tok, "Step 1: é\n€"))
    assert raw[:2] == [b" Step", b" 1:"] and len(raw) == 9
    # The space before a text is the tokenizer's own.
    assert b"".join(raw) == " Step 1: é\n€".encode()
    assert raw[3:6] == [b"\xc3", b"\xa9", b"\n"]
    assert token_bytes(tok, [1, 3 + 0xFF, tok.get_vocab()["▁ки"]]) == [
        b"<s>", b"\xff", " ки".encode(),
    ]  # fmt: skip
