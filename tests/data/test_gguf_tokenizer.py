import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.core.errors import CheckpointError
from distill_jax.data import synthetic
from distill_jax.data.gguf_tokenizer import tokenizer_of
from distill_jax.data.tokenizer import check_same_tokenizer, train_tokenizer
from tests.models.gguf_files import tokenizer_values

TRAINED = train_tokenizer(synthetic.texts(synthetic.ProblemSettings(), 0, 300), 400)
VALUES = tokenizer_values(TRAINED, "qwen2", rows=448)
READ = tokenizer_of(VALUES)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_texts_have_the_same_tokens(text):
    assert READ(text)["input_ids"] == TRAINED(text)["input_ids"]


def test_it_is_the_same_tokenizer():
    check_same_tokenizer(READ, TRAINED)
    # Rows 400 to 447 of the embedding are no tokens.
    assert len(READ) == len(TRAINED) < 448
    assert (READ.eos_token, READ.pad_token) == (TRAINED.eos_token, TRAINED.pad_token)
    chat = [{"role": "user", "content": "1 + 1?"}]
    both = [t.apply_chat_template(chat, tokenize=False) for t in (READ, TRAINED)]
    assert both[0] == both[1] and "<|im_start|>user\n1 + 1?" in both[0]
    assert {i: t.special for i, t in READ.added_tokens_decoder.items()} == {
        i: t.special for i, t in TRAINED.added_tokens_decoder.items()
    }


@pytest.mark.parametrize(("name", "type_"), [("spare", 5), ("[PAD430]", 4), ("[PAD430]", 1)])
def test_rows_without_a_token(name, type_):
    texts, types = (list(VALUES[f"tokenizer.ggml.{x}"]) for x in ("tokens", "token_type"))
    texts[430], types[430] = name, type_
    found = {**VALUES, "tokenizer.ggml.tokens": texts, "tokenizer.ggml.token_type": types}
    assert len(tokenizer_of(found)) == len(TRAINED)


# Single bytes, "12" and " 12" as tokens: what a text is split into shows in where they are used.
PIECES = ["1", "2", "Ġ", "a", "A", "'", "l", "12", "Ġ12", "'l", "'ll", "Ċ", "aA", "<s>"]


def made(pre, **values):
    merges = ["1 2", "Ġ 12", "' l", "'l l"]
    return tokenizer_of(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": PIECES,
            "tokenizer.ggml.token_type": [1] * 13 + [3],
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.bos_token_id": 13,
            **values,
        }
    )


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("gpt-2", "a 12", ["a", "Ġ12"]),
        ("smollm", "a 12", ["a", "Ġ", "1", "2"]),  # digits one by one, before the rest is split
        ("qwen2", "a 12", ["a", "Ġ", "1", "2"]),
        ("llama-bpe", "a 12", ["a", "Ġ", "12"]),  # up to three digits
        ("gpt-2", "a'll", ["a", "'ll"]),
        ("smollm", "A'll", ["A", "'ll"]),
        ("llama-bpe", "A'll", ["A", "'ll"]),
        ("smollm", "a<s>a", ["a", "<s>", "a"]),
        ("smollm", "aA", ["a", "A"]),
        ("llama-bpe", "aA", ["aA"]),  # a whole word is its token, whatever the merges make of it
    ],
)
def test_how_each_family_splits(pre, text, pieces):
    assert made(pre).tokenize(text) == pieces


def test_the_first_token_is_added_where_the_file_says_so():
    assert made("smollm")("a")["input_ids"] == [3]
    assert made("smollm", **{"tokenizer.ggml.add_bos_token": True})("a")["input_ids"] == [13, 3]
    # As Llama 3's own tokenizer does, where the file does not say.
    assert made("llama-bpe")("a")["input_ids"] == [13, 3]
    assert made("llama-bpe")("a", add_special_tokens=False)["input_ids"] == [3]
    assert made("smollm").bos_token == "<s>" and made("smollm").eos_token is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokenizer.ggml.model": "llama"}, "'llama' with pre='qwen2'; wanted: byte-level"),
        ({"tokenizer.ggml.pre": "tekken"}, "pre='tekken'.*smollm.*fix: .*Hugging Face"),
        ({"tokenizer.ggml.model": None}, "None with"),
        ({"tokenizer.ggml.token_type": [1]}, "448 tokens with 1 types"),
        ({"tokenizer.ggml.merges": ["1 ~~"]}, "merge '1 ~~' is of no tokens"),
    ],
)
def test_other_tokenizers_are_named(change, says):
    with pytest.raises(CheckpointError, match=says):
        tokenizer_of({**VALUES, **change})


def test_a_row_without_a_token_between_others():
    """The tokenizer's size would end before the last token, which could never be drawn."""
    with pytest.raises(CheckpointError, match="13 tokens of the file have ids up to 13"):
        made("smollm", **{"tokenizer.ggml.token_type": [1] * 12 + [5, 3]})
