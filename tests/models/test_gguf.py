"""GGUF files of every architecture, written here as llama.cpp's converter writes them."""

import dataclasses
import sys

import gguf
import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError, MissingExtraError
from distill_jax.models import gguf_model
from distill_jax.models.gguf_file import GgufFile
from distill_jax.models.layers import rope_frequencies
from distill_jax.models.rope_scaling import Llama3Scaling, YarnConfig
from tests.models.gguf_files import CONFIGS, random_tensors, tensors_of, write_gguf

EPS = 1e-5


@pytest.fixture
def write(tmp_path):
    def written(case="llama", **other):
        config = CONFIGS[case]
        tensors = other.pop("tensors", None) or random_tensors(config)
        return GgufFile(write_gguf(tmp_path / "model.gguf", config, tensors, **other)), tensors

    return written


@pytest.mark.parametrize("case", CONFIGS)
def test_geometry_and_weights_come_back(write, case):
    file, tensors = write(case)
    config = gguf_model.config_of(file)
    # Whether a special token is named is the tokenizer's part.
    assert dataclasses.replace(config, bos_token_id=None, eos_token_id=None) == CONFIGS[case]
    found = tensors_of(config, gguf_model.base_of(file, config))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "bound"), [("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 0.02), ("Q4_1", 0.3)]
)
def test_quantised_weights_are_near(write, kind, bound):
    file, tensors = write("llama", kind=kind)
    found = tensors_of(CONFIGS["llama"], gguf_model.base_of(file, gguf_model.config_of(file)))
    worst = max(np.abs(found[name] - tensor).max() for name, tensor in tensors.items())
    assert 0 < worst < bound


def test_rows_of_llama_are_interleaved_in_the_file(write):
    # By hand: a head of 4 rows 0 1 | 2 3 is stored as 0 2 | 1 3.
    file, tensors = write("llama")
    name = "model.layers.0.self_attn.q_proj.weight"
    stored, half = file.read("blk.0.attn_q.weight"), 8
    np.testing.assert_array_equal(stored[1], tensors[name][half])
    np.testing.assert_array_equal(stored[2], tensors[name][1])


def test_scaling_of_llama3_is_found_from_its_factors(write, tmp_path):
    scaling = Llama3Scaling(32.0, 8192)
    plain = np.asarray(rope_frequencies(CONFIGS["llama"]))
    scaled = np.asarray(
        rope_frequencies(dataclasses.replace(CONFIGS["llama"], rope_scaling=scaling))
    )
    file, _ = write(extra={"rope_freqs.weight": (plain / scaled).astype(np.float32)})
    assert gguf_model.config_of(file).rope_scaling == scaling
    (tmp_path / "model.gguf").unlink()
    file, _ = write(extra={"rope_freqs.weight": np.linspace(1, 3, 8, dtype=np.float32)})
    with pytest.raises(CheckpointError, match="rope_freqs.weight.* of no scaling known"):
        gguf_model.config_of(file)


def test_yarn_and_what_is_usual(write):
    keys = {
        "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 32, "rope.freq_base": None, "expert_count": 0,
        "attention.key_length": None, "attention.value_length": None,
    }  # fmt: skip
    config = gguf_model.config_of(write("qwen2", keys=keys)[0])
    assert config.rope_scaling == YarnConfig(4.0, 32)
    assert (config.rope_theta, config.head_dim, config.rms_norm_eps) == (10_000.0, 16, EPS)
    assert not config.qk_norm and config.qkv_bias


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keys": {"expert_count": 8}}, "llama.expert_count=8"),
        ({"keys": {"attention.sliding_window": 64}}, "llama.attention.sliding_window=64"),
        ({"keys": {"attention.head_count": [4, 2]}}, "head_count=.4, 2.*every layer"),
        ({"keys": {"block_count": None}}, "no llama.block_count"),
        ({"keys": {"block_count": 10**9}}, "block_count=1000000000 in .* with 20 tensors"),
        ({"keys": {"attention.head_count": "4"}}, "head_count='4' in .*wanted: a number"),
        ({"keys": {"rope.freq_base": "10k"}}, "freq_base='10k' in .*wanted: a number"),
        ({"keys": {"rope.dimension_count": 8}}, "heads of 16 with .*rope.dimension_count"),
        ({"keys": {"rope.scaling.type": "linear"}}, "'linear'.*yarn or llama3"),
        # What llama.cpp takes where no type is named.
        ({"keys": {"rope.scaling.factor": 4.0}}, "'linear'.*yarn or llama3"),
        (
            {
                "keys": {
                    "rope.scaling.type": "yarn",
                    "rope.scaling.factor": 4.0,
                    "rope.scaling.original_context_length": 32,
                },
                "extra": {"rope_freqs.weight": np.full(8, 8, np.float32)},
            },
            "rope_freqs.weight and a scaling of type 'yarn'",
        ),
        ({"keys": {"embedding_length": 63}}, "token_embd.weight.* has shape .320, 64.; wanted"),
        (
            {"extra": {"blk.0.ffn_gate_inp.weight": np.ones((2, 64), np.float32)}},
            "unexpected blk.0.ffn_gate_inp",
        ),
    ],
)
def test_what_cannot_be_held_is_named(write, change, says):
    file, _ = write("llama", **change)
    with pytest.raises(CheckpointError, match=says):
        gguf_model.base_of(file, gguf_model.config_of(file))


@pytest.mark.parametrize(
    "keys",
    [{"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, {"rope.scaling.factor": 1.0}],
)
def test_a_factor_without_effect(write, keys):
    assert gguf_model.config_of(write("llama", keys=keys)[0]).rope_scaling is None


def test_missing_tensors_and_other_architectures(write, tmp_path):
    tensors = random_tensors(CONFIGS["llama"])
    del tensors["model.layers.1.mlp.up_proj.weight"]
    file, _ = write("llama", tensors=tensors)
    with pytest.raises(CheckpointError, match="missing blk.1.ffn_up.weight"):
        gguf_model.base_of(file, gguf_model.config_of(file))
    out = gguf.GGUFWriter(tmp_path / "other.gguf", "gemma2")
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    with pytest.raises(CheckpointError, match="'gemma2'; wanted: .*llama, qwen2, qwen3"):
        gguf_model.config_of(GgufFile(tmp_path / "other.gguf"))


def test_files_that_are_not_whole(write, tmp_path):
    with pytest.raises(CheckpointError, match="no file"):
        GgufFile(tmp_path / "none.gguf")
    path = write("llama")[0].path
    whole = path.read_bytes()
    for size in (0, 3, 200, len(whole) - 1000):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="cut short"):
            GgufFile(path)
    path.write_bytes(b"PK" + whole)
    with pytest.raises(CheckpointError, match="cannot read"):
        GgufFile(path)


def test_parts_and_types_that_gguf_does_not_read(write, monkeypatch, tmp_path):
    file, _ = write("llama")
    monkeypatch.setattr(gguf, "dequantize", lambda *_: (_ for _ in ()).throw(NotImplementedError))
    with pytest.raises(CheckpointError, match="token_embd.weight.* is stored as F32"):
        file.read("token_embd.weight")
    for number, add in ((3, "add_uint16"), ("3", "add_string")):
        out = gguf.GGUFWriter(tmp_path / f"{add}.gguf", "llama")
        getattr(out, add)("split.count", number)
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()
        with pytest.raises(CheckpointError, match="one of 3 parts.*--merge"):
            GgufFile(tmp_path / f"{add}.gguf")


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"\[gguf\]"):
        GgufFile(tmp_path / "x.gguf")
