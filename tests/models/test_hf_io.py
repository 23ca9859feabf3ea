"""Hugging Face directories in and out, and the ways in which one can be broken."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from distill_jax.core.errors import CheckpointError
from distill_jax.core.sharding import MeshSettings, make_mesh, shardings
from distill_jax.models import hf_io, safetensor_files
from distill_jax.models.hf_io import load_config, load_hf, model_dir, save_hf
from distill_jax.models.qwen import QwenModel, logical_axes
from distill_jax.models.qwen_config import FAMILIES, QwenConfig
from tests.models.parameters import parameter_count

pytestmark = pytest.mark.mesh

D, F, V, L, HEADS, KV, HEAD = 8, 12, 20, 2, 2, 1, 4


def write_checkpoint(path: Path, family: str = "qwen2", tied: bool = True, **change):
    """A checkpoint written by hand: names and shapes as transformers stores them."""
    config = {
        "architectures": [f"{family.capitalize()}ForCausalLM"], "model_type": family,
        "vocab_size": V, "hidden_size": D, "intermediate_size": F, "num_hidden_layers": L,
        "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD,
        "tie_word_embeddings": tied, "rope_theta": 100.0, **change,
    }  # fmt: skip
    q, kv = HEADS * HEAD, KV * HEAD
    shapes = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,)}
    for i in range(L):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (D,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (D,)
        shapes[f"{layer}.self_attn.q_proj.weight"] = (q, D)
        shapes[f"{layer}.self_attn.k_proj.weight"] = (kv, D)
        shapes[f"{layer}.self_attn.v_proj.weight"] = (kv, D)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (D, q)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (F, D)
        shapes[f"{layer}.mlp.up_proj.weight"] = (F, D)
        shapes[f"{layer}.mlp.down_proj.weight"] = (D, F)
        if family == "qwen2":
            for name, size in (("q", q), ("k", kv), ("v", kv)):
                shapes[f"{layer}.self_attn.{name}_proj.bias"] = (size,)
        if family == "qwen3":
            for name in ("q_norm", "k_norm"):
                shapes[f"{layer}.self_attn.{name}.weight"] = (HEAD,)
    if not tied:
        shapes["lm_head.weight"] = (V, D)
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return tensors


def rewrite(path: Path, tensors) -> None:
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_each_tensor_lands_in_its_place(tmp_path, family, tied):
    tensors = write_checkpoint(tmp_path, family, tied)
    config, base = load_hf(tmp_path)
    layer = "model.layers.1"
    attention, mlp = base["layers"]["self_attn"], base["layers"]["mlp"]
    for name in ("q", "k", "v", "o"):
        want = tensors[f"{layer}.self_attn.{name}_proj.weight"].T  # [out, in] -> [in, out]
        np.testing.assert_array_equal(attention[f"{name}_proj"]["kernel"][1], want)
    for name in ("gate", "up", "down"):
        want = tensors[f"{layer}.mlp.{name}_proj.weight"].T
        np.testing.assert_array_equal(mlp[f"{name}_proj"]["kernel"][1], want)
    for name in ("input_layernorm", "post_attention_layernorm"):
        want = tensors[f"{layer}.{name}.weight"]
        np.testing.assert_array_equal(base["layers"][name]["scale"][1], want)
    if family == "qwen2":
        want = tensors[f"{layer}.self_attn.k_proj.bias"]
        np.testing.assert_array_equal(attention["k_proj"]["bias"][1], want)
    if family == "qwen3":
        want = tensors[f"{layer}.self_attn.k_norm.weight"]
        np.testing.assert_array_equal(attention["k_norm"]["scale"][1], want)
    embedding = tensors["model.embed_tokens.weight"]
    np.testing.assert_array_equal(base["embed_tokens"]["embedding"], embedding)
    assert ("lm_head" in base) != tied
    # The tree is the one that the model itself makes.
    made = jax.eval_shape(QwenModel(config).init, jax.random.key(0))["base"]
    assert jax.tree.map(jnp.shape, base) == jax.tree.map(jnp.shape, made)
    assert parameter_count(config) == sum(x.size for x in tensors.values())


@pytest.mark.parametrize("shard_bytes", [10**9, 1000])
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_tensors_are_the_loaded_ones(tmp_path, family, shard_bytes):
    tensors = write_checkpoint(tmp_path / "a", family, tied=False)
    config, base = load_hf(tmp_path / "a")
    save_hf(tmp_path / "b", config, base, max_shard_bytes=shard_bytes)
    shards = sorted((tmp_path / "b").glob("*.safetensors"))
    saved = {name: x for shard in shards for name, x in load_file(shard).items()}
    assert set(saved) == set(tensors)
    for name, want in tensors.items():
        np.testing.assert_array_equal(saved[name], want, err_msg=name)
    if shard_bytes == 1000:
        index = json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())
        assert len(shards) > 3 and set(index["weight_map"]) == set(tensors)
        assert index["metadata"]["total_size"] == sum(x.nbytes for x in tensors.values())
        # Only a tensor that is too large by itself may exceed the limit.
        for shard in shards:
            parts = load_file(shard)
            assert len(parts) == 1 or sum(x.nbytes for x in parts.values()) <= 1000
    else:
        assert [shard.name for shard in shards] == ["model.safetensors"]
    again, base_again = load_hf(tmp_path / "b")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, base, base_again)


def test_bfloat16_in_and_out(tmp_path):
    tensors = write_checkpoint(tmp_path)
    rewrite(tmp_path, {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()})
    config, base = load_hf(tmp_path, param_dtype=jnp.bfloat16)
    save_hf(tmp_path / "out", config, base)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="numpy") as file:
        assert file.get_slice("model.norm.weight").get_dtype() == "BF16"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    wide = load_hf(tmp_path / "out")[1]
    assert wide["norm"]["scale"].dtype == jnp.float32
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype(np.float32), b), base, wide)


def test_transposed_views_are_written_as_they_read(tmp_path):
    # safetensors 0.8.0 alone writes the base array's bytes under the view's shape.
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    views = {"t": x.T, "columns": x[:, ::2], "reversed": x[::-1], "plain": x}
    safetensor_files.write_tensors(tmp_path / "x.safetensors", views)
    for name, want in load_file(tmp_path / "x.safetensors").items():
        np.testing.assert_array_equal(want, views[name], err_msg=name)


def test_leaves_arrive_sharded(tmp_path):
    write_checkpoint(tmp_path)
    mesh = make_mesh(MeshSettings(data=1, fsdp=2, tensor=2), jax.devices()[:4])

    def targets(config: QwenConfig):
        abstract = jax.eval_shape(QwenModel(config).init, jax.random.key(0))
        return shardings(abstract, logical_axes(abstract), mesh)["base"]

    base, plain = load_hf(tmp_path, shardings=targets)[1], load_hf(tmp_path)[1]
    kernel = base["layers"]["mlp"]["gate_proj"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    jax.tree.map(np.testing.assert_array_equal, base, plain)


def test_a_tied_head_stored_twice_is_accepted_only_when_equal(tmp_path):
    tensors = write_checkpoint(tmp_path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    rewrite(tmp_path, tensors)
    assert "lm_head" not in load_hf(tmp_path)[1]
    tensors["lm_head.weight"][3, 3] += 1
    rewrite(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs .*tie_word_embeddings"):
        load_hf(tmp_path)


# ------------------------------------------------------------------ broken directories


def test_missing_directory_and_missing_config(tmp_path):
    with pytest.raises(CheckpointError, match="no directory .*nowhere"):
        load_hf(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no directory"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no config.json in .*fix: "):
        load_hf(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*config.json"):
        load_hf(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_hf(tmp_path)


def test_a_hub_that_does_not_answer(monkeypatch):
    import huggingface_hub

    def refuse(name, **_):
        raise huggingface_hub.errors.LocalEntryNotFoundError(f"offline: {name}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match="owner/name.*offline.*HF_HUB_OFFLINE"):
        model_dir("owner/name")


def test_a_hub_id_is_fetched(monkeypatch, tmp_path):
    import huggingface_hub

    write_checkpoint(tmp_path)
    asked = []

    def fetch(name, **options):
        asked.append((name, options["revision"]))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    config, _ = load_hf("owner/name", revision="v1")
    assert config.num_layers == L and asked == [("owner/name", "v1")]


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_truncated_file(tmp_path, keep):
    write_checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cannot read .*model.safetensors.*cut short"):
        load_hf(tmp_path)


def test_no_weights_and_torch_weights(tmp_path):
    write_checkpoint(tmp_path)
    os.remove(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no weights in"):
        load_hf(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"not pytorch_model.bin.*safe_serialization"):
        load_hf(tmp_path)


def test_missing_shard_and_bad_index(tmp_path):
    write_checkpoint(tmp_path / "a")
    config, base = load_hf(tmp_path / "a")
    out = tmp_path / "b"
    save_hf(out, config, base, max_shard_bytes=1000)
    shard = sorted(out.glob("*.safetensors"))[1]
    os.remove(shard)
    with pytest.raises(CheckpointError, match=f"no {shard.name} in"):
        load_hf(out)
    index = out / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../other.safetensors"}}))
    with pytest.raises(CheckpointError, match="without folders"):
        load_hf(out)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="no weight_map"):
        load_hf(out)


def test_missing_extra_and_misshapen_tensors(tmp_path):
    tensors = write_checkpoint(tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(tmp_path, {key: x for key, x in tensors.items() if key != name})
    with pytest.raises(CheckpointError, match=f"missing {name}"):
        load_hf(tmp_path)
    rewrite(tmp_path, {**tensors, "model.layers.9.mlp.up_proj.weight": tensors[name]})
    with pytest.raises(CheckpointError, match=r"unexpected model.layers.9.mlp.up_proj.weight"):
        load_hf(tmp_path)
    rewrite(tmp_path, {**tensors, name: np.ones((F, D + 1), np.float32)})
    with pytest.raises(CheckpointError, match=rf"{name} .*shape \[12, 9\].*wanted: \[12, 8\]"):
        load_hf(tmp_path)
    rewrite(tmp_path, {**tensors, name: np.ones((F, D), np.int8)})
    with pytest.raises(CheckpointError, match=f"{name} .*stored as I8"):
        load_hf(tmp_path)


def test_an_untied_model_needs_its_head(tmp_path):
    write_checkpoint(tmp_path, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match="missing lm_head.weight"):
        load_hf(tmp_path)


def test_wrong_architecture(tmp_path):
    write_checkpoint(tmp_path, model_type="phi3", architectures=["Phi3ForCausalLM"])
    with pytest.raises(CheckpointError, match=r"config.json.*Phi3ForCausalLM.*wanted: Qwen2"):
        load_hf(tmp_path)


# ------------------------------------------------------------------ saving


def test_saving_replaces_a_model_and_nothing_else(tmp_path):
    write_checkpoint(tmp_path / "model")
    config, base = load_hf(tmp_path / "model")
    save_hf(tmp_path / "model", config, base, max_shard_bytes=1000)
    assert not (tmp_path / "model" / "model.safetensors").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError, match=r"precious holds thesis.tex"):
        save_hf(tmp_path / "precious", config, base)
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "x"


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    tensors = write_checkpoint(tmp_path / "model")
    config, base = load_hf(tmp_path / "model")

    def fail(path, value):
        raise OSError("disk full")

    monkeypatch.setattr(hf_io.files, "write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        save_hf(tmp_path / "model", config, jax.tree.map(jnp.zeros_like, base))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    kept = load_hf(tmp_path / "model")[1]["norm"]["scale"]
    np.testing.assert_array_equal(kept, tensors["model.norm.weight"])


def test_a_tree_that_does_not_fit_is_refused(tmp_path):
    write_checkpoint(tmp_path / "model")
    config, base = load_hf(tmp_path / "model")
    with pytest.raises(CheckpointError, match="differ in norm/scale"):
        save_hf(tmp_path / "x", config, {k: v for k, v in base.items() if k != "norm"})
    with pytest.raises(CheckpointError, match=r"norm/scale has shape \[9\].*wanted: \[8\]"):
        save_hf(tmp_path / "x", config, {**base, "norm": {"scale": jnp.ones(9)}})
    assert not (tmp_path / "x").exists()


def test_the_tokenizer_travels_along(tmp_path):
    class Tokenizer:
        def save_pretrained(self, path):
            (Path(path) / "tokenizer.json").write_text("{}")

    write_checkpoint(tmp_path / "model", eos_token_id=[3, 4])
    config, base = load_hf(tmp_path / "model")
    save_hf(tmp_path / "out", config, base, tokenizer=Tokenizer())
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [3, 4]}
    assert load_config(tmp_path / "out") == config
