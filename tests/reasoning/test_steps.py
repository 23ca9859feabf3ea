"""Splitting and encoding steps: on text, on tokens, without tokenising again."""

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.reasoning import steps
from distill_jax.reasoning.steps import Encoded, Format, StepSettings
from tests.sentence_piece import sentence_piece

LINES, PARAGRAPHS = Format(), Format(separator="\n\n")
TEXTS = ["2+3=5.\n\nSo 5*2=10.\n\n#### 10", "one two three\n", "a b\n\nc d\n\n"] * 8


@pytest.fixture(scope="module")
def tok():
    return tokenizers.train_tokenizer(TEXTS, 300)


def ids(tok, text):
    return tok.encode(text, add_special_tokens=False)


def test_a_separator_inside_a_token_ends_the_step(tok):
    found = ids(tok, "2+3=5.\n\nSo 5*2=10.\n\n#### 10")
    split = [step.tokens for step in steps.split_tokens(tok, found, PARAGRAPHS)]
    assert [tok.decode(one).strip() for one in split] == ["2+3=5.", "So 5*2=10.", "#### 10"]
    # every token but line breaks between steps is kept as it was, in order
    kept = [one for one in found if tok.decode([one]).strip("\n")]
    assert [one for step in split for one in step] == kept


@pytest.mark.parametrize("text", ["a b\n\n\n\nc d\n\n", "\n\na b\n\nc d", "a b\n\n \n\nc d"])
def test_blank_steps_are_none(tok, text):
    split = [step.tokens for step in steps.split_tokens(tok, ids(tok, text), PARAGRAPHS)]
    assert [tok.decode(one).strip() for one in split] == steps.split_text(text, PARAGRAPHS)
    assert len(split) == 2


def test_a_separator_over_two_tokens(tok):
    line = ids(tok, "a\n")
    end = ids(tok, "\n")
    assert len(steps.split_tokens(tok, [*line, *end, *ids(tok, "c")], PARAGRAPHS)) == 2
    # one line break of the last step and one of this are no separator
    joined = [*ids(tok, "a\n\n"), *end, *ids(tok, "c\nd")]
    assert len(steps.split_tokens(tok, joined, PARAGRAPHS)) == 2


@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_the_first_step_ends_where_the_whole_says(tok, separator):
    text = "\n\na b\n\n\n\nc d.\n e\n\n \n\n#### 10"
    found = [*ids(tok, text), tokenizers.eos_id(tok)]
    how, left, parts = Format(separator=separator), found, []

    def written():
        return [one for part in parts for one in part]

    while (stop := steps.next_step(tok, written(), left, how)) is not None:
        # One token less, and no step has ended.
        assert steps.next_step(tok, written(), left[: stop - 1], how) is None
        parts, left = [*parts, left[:stop]], left[stop:]
    parts.append(left)
    split = [steps.split_tokens(tok, part, how) for part in parts]
    assert [len(one) for one in split] == [1] * len(parts)
    assert [one.tokens for (one,) in split] == [
        one.tokens for one in steps.split_tokens(tok, found, how)
    ]
    # Blank ones and EOS end none.
    assert steps.next_step(tok, [], [*ids(tok, "\n\n\n\n"), found[-1]], how) is None


def test_special_tokens_are_no_part_of_a_step(tok):
    with_eos = [*ids(tok, "a b\nc"), tokenizers.eos_id(tok)]
    found = steps.split_tokens(tok, with_eos, LINES)
    assert [s.tokens for s in found] == [
        s.tokens for s in steps.split_tokens(tok, with_eos[:-1], LINES)
    ]
    assert found[-1].stop == len(with_eos) - 1
    assert steps.split_tokens(tok, [tokenizers.eos_id(tok)], LINES) == []


def test_text_and_tokens_agree_where_separators_are_tokens(tok):
    text = "a b\nc d\none two"
    apart = steps.tokenise(tok, steps.split_text(text, LINES))
    assert [step.tokens for step in steps.split_tokens(tok, ids(tok, text), LINES)] == apart


def test_every_token_belongs_to_a_step(tok):
    found = ids(tok, "\n\na b\n\n\n\nc d\n\n")
    split = steps.split_tokens(tok, found, PARAGRAPHS)
    of = steps.step_of_tokens(split, len(found) + 2)
    assert len(split) == 2 and of == sorted(of) and set(of) == {0, 1}
    assert len(of) == len(found) + 2
    # a token of the second step is not given to the first
    assert of[split[0].stop] == 0 and of[split[0].stop + 1] == 1
    assert steps.step_of_tokens([], 3) == [0, 0, 0]


def test_encode():
    found = steps.encode([1, 2], [[3], [4, 5]], 9, 100)
    assert found == Encoded([1, 2, 3, 9, 4, 5, 9], [3, 6], 0, 2)
    assert [found.tokens[end] for end in found.ends] == [9, 9]


@pytest.mark.parametrize(("limit", "ends", "dropped"), [(7, [3, 6], 0), (6, [3], 1), (3, [], 2)])
def test_steps_beyond_the_limit_are_dropped_whole(limit, ends, dropped):
    found = steps.encode([1, 2], [[3], [4, 5]], 9, limit)
    assert (found.ends, found.dropped) == (ends, dropped)
    assert len(found.tokens) <= max(limit, 2)


def test_step_token(tok):
    assert tok.decode([steps.step_token_id(tok, "\n")]) == "\n"
    assert steps.step_token_id(tok, "<|im_end|>") == tokenizers.eos_id(tok)
    with pytest.raises(ConfigError, match=r"steps\.token='<extra_0>' is \d+ tokens"):
        steps.step_token_id(tok, "<extra_0>")
    with pytest.raises(ConfigError, match=r"steps\.separator is empty"):
        StepSettings(separator="")
    with pytest.raises(ConfigError, match=r"steps\.split='lines'; wanted: one of text, program"):
        StepSettings(split="lines")
    with pytest.raises(ConfigError, match=r"separator=.* with split=program; wanted: split=text"):
        StepSettings(split="program", separator="\n\n")
    with pytest.raises(ConfigError, match="labels.split=program with task=text; wanted: task=prog"):
        Format("program").check_task("text", "labels.split")
    with pytest.raises(DataError, match="step 1 is blank"):
        steps.tokenise(tok, ["a", " \n"])


def test_half_a_surrogate_pair_in_a_step_is_a_replacement_character(tok):
    found = steps.tokenise(tok, ["a \ud83d", "\ud83d\ude00"])
    assert found == steps.tokenise(tok, ["a \ufffd", "\U0001f600"])


def test_steps_of_a_sentencepiece_tokenizer():
    tok = sentence_piece(["Step 1: 2+3=5 ки", "Step 2"] * 3)
    found = ids(tok, "Step 1: 2+3=5\n\n Step 2")
    texts = [tok.decode(step.tokens) for step in steps.split_tokens(tok, found, PARAGRAPHS)]
    assert texts == ["Step 1: 2+3=5", "Step 2"]
    assert steps.step_token_id(tok, "ки") == tok.get_vocab()["▁ки"]
    # The space before each text makes two tokens of a line break.
    with pytest.raises(ConfigError, match=r"2 tokens.*'▁', '<0x0A>'.*not of Mistral"):
        steps.step_token_id(tok, "\n")
