"""GGUF files read by transformers' own reader: the same logits as of the directory written here."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from distill_jax.models.hf_io import load_hf
from launch import get_model
from tests.models.gguf_files import CONFIGS, random_tensors, write_gguf
from tests.parity.torch_models import jax_logits, random_tokens, torch_logits
from tests.stages.hf import tokenizer


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
@pytest.mark.parametrize("case", CONFIGS)
def test_logits(tmp_path, case, kind):
    config, tok = CONFIGS[case], tokenizer()
    if case == "qwen3":  # the size that transformers' reader takes, whatever the file says
        config = dataclasses.replace(config, head_dim=128)
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
