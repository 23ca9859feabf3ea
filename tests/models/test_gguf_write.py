"""Models written as GGUF files: our own reader gives them back, rounded to float16."""

import dataclasses
import errno
import sys

import gguf
import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError, ConfigError, MissingExtraError
from distill_jax.models import gguf_model
from distill_jax.models.gguf_file import GgufFile
from distill_jax.models.gguf_write import save_gguf
from distill_jax.models.layers import rope_frequencies
from distill_jax.models.rope_scaling import Llama3Scaling, YarnConfig
from tests.models.gguf_files import (
    CONFIGS,
    base_of,
    halved,
    random_tensors,
    tensors_of,
    write_gguf,
)

YARN = YarnConfig(4.0, 32, beta_fast=8.0, beta_slow=2.0)
LLAMA3 = Llama3Scaling(32.0, 8192)


def changed(case, **values):
    return dataclasses.replace(CONFIGS[case], **values)


CASES = {
    **CONFIGS,
    "qwen2_untied": changed("qwen2", tie_embeddings=False),
    "qwen2_yarn": changed("qwen2", rope_scaling=YARN),
    "llama_yarn": changed("llama", rope_scaling=YARN),
    "llama_llama3": changed("llama", rope_scaling=LLAMA3),
    # Other contexts and other ends of the blend than those of the released models.
    "llama_llama3_short": changed("llama", rope_scaling=Llama3Scaling(8.0, 64)),
    "llama_llama3_ends": changed("llama", rope_scaling=Llama3Scaling(8.0, 640, 0.5, 9.0)),
}


@pytest.fixture
def saved(tmp_path):
    def write(config, tensors=None, **about):
        base = base_of(config, tensors or random_tensors(config))
        save_gguf(tmp_path / "model.gguf", config, base, {"tokenizer.ggml.model": "gpt2"}, about)
        return GgufFile(tmp_path / "model.gguf")

    return write


@pytest.mark.parametrize("case", CASES)
def test_our_reader_gives_it_back_rounded_once(saved, case):
    config, tensors = CASES[case], random_tensors(CASES[case])
    file = saved(config, tensors)
    found = gguf_model.config_of(file)
    assert dataclasses.replace(found, rope_scaling=None) == dataclasses.replace(
        config, rope_scaling=None
    )
    for ours, read in zip(rope_frequencies(config), rope_frequencies(found), strict=True):
        assert ours == pytest.approx(read, rel=1e-6)
    again = tensors_of(found, gguf_model.base_of(file, found))
    assert again.keys() == tensors.keys()
    for name, tensor in halved(tensors).items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_tensors_and_keys_are_those_of_the_converter(saved, tmp_path, case):
    """Against the files of tests/models/gguf_files.py, which follow convert_hf_to_gguf.py."""
    config = CASES[case]
    wanted = GgufFile(write_gguf(tmp_path / "other.gguf", config, random_tensors(config)))
    found = saved(config, **{"general.name": "mine"})
    extra = {"rope_freqs.weight"} if "llama3" in case else set()
    assert found.shapes.keys() == wanted.shapes.keys() | extra
    for name, shape in wanted.shapes.items():
        half = wanted.read(name).astype(np.float16 if len(shape) > 1 else np.float32)
        np.testing.assert_array_equal(found.read(name), half.astype(np.float32), err_msg=name)
    for key, value in wanted.values.items():
        if not key.startswith("GGUF."):
            assert found.values[key] == value, key
    assert found.values["general.name"] == "mine" and found.values["general.file_type"] == 1
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(found.path).tensors}
    assert {kind for name, kind in kinds.items() if len(found.shapes[name]) > 1} == {"F16"}
    assert {kind for name, kind in kinds.items() if len(found.shapes[name]) == 1} == {"F32"}


def test_yarn_is_named_as_llama_cpp_reads_it(saved):
    values = saved(CASES["qwen2_yarn"]).values
    assert {
        key.removeprefix("qwen2.rope.scaling."): value
        for key, value in values.items()
        if ".scaling." in key
    } == {
        "type": "yarn", "factor": 4.0, "original_context_length": 32, "yarn_beta_fast": 8.0,
        "yarn_beta_slow": 2.0,
    }  # fmt: skip


def test_a_scaling_of_another_context_is_written_as_factors(saved):
    """By hand: pairs that turn less than once over 64 positions are stretched 8 times."""
    config = changed("llama", rope_scaling=Llama3Scaling(8.0, 64))
    factors = saved(config).read("rope_freqs.weight")
    turns = 64 / (2 * np.pi) * 10_000.0 ** -(np.arange(8) / 8)
    assert turns[0] > 4 and (factors[turns > 4] == 1).all()
    assert factors[turns < 1] == pytest.approx(8.0) and (np.diff(factors) >= -1e-6).all()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (changed("qwen2", model_type="mistral", qkv_bias=False), "'mistral' for a GGUF file"),
        (
            changed("qwen2", sliding_window=8, layer_types=("full_attention", "sliding_attention")),
            "sliding_window=8 for a GGUF file; wanted: full attention in every layer; fix: use --m",
        ),
        (
            changed("qwen2", head_dim=32),
            "4 heads of 32 .*wanted: .* make up its width, 64",
        ),
        (changed("qwen2", rope_scaling=LLAMA3), "llama3 in qwen2.*llama alone"),
        (
            changed("qwen3", rope_scaling=dataclasses.replace(YARN, truncate=False)),
            "truncate=False",
        ),
        (
            changed("llama", rope_scaling=dataclasses.replace(YARN, attention_factor=1.3)),
            r"attention_factor=1.3 .*wanted: 0.1·ln\(factor\) \+ 1 = 1.139",
        ),
    ],
)
def test_what_it_cannot_hold_is_named(saved, tmp_path, config, says):
    with pytest.raises(ConfigError, match=says):
        saved(config)
    assert not list(tmp_path.iterdir())


def test_an_attention_factor_that_is_the_usual_one(saved):
    scaling = dataclasses.replace(YARN, attention_factor=YARN.scale)  # as config.json names it
    found = gguf_model.config_of(saved(changed("qwen2", rope_scaling=scaling)))
    assert found.rope_scaling == YARN


@pytest.mark.parametrize("weight", [65_520.0, -1e6, np.inf, np.nan])
def test_weights_beyond_float16_leave_the_older_file(saved, tmp_path, weight):
    config, tensors = CONFIGS["qwen2"], random_tensors(CONFIGS["qwen2"])
    before = saved(config, tensors).path.read_bytes()
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = weight
    with pytest.raises(ConfigError, match="blk.1.ffn_up.weight has a weight of size .*65504"):
        saved(config, tensors)
    assert (tmp_path / "model.gguf").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = 65_504.0
    assert saved(config, tensors).read("blk.1.ffn_up.weight")[3, 4] == 65_504.0


def test_a_disk_that_fills_up_under_the_tensors_says_so(saved, tmp_path, monkeypatch):
    described = gguf.GGUFWriter.write_ti_data_to_file

    def then_full(self):
        described(self)
        self.fout[0].close()
        self.fout = [open("/dev/full", "wb")]

    monkeypatch.setattr(gguf.GGUFWriter, "write_ti_data_to_file", then_full)
    with pytest.raises(OSError, match="No space left") as full:
        saved(CONFIGS["qwen2"])
    assert full.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_large_norms_keep_their_digits(saved):
    tensors = random_tensors(CONFIGS["qwen2"])
    tensors["model.norm.weight"][5] = 70_001.0
    tensors["model.layers.0.self_attn.q_proj.bias"][5] = 70_001.0
    file = saved(CONFIGS["qwen2"], tensors)
    assert file.read("output_norm.weight")[5] == file.read("blk.0.attn_q.bias")[5] == 70_001.0


def test_another_models_tree_and_no_package(saved, tmp_path, monkeypatch):
    base = base_of(CONFIGS["llama"], random_tensors(CONFIGS["llama"]))
    with pytest.raises(CheckpointError, match="q_proj/bias"):
        save_gguf(tmp_path / "x.gguf", CONFIGS["qwen2"], base, {})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"\[gguf\]"):
        saved(CONFIGS["llama"])
    assert not list(tmp_path.iterdir())
