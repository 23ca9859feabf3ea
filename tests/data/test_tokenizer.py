import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import CheckpointError, ConfigError, TokenizerMismatchError
from distill_jax.data import synthetic
from distill_jax.data.tokenizer import (
    CHAT_TEMPLATE,
    check_same_tokenizer,
    eos_id,
    load_tokenizer,
    pad_id,
    save_tokenizer,
    train_tokenizer,
)

TEXTS = synthetic.texts(synthetic.ProblemSettings(), 0, 300)


def pieces(tok, text):
    return [tok.decode([index]) for index in tok(text)["input_ids"]]


def test_digits_stand_alone_and_words_carry_their_space(tok):
    assert pieces(tok, "Tom has 23 pens") == ["Tom", " has", " ", "2", "3", " pens"]
    assert pieces(tok, "<<23+4=27>>\n#### 27") == (
        ["<<", "2", "3", "+", "4", "=", "2", "7", ">>\n", "####", " ", "2", "7"]
    )


def test_specials_are_the_last_ids_and_one_token_each(tok):
    size = len(tok)
    assert size <= 512
    ids = tok.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    assert ids == [size - 3, size - 2, size - 1]
    assert (pad_id(tok), eos_id(tok)) == (size - 3, size - 1)
    assert tok("a<|im_end|>")["input_ids"] == [*tok("a")["input_ids"], size - 1]


@given(text=st.text())
def test_every_text_survives(tok, text):
    wanted = unicodedata.normalize("NFC", text)
    ids = tok(text)["input_ids"]
    assert tok.decode(ids) == wanted
    assert all(0 <= index < len(tok) for index in ids)


def test_training_is_deterministic_and_bounded():
    first, second = train_tokenizer(TEXTS, 300), train_tokenizer(TEXTS, 300)
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert len(first) == 300
    with pytest.raises(ConfigError, match="259"):
        train_tokenizer(TEXTS, 258)


def test_saved_and_loaded_it_is_the_same(tok, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"stays")
    save_tokenizer(tok, tmp_path)
    again = load_tokenizer(tmp_path)
    check_same_tokenizer(tok, again)
    assert again.chat_template == CHAT_TEMPLATE
    assert (pad_id(again), eos_id(again)) == (pad_id(tok), eos_id(tok))
    for text in [*TEXTS[:20], "Grüße, 世界 <|im_start|>user\n"]:
        assert again(text)["input_ids"] == tok(text)["input_ids"]
    assert (tmp_path / "model.safetensors").read_bytes() == b"stays"
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_loading_does_not_import_torch(tok, tmp_path):
    save_tokenizer(tok, tmp_path)
    code = (
        "import sys; from distill_jax.data.tokenizer import load_tokenizer; "
        "load_tokenizer(sys.argv[1]); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=120)
    assert done.returncode == 0


def test_a_chat_model_without_template_gets_chatml(tok, tmp_path):
    save_tokenizer(tok, tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("chat_template", None)
    file.write_text(json.dumps(config))
    assert load_tokenizer(tmp_path).chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize("content", [None, "{", "{}", "[]", '{"version": "1.0"}'])
def test_a_missing_or_damaged_tokenizer_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "nothing" if content is None else tmp_path)


def test_different_tokenizers_are_refused_by_their_first_difference(tok):
    other = train_tokenizer([text.replace("pens", "keys") for text in TEXTS], 512)
    with pytest.raises(TokenizerMismatchError, match=r"token \d+ is '.*' to the teacher"):
        check_same_tokenizer(other, tok)
    longer = train_tokenizer(synthetic.texts(synthetic.ProblemSettings(), 0, 2000), 512)
    longer.add_tokens(["<think>"])
    with pytest.raises(TokenizerMismatchError, match=f"token {len(tok)} is '<think>' to the teac"):
        check_same_tokenizer(longer, tok)


def test_same_vocabulary_with_other_merges_is_refused(tok, tmp_path):
    save_tokenizer(tok, tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    merges = content["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    file.write_text(json.dumps(content))
    with pytest.raises(TokenizerMismatchError, match="merge 0"):
        check_same_tokenizer(load_tokenizer(tmp_path), tok)
