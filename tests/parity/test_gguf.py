"""GGUF files in transformers' own reader: the logits of our directory, and of our own files."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_jax.data.gguf_tokenizer import values_of
from distill_jax.models.gguf_write import save_gguf
from distill_jax.models.hf_io import load_hf
from launch import get_model
from tests.models.gguf_files import CONFIGS, base_of, halved, random_tensors, write_gguf
from tests.parity.torch_models import jax_logits, random_tokens, torch_logits
from tests.stages.hf import tokenizer

# Heads of the size that transformers' reader takes for qwen3, whatever the file says.
WRITTEN = {
    **CONFIGS,
    "qwen3": dataclasses.replace(CONFIGS["qwen3"], head_dim=128),
    "qwen2_untied": dataclasses.replace(CONFIGS["qwen2"], tie_embeddings=False),
}


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
@pytest.mark.parametrize("case", CONFIGS)
def test_logits(tmp_path, case, kind):
    config, tok = WRITTEN[case], tokenizer()
    tensors = random_tensors(config)
    file = write_gguf(tmp_path / "model.gguf", config, tensors, tokenizer=tok, kind=kind)
    get_model.convert(file, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    )
    tokens_BT = random_tokens(2, 24, vocab=len(tok))
    want = torch_logits(model.eval(), tokens_BT)
    assert np.abs(want).max() > 1.0
    got = jax_logits(*load_hf(tmp_path / "model"), tokens_BT)
    assert np.abs(got - want).max() <= 1e-4 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("case", WRITTEN)
def test_logits_of_a_file_written_here(tmp_path, case):
    """Against our own of the same rounded weights."""
    config, tok = WRITTEN[case], tokenizer()
    tensors = random_tensors(config)
    save_gguf(
        tmp_path / "model.gguf", config, base_of(config, tensors), values_of(tok, config.vocab_size)
    )
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager"
    )
    tokens_BT = random_tokens(2, 24, vocab=len(tok))
    theirs = torch_logits(model.eval(), tokens_BT)
    ours = jax_logits(config, base_of(config, halved(tensors)), tokens_BT)
    assert np.abs(ours).max() > 1.0
    assert np.abs(theirs - ours).max() <= 1e-4 * max(1.0, np.abs(ours).max())
    found = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in ("How many pens are 2 and 13?", "<|im_start|>user\nWhat's 7?<|im_end|>\n"):
        assert found(text)["input_ids"] == tok(text)["input_ids"]
