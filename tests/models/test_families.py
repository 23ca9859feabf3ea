"""Llama and Mistral directories: what config.json may say there, and what it may not."""

import dataclasses

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.models.qwen_config import FULL, SLIDING, QwenConfig
from distill_jax.models.rope_scaling import Llama3Scaling
from tests.models.parameters import parameter_count
from tests.models.test_qwen_config import HF

LLAMA = {**HF, "architectures": ["LlamaForCausalLM"], "model_type": "llama"}
MISTRAL = {
    **HF, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None,
}  # fmt: skip
SCALED = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize("values", [LLAMA, MISTRAL], ids=["llama", "mistral"])
def test_neither_biases_nor_norms(values):
    config = QwenConfig.from_hf(values)
    assert (config.qkv_bias, config.qk_norm, config.head_dim) == (False, False, 8)
    assert config.layer_types == (FULL,) * 3 and config.windows == (None,) * 3
    # Qwen2 of this shape has q, k and v biases of 4·8, 2·8 and 2·8 in each of 3 layers.
    assert parameter_count(QwenConfig.from_hf(HF)) - parameter_count(config) == 3 * 64
    assert QwenConfig.from_hf({**values, "head_dim": 6}).head_dim == 6


def test_a_window_of_mistral_is_of_every_layer():
    # Without the switch that Qwen has; Math-Shepherd's config.json has window 4096.
    config = QwenConfig.from_hf({**MISTRAL, "sliding_window": 5})
    assert (config.layer_types, config.windows) == ((SLIDING,) * 3, (5,) * 3)


def test_what_transformers_takes_where_config_json_is_silent():
    usual = dict(MISTRAL)
    for name in ("sliding_window", "num_key_value_heads", "max_position_embeddings"):
        del usual[name]
    # Mistral's defaults: 8 kv heads, window 4096, 131,072 positions.
    found = QwenConfig.from_hf({**usual, "num_attention_heads": 16})
    assert (found.num_kv_heads, found.sliding_window) == (8, 4096)
    assert found.max_position_embeddings == 131072
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (1, 2, None)
    llama = {k: v for k, v in LLAMA.items() if k in ("model_type", "architectures") or "_size" in k}
    llama |= {"num_hidden_layers": 1, "num_attention_heads": 4}
    found = QwenConfig.from_hf(llama)
    assert (found.num_kv_heads, found.max_position_embeddings) == (4, 2048)
    assert (found.bos_token_id, found.eos_token_id) == (1, 2)
    # A window means nothing in Llama.
    assert QwenConfig.from_hf({**LLAMA, "sliding_window": 5}).windows == (None,) * 3


@pytest.mark.parametrize(
    "values",
    [
        LLAMA,
        {**LLAMA, "rope_scaling": SCALED, "eos_token_id": [1, 2]},
        {**LLAMA, "rope_parameters": {"rope_theta": 7.0, **SCALED}, "tie_word_embeddings": False},
        MISTRAL,
        {**MISTRAL, "sliding_window": 5, "head_dim": 16},
    ],
)
def test_out_and_back(values):
    config = QwenConfig.from_hf(values)
    out = config.to_hf()
    assert QwenConfig.from_hf(out) == config
    assert (out["model_type"], out["architectures"]) == (
        values["model_type"], values["architectures"],
    )  # fmt: skip
    # What the type does not know transformers would ignore, or warn of.
    assert not {"use_sliding_window", "layer_types", "max_window_layers"} & out.keys()
    assert ("sliding_window" in out) == (values["model_type"] == "mistral")


def test_llama3_scaling_in_either_place():
    old = QwenConfig.from_hf({**LLAMA, "rope_scaling": SCALED})
    assert old.rope_scaling == Llama3Scaling(8.0, 64, 1.0, 4.0) and old.rope_theta == 5000.0
    new = {**SCALED, "rope_theta": 5000.0}
    assert QwenConfig.from_hf({**LLAMA, "rope_parameters": new}) == old
    del new["original_max_position_embeddings"]
    found = QwenConfig.from_hf({**LLAMA, "rope_parameters": new}).rope_scaling
    assert found.original_max_position_embeddings == LLAMA["max_position_embeddings"]


@pytest.mark.parametrize(
    ("values", "change", "says"),
    [
        (LLAMA, {"attention_bias": True}, "attention_bias=True; wanted: a Llama model without"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias=True"),
        (MISTRAL, {"attention_bias": True}, "attention_bias=True; wanted: a Mistral model"),
        (LLAMA, {"hidden_act": "gelu"}, "gelu"),
        (LLAMA, {"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM.* for llama"),
        (LLAMA, {"model_type": "mixtral"}, "mixtral.*fix: .*Llama or Mistral"),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear.*yarn or llama3"),
        (LLAMA, {"rope_scaling": {**SCALED, "factor": None}}, "factor=None"),
        (LLAMA, {"rope_scaling": {**SCALED, "low_freq_factor": 4.0}}, "low_freq_factor=4.0"),
        (LLAMA, {"layer_types": [SLIDING] * 3}, "layer_types=.*full_attention in every layer"),
        (
            MISTRAL,
            {"layer_types": [SLIDING, FULL, FULL], "sliding_window": 5},
            "layer_types=.*sliding_attention in every layer",
        ),
        (MISTRAL, {"sliding_window": 0}, "sliding_window=0"),
    ],
)
def test_what_cannot_be_built_is_named(values, change, says):
    with pytest.raises(ConfigError, match=says):
        QwenConfig.from_hf({**values, **change})


def test_windows_that_have_no_way_out():
    config = QwenConfig.from_hf({**MISTRAL, "sliding_window": 5})
    mixed = dataclasses.replace(config, layer_types=(FULL, SLIDING, SLIDING))
    with pytest.raises(ConfigError, match=r"mistral with layer_types=\('full.*wanted: \('slid"):
        mixed.to_hf()
    llama = QwenConfig.from_hf(LLAMA)
    windowed = dataclasses.replace(llama, sliding_window=5, layer_types=(SLIDING,) * 3)
    with pytest.raises(ConfigError, match="llama with layer_types=.*full_attention"):
        windowed.to_hf()
