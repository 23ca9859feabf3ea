import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from tokenizers import pre_tokenizers as pre
from transformers import PreTrainedTokenizerFast

from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.data import synthetic
from distill_jax.data.gguf_tokenizer import tokenizer_of, values_of
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
        ({"tokenizer.ggml.merges": None}, "no list tokenizer.ggml.merges in the file"),
        ({"tokenizer.ggml.tokens": None}, "no list tokenizer.ggml.tokens in the file"),
        ({"tokenizer.ggml.tokens": "1"}, "no list tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": ["1"]}, "merge '1' is of no tokens"),
        ({"tokenizer.ggml.pre": ["qwen2"]}, r"ggml.pre is \['qwen2'\] .*wanted: a text"),
        ({"tokenizer.ggml.tokens": ["a", 5]}, r"tokens\[1\] is 5 .*wanted: a text; fix: take anot"),
        ({"tokenizer.ggml.merges": [["1", "2"]]}, r"merges\[0\] is \['1', '2'\] in"),
        ({"tokenizer.ggml.token_type": 3}, "no list tokenizer.ggml.token_type"),
        ({"tokenizer.ggml.token_type": ["1"] * 448}, r"token_type\[0\] is '1' .*a whole number"),
        ({"tokenizer.ggml.eos_token_id": "5"}, "eos_token_id is '5' in .*whole number, 0 or more"),
        ({"tokenizer.ggml.bos_token_id": 5.0}, "bos_token_id is 5.0"),
        ({"tokenizer.ggml.padding_token_id": -1}, "padding_token_id is -1"),
        ({"tokenizer.ggml.unknown_token_id": True}, "unknown_token_id is True"),
        ({"tokenizer.ggml.add_bos_token": "no"}, "add_bos_token is 'no' .*wanted: true or false"),
        ({"tokenizer.chat_template": 5}, "tokenizer.chat_template is 5 in"),
    ],
)
def test_other_tokenizers_are_named(change, says):
    with pytest.raises(CheckpointError, match=says):
        tokenizer_of({**VALUES, **change})


def test_a_row_without_a_token_between_others():
    """The tokenizer's size would end before the last token, which could never be drawn."""
    with pytest.raises(CheckpointError, match="13 tokens of the file have ids up to 13"):
        made("smollm", **{"tokenizer.ggml.token_type": [1] * 12 + [5, 3]})


# --- written -------------------------------------------------------------------------------------


def again(tokenizer, rows=448):
    """Through the JSON of a file's values, as a file holds them."""
    return tokenizer_of(json.loads(json.dumps(values_of(tokenizer, rows))))


def test_values_are_those_of_the_converter():
    found = values_of(TRAINED, 448)
    assert {key: found[key] for key in VALUES} == VALUES
    assert found.keys() - VALUES.keys() == {"tokenizer.ggml.add_bos_token"}
    assert found["tokenizer.ggml.add_bos_token"] is False


WRITTEN = again(TRAINED)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_what_is_written_reads_texts_the_same_way(text):
    assert WRITTEN(text)["input_ids"] == TRAINED(text)["input_ids"]


@pytest.mark.parametrize("family", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_each_family_is_recognised(family):
    tokenizer = made(family, **{"tokenizer.ggml.eos_token_id": 13})
    values = values_of(tokenizer, 20)
    assert values["tokenizer.ggml.pre"] == family
    check_same_tokenizer(again(tokenizer, 20), tokenizer)
    for text in ("a 12", "A'll", "a<s>a", "aA"):
        assert again(tokenizer, 20)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_added_words_without_a_role_and_a_first_token():
    tokenizer, count = again(TRAINED), len(TRAINED)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    tokenizer.add_special_tokens({"bos_token": "<|start|>"})
    values = values_of(tokenizer, count + 3)
    assert values["tokenizer.ggml.token_type"][count:] == [4, 3, 5]
    assert values["tokenizer.ggml.bos_token_id"] == count + 1
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", count + 1)]
    )
    assert values_of(tokenizer, count + 3)["tokenizer.ggml.add_bos_token"] is True
    found = again(tokenizer, count + 3)
    read = found("<think>a")["input_ids"]
    assert read == tokenizer("<think>a")["input_ids"] and read[:2] == [count + 1, count]
    assert found.bos_token == "<|start|>"


def test_the_end_is_the_one_that_the_sampler_waits_for():
    tokenizer = again(TRAINED)
    tokenizer.eos_token = "<|endoftext|>"  # as a base model names it
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert values_of(tokenizer, 448)["tokenizer.ggml.eos_token_id"] == end


def test_chat_templates():
    tokenizer = again(TRAINED)
    tokenizer.chat_template = {"default": "a", "tool_use": "b"}
    assert values_of(tokenizer, 448)["tokenizer.chat_template"] == "a"
    tokenizer.chat_template = None
    assert "tokenizer.chat_template" not in values_of(tokenizer, 448)


def wrapped(model, **parts):
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.ByteLevel()
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<s>")


BPE = {"vocab": {text: i for i, text in enumerate(PIECES)}, "merges": [("1", "2")]}
LEVEL = pre.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        (
            wrapped(models.WordPiece(BPE["vocab"], unk_token="a"), pre_tokenizer=LEVEL),
            "model WordPiece with decoder ByteLevel .*wanted: byte-level BPE; fix: use --merged",
        ),
        (
            wrapped(models.BPE(**BPE), decoder=decoders.ByteFallback(), pre_tokenizer=LEVEL),
            "decoder ByteFallback",
        ),
        (
            wrapped(models.BPE(**BPE), pre_tokenizer=pre.ByteLevel(add_prefix_space=True)),
            'splits texts by .*"add_prefix_space": true.*wanted: .* of one of gpt-2, smollm, qwen2',
        ),
        (wrapped(models.BPE(**BPE), pre_tokenizer=pre.Whitespace()), "Whitespace"),
        (
            wrapped(models.BPE(**BPE), pre_tokenizer=LEVEL, normalizer=normalizers.Lowercase()),
            "normalizer, split and merges",
        ),
        (
            wrapped(models.BPE(**BPE, ignore_merges=True), pre_tokenizer=LEVEL),
            "normalizer, split and merges",
        ),
    ],
)
def test_tokenizers_that_no_file_holds(tokenizer, says):
    with pytest.raises(ConfigError, match=says):
        values_of(tokenizer, 20)


def test_tokens_and_texts_that_no_file_holds():
    plain = wrapped(models.BPE(**BPE), pre_tokenizer=LEVEL)
    assert values_of(plain, 14)["tokenizer.ggml.pre"] == "gpt-2"
    with pytest.raises(ConfigError, match="14 tokens with ids up to 13 for 13 embedding rows"):
        values_of(plain, 13)
    with pytest.raises(ConfigError, match="without merges .*wanted: one at least, as llama.cpp"):
        values_of(wrapped(models.BPE(BPE["vocab"], []), pre_tokenizer=LEVEL), 14)
    holed = {**BPE, "vocab": {**BPE["vocab"], "Ġ1": 15}}
    with pytest.raises(ConfigError, match="15 tokens with ids up to 15 .*wanted: ids without a"):
        values_of(wrapped(models.BPE(**holed), pre_tokenizer=LEVEL), 20)
    strips = wrapped(models.BPE(**BPE), pre_tokenizer=LEVEL)
    strips.add_tokens([AddedToken("<mask>", lstrip=True)])
    with pytest.raises(ConfigError, match="token '<mask>' takes in the white space"):
        values_of(strips, 20)
    closed = wrapped(models.BPE(**BPE), pre_tokenizer=LEVEL)
    closed.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <s>", special_tokens=[("<s>", 13)]
    )
    with pytest.raises(ConfigError, match=r"makes \[3, 13\] of a text with the tokens \[3\]"):
        values_of(closed, 20)
