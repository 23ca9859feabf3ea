"""Logits of random checkpoints equal transformers': max |Δlogit| ≤ 1e-4 in float32."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM

from distill_jax.core.errors import CheckpointError
from distill_jax.models.hf_io import load_config, load_hf, save_hf
from distill_jax.models.qwen import QwenModel
from tests.parity.torch_models import (
    CASES,
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    jax_logits,
    load_torch,
    old_style_rope,
    random_model,
    random_tokens,
    rope,
    torch_logits,
)  # fmt: skip

BOUND = 1e-4
TIME = 24  # longer than the YaRN cases' original context (16) and the window (5)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Directory and transformers model of every case, written once."""
    made = {}
    for name, (family, values) in CASES.items():
        model = random_model(family, values)
        made[name] = (tmp_path_factory.mktemp(name), model)
        model.save_pretrained(made[name][0])
    return made


def check(got, want, valid_BT=None):
    assert np.abs(want).max() > 1.0  # logits of a model that does something
    difference = np.abs(got - want)
    if valid_BT is not None:
        difference = difference[valid_BT]
    assert difference.max() <= BOUND, difference.max()


@pytest.mark.parametrize("case", CASES)
def test_logits(checkpoints, case):
    directory, model = checkpoints[case]
    config, base = load_hf(directory)
    tokens_BT = random_tokens(3, TIME)
    check(jax_logits(config, base, tokens_BT), torch_logits(model, tokens_BT))


@pytest.mark.parametrize("case", CASES)
def test_padding_with_different_lengths(checkpoints, case):
    directory, model = checkpoints[case]
    config, base = load_hf(directory)
    tokens_BT = random_tokens(4, TIME)
    valid_BT = np.arange(TIME) < np.array([24, 17, 3, 1])[:, None]
    positions_BT = np.maximum(np.cumsum(valid_BT, axis=1) - 1, 0)
    want = torch_logits(model, tokens_BT, valid_BT=valid_BT, positions_BT=positions_BT)
    check(jax_logits(config, base, tokens_BT), want, valid_BT)  # no mask: causality hides padding


@pytest.mark.parametrize("case", CASES)
def test_positions_past_8000(checkpoints, case):
    directory, model = checkpoints[case]
    config, base = load_hf(directory)
    tokens_BT = random_tokens(2, TIME)
    positions_BT = np.stack([np.arange(TIME) + 8192, np.arange(TIME) + 30_000])
    want = torch_logits(model, tokens_BT, positions_BT=positions_BT)
    check(jax_logits(config, base, tokens_BT, positions_BT=positions_BT), want)


@pytest.mark.parametrize("theta", [10_000.0, 1e6])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_positions_past_8000_at_the_released_head_sizes(tmp_path, theta, head_dim):
    # A frequency that is one rounding step off turns by 5e-4 rad too much at 8,192.
    family, values = QWEN3
    few = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = random_model(family, {**values, **rope(theta), **few, "head_dim": head_dim})
    model.save_pretrained(tmp_path)
    config, base = load_hf(tmp_path)
    tokens_BT = random_tokens(2, TIME)
    positions_BT = np.stack([np.arange(TIME) + 8192, np.arange(TIME) + 30_000])
    want = torch_logits(model, tokens_BT, positions_BT=positions_BT)
    check(jax_logits(config, base, tokens_BT, positions_BT=positions_BT), want)


def test_a_whole_sequence_past_8000(tmp_path):
    # One attention head keeps the 8,200 × 8,200 scores of the other side at 270 MB.
    family, values = QWEN2
    one = {"num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1}
    values = {**values, **one, "hidden_size": 16, "intermediate_size": 16}
    model = random_model(family, values)
    model.save_pretrained(tmp_path)
    config, base = load_hf(tmp_path)
    tokens_BT = random_tokens(1, 8200)
    check(jax_logits(config, base, tokens_BT)[:, -64:], torch_logits(model, tokens_BT)[:, -64:])


@pytest.mark.parametrize(
    "case", ["qwen2_theta", "qwen2_yarn", "qwen3_yarn", "llama_yarn", "llama_llama3"]
)
def test_rope_in_the_older_place(checkpoints, case, tmp_path):
    _, model = checkpoints[case]
    model.save_pretrained(tmp_path)
    new = load_config(tmp_path)
    old_style_rope(tmp_path)
    assert "rope_parameters" not in json.loads((tmp_path / "config.json").read_text())
    config, base = load_hf(tmp_path)
    assert config == new
    tokens_BT = random_tokens(2, TIME)
    check(jax_logits(config, base, tokens_BT), torch_logits(model, tokens_BT))


@pytest.mark.parametrize(("case", "kept"), [("qwen2_theta", 37.0), ("qwen3_tied", 1e6)])
def test_rope_theta_matters(checkpoints, case, kept):
    # The trap of a neighbour: theta ignored. A wrong one must be far outside the bound.
    directory, model = checkpoints[case]
    config, base = load_hf(directory)
    assert config.rope_theta == kept
    tokens_BT = random_tokens(2, TIME)
    wrong = jax_logits(dataclasses.replace(config, rope_theta=500.0), base, tokens_BT)
    assert np.abs(wrong - torch_logits(model, tokens_BT)).max() > 0.01


def test_scalings_and_windows_matter(checkpoints):
    tokens_BT = random_tokens(2, TIME)
    plain = {
        "qwen2_yarn": {"rope_scaling": None},
        "qwen3_window": {"layer_types": ()},
        "llama_yarn": {"rope_scaling": None},
        "llama_llama3": {"rope_scaling": None},
        "mistral_window": {"layer_types": ()},
    }
    for case, change in plain.items():
        directory, model = checkpoints[case]
        config, base = load_hf(directory)
        wrong = jax_logits(dataclasses.replace(config, **change), base, tokens_BT)
        assert np.abs(wrong - torch_logits(model, tokens_BT)).max() > 0.01


@pytest.mark.parametrize("family", [QWEN2, QWEN3, LLAMA, MISTRAL], ids=lambda one: one[0])
def test_logits_of_order_one(tmp_path, family):
    model = random_model(*family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.0 if "norm" in name else 0.3)
    model.save_pretrained(tmp_path)
    tokens_BT = random_tokens(2, TIME)
    want = torch_logits(model, tokens_BT)
    assert 0.1 < np.abs(want).max() < 2.5  # where a float32 step is 2e-7
    assert np.abs(jax_logits(*load_hf(tmp_path), tokens_BT) - want).max() <= 1e-5


@pytest.mark.parametrize("family", [QWEN2, QWEN3])
def test_sharded_checkpoint_of_transformers(tmp_path, family):
    model = random_model(*family)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    config, base = load_hf(tmp_path)
    tokens_BT = random_tokens(2, TIME)
    check(jax_logits(config, base, tokens_BT), torch_logits(model, tokens_BT))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_export_loads_with_equal_logits(checkpoints, case, shard_bytes, tmp_path):
    directory, model = checkpoints[case]
    config, base = load_hf(directory)
    save_hf(tmp_path / "out", config, base, max_shard_bytes=shard_bytes)
    shards = list((tmp_path / "out").glob("*.safetensors"))
    assert (len(shards) > 1) == (shard_bytes == 20_000)
    again = load_torch(tmp_path / "out")
    tokens_BT = random_tokens(2, TIME)
    # The same weights in the same program: not close, equal.
    want = torch_logits(model, tokens_BT)
    np.testing.assert_array_equal(torch_logits(again, tokens_BT), want)
    assert (type(again), again.config.model_type) == (type(model), config.model_type)
    assert set(again.state_dict()) == set(model.state_dict())


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_made_here_loads_in_transformers(tmp_path, tied, checkpoints):
    config = load_config(checkpoints["qwen3_tied" if tied else "qwen2_untied"][0])
    base = QwenModel(config).init(jax.random.key(1))["base"]
    # Fresh weights give logits near zero, and biases of exactly zero hide a wrong place.
    rng = np.random.default_rng(0)
    noise = jax.tree.map(lambda x: 0.2 * rng.standard_normal(x.shape, np.float32), base)
    base = jax.tree.map(np.add, base, noise)
    save_hf(tmp_path / "out", config, base)
    model = load_torch(tmp_path / "out")
    tokens_BT = random_tokens(2, TIME)
    check(jax_logits(config, base, tokens_BT), torch_logits(model, tokens_BT))


def test_gemma_is_refused(tmp_path):
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = GemmaConfig(vocab_size=11, num_attention_heads=2, num_key_value_heads=2, **small)
    GemmaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="GemmaForCausalLM.*wanted: Qwen2ForCausalLM"):
        load_hf(tmp_path)


def test_bfloat16_checkpoint(checkpoints, tmp_path):
    directory, _ = checkpoints["qwen3_untied"]
    half = load_torch(directory).to(torch.bfloat16)
    half.save_pretrained(tmp_path)
    config, base = load_hf(tmp_path)
    tokens_BT = random_tokens(2, TIME)
    # Loaded anew: `half.float()` would keep rope frequencies that were rounded to bfloat16.
    check(jax_logits(config, base, tokens_BT), torch_logits(load_torch(tmp_path), tokens_BT))
