"""Tokens of AutoTokenizer and of tokenizer.json, for tokenizers that transformers rebuilds."""

import os

import pytest

from distill_jax.data.chat import ChatSettings
from distill_jax.data.tokenizer import load_tokenizer, train_tokenizer
from distill_jax.handover.auto_tokenizer import difference
from tests.handover.byte_level import TEXT, byte_level_tokenizer

QWEN = os.environ.get("QWEN_TOKENIZER", "")


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_the_split_of_qwen_is_the_same_for_all(kind):
    found = train_tokenizer([TEXT] * 20, 400)
    assert difference(found, {"model_type": kind}, ChatSettings()) == ""


def test_a_plain_byte_level_split_is_lost_as_qwen2_alone():
    tokenizer = byte_level_tokenizer()
    found = difference(tokenizer, {"model_type": "qwen2"}, ChatSettings())
    assert "makes a Qwen2Tokenizer" in found and "'Natalia sold 7 clips" in found
    for kind in ("qwen3", "llama"):
        assert difference(tokenizer, {"model_type": kind}, ChatSettings()) == ""
    assert difference(tokenizer, {}, ChatSettings()) == ""  # as next to an adapter


@pytest.mark.real
@pytest.mark.skipif(not QWEN and "REAL" not in os.environ, reason="no QWEN_TOKENIZER")
@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_qwens_own_tokenizer_is_read_the_same(kind):
    assert difference(load_tokenizer(QWEN), {"model_type": kind}, ChatSettings()) == ""
