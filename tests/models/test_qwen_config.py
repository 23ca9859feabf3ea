"""QwenConfig: what config.json may say, what it may not, and the released geometries."""

import dataclasses
import math

import jax
import pytest
from flax.traverse_util import flatten_dict

from distill_jax.core.errors import ConfigError
from distill_jax.models import hf_layout
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import FULL, SLIDING, QwenConfig
from distill_jax.models.released import PRESETS, released
from distill_jax.models.rope_scaling import YarnConfig
from tests.models.parameters import parameter_count

HF = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 5000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "max_position_embeddings": 128,
}
QWEN3 = {**HF, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 16}

# Numbers of parameters as the model cards and the hub's safetensors index give them; the hub
# counts the tied head of Qwen3 0.6B and 1.7B twice, here it counts once.
PUBLISHED = {
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_32b": 32_763_876_352,
    "qwen2_5_72b": 72_706_203_648,
    "qwen2_5_math_1_5b": 1_543_714_304,
    "qwen2_5_math_7b": 7_615_616_512,
    "qwen2_5_math_72b": 72_706_203_648,
    "qwen3_0_6b": 751_632_384 - 151_936 * 1024,
    "qwen3_1_7b": 2_031_739_904 - 151_936 * 2048,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "qwen3_32b": 32_762_123_264,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name):
    config = PRESETS[name]
    model = QwenModel(config)
    abstract = jax.eval_shape(model.init, jax.random.key(0))["base"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract)) == PUBLISHED[name]
    assert parameter_count(config) == PUBLISHED[name]
    shapes = {leaf.path: leaf.tree_shape for leaf in hf_layout.leaves(config)}
    assert {path: leaf.shape for path, leaf in flatten_dict(abstract).items()} == shapes


def test_a_variant_shares_the_shape_of_its_base():
    for name, config in PRESETS.items():
        base = name.removesuffix("_instruct").removesuffix("_base")
        assert parameter_count(config) == PUBLISHED[base]
    assert len(PRESETS) == 31
    assert PRESETS["qwen2_5_math_7b"].rope_theta == 10_000.0
    assert PRESETS["qwen2_5_math_7b"].max_position_embeddings == 4096
    assert PRESETS["qwen2_5_7b_instruct"].eos_token_id == 151645
    # Teacher and student of one family share tokens, not the number of rows.
    assert PRESETS["qwen2_5_1_5b"].vocab_size + 128 == PRESETS["qwen2_5_7b"].vocab_size


def test_parameter_count_by_hand():
    # D 4, F 6, V 10, one layer, 2 heads of 2, 1 kv head. Embedding 40, norms 4 + 4 + 4,
    # q 16 + 4, k 8 + 2, v 8 + 2, o 16, MLP 3·24: 40 + 12 + 56 + 72 = 180; untied adds 40.
    config = QwenConfig("qwen2", 10, 4, 6, 1, 2, 1, 2)
    assert parameter_count(config) == 180
    assert parameter_count(dataclasses.replace(config, tie_embeddings=False)) == 220
    # Qwen3 has no bias (−8) and two norms of head_dim (+4).
    qwen3 = dataclasses.replace(config, model_type="qwen3", qkv_bias=False, qk_norm=True)
    assert parameter_count(qwen3) == 176


def test_from_hf_reads_both_families():
    config = QwenConfig.from_hf(HF)
    assert (config.head_dim, config.qkv_bias, config.qk_norm) == (8, True, False)
    assert (config.rope_theta, config.rms_norm_eps) == (5000.0, 1e-5)
    assert config.layer_types == (FULL,) * 3 and config.windows == (None,) * 3
    qwen3 = QwenConfig.from_hf(QWEN3)
    assert (qwen3.head_dim, qwen3.qkv_bias, qwen3.qk_norm) == (16, False, True)
    assert hash(config) != hash(qwen3)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}},
        {"rope_theta": 3.0, "rope_parameters": {"rope_theta": 7.0}},  # the newer place wins
        {"rope_theta": 7.0, "rope_parameters": None},
        {"rope_theta": 7.0, "rope_scaling": None},
    ],
)
def test_rope_theta_in_either_place(change):
    values = {key: value for key, value in HF.items() if key != "rope_theta"}
    assert QwenConfig.from_hf({**values, **change}).rope_theta == 7.0
    assert QwenConfig.from_hf(values).rope_theta == 10_000.0


def test_yarn_in_either_place():
    yarn = {"factor": 4.0, "original_max_position_embeddings": 32}
    old = QwenConfig.from_hf({**HF, "rope_scaling": {**yarn, "type": "yarn"}})
    new = {**yarn, "rope_type": "yarn", "rope_theta": 5000.0}
    assert old == QwenConfig.from_hf({**HF, "rope_parameters": new})
    assert old.rope_scaling == YarnConfig(4.0, 32)
    # 0.1·ln 4 + 1 = 0.1·1.386294 + 1
    assert old.rope_scaling.scale == pytest.approx(1.1386294)
    # mscale 2, mscale_all_dim 1: (0.2·1.386294 + 1)/(0.1·1.386294 + 1) = 1.277259/1.138629
    both = {**new, "mscale": 2.0, "mscale_all_dim": 1.0}
    scale = QwenConfig.from_hf({**HF, "rope_parameters": both}).rope_scaling.scale
    assert scale == pytest.approx(1.1217514)


def test_sliding_window_needs_its_switch():
    values = {**HF, "sliding_window": 16, "max_window_layers": 1}
    assert QwenConfig.from_hf(values).windows == (None, None, None)
    config = QwenConfig.from_hf({**values, "use_sliding_window": True})
    assert config.windows == (None, 16, 16)
    kinds = [SLIDING, FULL, SLIDING]
    config = QwenConfig.from_hf({**values, "use_sliding_window": True, "layer_types": kinds})
    assert config.windows == (16, None, 16)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_the_way_out_and_back(name):
    assert QwenConfig.from_hf(PRESETS[name].to_hf()) == PRESETS[name]


def test_yarn_and_windows_survive_the_way_out_and_back():
    config = QwenConfig(
        "qwen3", 10, 4, 6, 3, 2, 1, 6, qkv_bias=False, qk_norm=True, sliding_window=5,
        layer_types=(SLIDING, FULL, SLIDING), eos_token_id=(1, 2),
        rope_scaling=YarnConfig(4.0, 32, attention_factor=1.5, beta_fast=16.0, truncate=False),
    )  # fmt: skip
    assert QwenConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}, "Phi3ForCausalLM"),
        ({"model_type": "qwen2_moe"}, "qwen2_moe"),
        ({"model_type": None}, "model_type=None"),
        ({"architectures": ["Qwen2ForRewardModel"]}, "Qwen2ForRewardModel"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_parameters": {FULL: {"rope_theta": 1.0}}}, "layer type"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"hidden_size": None}, "hidden_size=None"),
        ({"num_key_value_heads": 3}, "num_kv_heads=3"),
        ({"num_key_value_heads": "2"}, "num_key_value_heads='2'"),
        ({"head_dim": 7}, "head_dim=7"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": [SLIDING] * 3}, "use_sliding_window"),
    ],
)
def test_what_cannot_be_built_is_named(change, says):
    with pytest.raises(ConfigError, match=says):
        QwenConfig.from_hf({**HF, **change})


def test_biases_of_qwen3_are_refused():
    with pytest.raises(ConfigError, match="attention_bias"):
        QwenConfig.from_hf({**QWEN3, "attention_bias": True})


def test_a_mixed_family_has_no_way_out():
    config = dataclasses.replace(QwenConfig.from_hf(HF), qk_norm=True)
    with pytest.raises(ConfigError, match="qk_norm=True"):
        config.to_hf()


def test_hub_ids_name_their_geometry():
    assert released("Qwen/Qwen2.5-32B-Instruct") == PRESETS["qwen2_5_32b_instruct"]
    assert released("Qwen/Qwen2.5-Math-7B") == PRESETS["qwen2_5_math_7b"]
    assert released("Qwen/Qwen3-0.6B-Base") == PRESETS["qwen3_0_6b_base"]
    for other in ("Qwen2.5-7B", "somebody/Qwen2.5-7B", "Qwen/Qwen2.5-8B", "runs/tiny/model", ""):
        assert released(other) is None
