"""Directories of reward models: ours there and back, those of others, and damaged ones."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from distill_jax.core.errors import CheckpointError
from distill_jax.models import process_head, reward_model_io
from distill_jax.models.hf_io import load_hf
from distill_jax.models.reward_model_io import PRM_CONFIG, PRMConfig
from tests.models.test_hf_io import D, V, rewrite, write_checkpoint

ABOUT = PRMConfig(
    step_separator="\n\n", step_token="<end>", step_token_id=3, aggregation="last", labels="soft",
    max_length=64, trained_on={"rows": 5},
)  # fmt: skip
MIND = {"head": "two_token", "step_token": " k", "right_token_id": 7, "wrong_token_id": 4}


class Tokenizer:
    """Saves a file, as a tokenizer does."""

    def save_pretrained(self, where):
        (Path(where) / "tokenizer.json").write_text("{}")


def published(path, kind, *, tied=True, **config):
    """A reward model as others publish it; the tensors of its head are random."""
    name = {"linear": "Qwen2ForTokenClassification", "mlp": "Qwen2ForProcessRewardModel"}[kind]
    tensors = write_checkpoint(path, "qwen2", tied, architectures=[name], **config)
    rng = np.random.default_rng(5)
    for part, shape in process_head.shapes(kind, D).items():
        tensors[f"score.{part}"] = rng.standard_normal(shape).astype(np.float32)
    rewrite(path, tensors)
    return tensors


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("kind", process_head.HEADS)
def test_there_and_back(tmp_path, family, kind):
    write_checkpoint(tmp_path / "causal", family, tied=False)
    geometry, base = reward_model_io.trunk(*load_hf(tmp_path / "causal"))
    assert "lm_head" not in base
    score = process_head.init(kind, D, jax.random.key(0))
    about = dataclasses.replace(ABOUT, head=kind)
    out = tmp_path / "out"
    reward_model_io.save(out, geometry, base, score, about, tokenizer=Tokenizer())
    got = reward_model_io.load(out)
    assert (got.geometry, got.about) == (geometry, about)
    jax.tree.map(np.testing.assert_array_equal, got.base, base)
    jax.tree.map(np.testing.assert_array_equal, got.score, dict(score))
    names = set(load_file(out / "model.safetensors"))
    wanted = {"score.weight", "score.bias"}
    if kind == "mlp":
        wanted = {f"score.{n}.{part}" for n in (0, 2) for part in ("weight", "bias")}
    assert {name for name in names if not name.startswith("model.")} == wanted
    config = json.loads((out / "config.json").read_text())
    suffix = {"linear": "ForTokenClassification", "mlp": "ForProcessRewardModel"}[kind]
    assert config["architectures"] == [f"{family.capitalize()}{suffix}"]
    assert (config["classifier_dropout"], config["num_labels"]) == (0.0, 2)
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert (out / "tokenizer.json").is_file()


def test_the_released_form(tmp_path):
    tensors = published(tmp_path, "mlp", tied=False)  # with an lm_head, which nothing reads
    got = reward_model_io.load(tmp_path)
    assert (got.about.step_token, got.about.step_separator) == ("<extra_0>", "\n\n")
    assert got.about.step_token_id is None and got.about.head == "mlp"
    assert "lm_head" not in got.base and got.geometry.tie_embeddings
    for name, x in got.score.items():
        np.testing.assert_array_equal(x, tensors[f"score.{name}"])


def test_token_classification_of_transformers(tmp_path):
    tensors = published(tmp_path, "linear")
    got = reward_model_io.load(tmp_path)
    assert got.about == PRMConfig()
    np.testing.assert_array_equal(got.score["weight"], tensors["score.weight"])
    del tensors["score.bias"]  # config.token_classification_bias=False
    rewrite(tmp_path, tensors)
    assert not reward_model_io.load(tmp_path).score["bias"].any()


@pytest.mark.parametrize("family", ["qwen2", "mistral"])
@pytest.mark.parametrize("tied", [True, False])
def test_two_tokens_of_a_causal_model(tmp_path, family, tied):
    tensors = write_checkpoint(tmp_path, family, tied)
    (tmp_path / PRM_CONFIG).write_text(json.dumps(MIND))
    got = reward_model_io.load(tmp_path)
    head_VD = tensors["model.embed_tokens.weight" if tied else "lm_head.weight"]
    hidden = np.random.default_rng(1).standard_normal(D).astype(np.float32)
    wanted = (head_VD @ hidden)[[4, 7]]  # wrong, right
    np.testing.assert_allclose(process_head.apply(got.score, hidden), wanted, rtol=1e-5)


def test_damaged_or_other_directories_are_refused(tmp_path):
    def refused(match):
        with pytest.raises(CheckpointError, match=match):
            reward_model_io.load(tmp_path)

    tensors = published(tmp_path, "linear")
    rewrite(tmp_path, {n: x for n, x in tensors.items() if n != "score.weight"})
    refused("missing score.weight")
    rewrite(tmp_path, tensors | {"score.weight": np.zeros((3, D), np.float32)})
    refused(r"score.weight .* has shape \[3, 8\]; wanted: \[2, 8\]")
    rewrite(tmp_path, tensors)
    for entry, match in {
        '{"separator": "a"}': "has 'separator'; wanted: one of head",
        '{"max_length": true}': "max_length=true; wanted: int",
        '{"aggregation": "sum"}': "aggregation='sum'",
        '{"step_token": ""}': "empty step_separator",
        '{"head": "mlp"}': "head='mlp'; wanted: linear",
    }.items():
        (tmp_path / PRM_CONFIG).write_text(entry)
        refused(match)
    (tmp_path / PRM_CONFIG).unlink()
    write_checkpoint(tmp_path, architectures=["Qwen2ForRewardModel"])
    refused("Qwen2ForRewardModel.*wanted: Qwen2ForTokenClassification")
    write_checkpoint(tmp_path)
    refused("Qwen2ForCausalLM.*no prm_config.json.*right_token_id")
    (tmp_path / PRM_CONFIG).write_text(json.dumps(MIND | {"right_token_id": V}))
    refused(f"names the token {V}; wanted: 0..{V - 1}")
    (tmp_path / PRM_CONFIG).write_text('{"head": "two_token"}')
    refused("without its tokens")
