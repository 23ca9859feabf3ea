"""Reward models against transformers and torch: logits within 1e-5 in float32, both ways."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForTokenClassification,
    MistralConfig,
    MistralForTokenClassification,
    Qwen2Config,
    Qwen2ForTokenClassification,
    Qwen3Config,
    Qwen3ForTokenClassification,
)

from distill_jax.inference import process_scorer
from distill_jax.models import process_head, reward_model_io
from distill_jax.models.hf_io import load_config
from distill_jax.models.qwen import QwenModel
from distill_jax.models.reward_model_io import PRM_CONFIG, PRMConfig
from distill_jax.reasoning import steps
from tests import tiny
from tests.parity.torch_models import CASES, random_model, random_tokens

BOUND = 1e-5
TIME = 12


def logits(found, tokens_BT):
    """Of a loaded reward model at every place: f32 [B, T, 2]."""
    model = QwenModel(found.geometry)
    hidden = model.hidden({"base": found.base, "lora": {}}, jnp.asarray(tokens_BT))
    return np.asarray(process_head.apply(found.score, hidden))


def torch_logits(model, tokens_BT):
    with torch.no_grad():
        return model(input_ids=torch.tensor(tokens_BT, dtype=torch.long)).logits.numpy()


def check(got, want):
    assert np.abs(want).max() > 1.0  # logits of a model that does something
    assert np.abs(got - want).max() <= BOUND * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("case", ["qwen2_tied", "qwen2_untied", "qwen3_tied", "llama_tied"])
def test_export_is_read_by_transformers(tmp_path, case):
    family, values = CASES[case]
    random_model(family, values).save_pretrained(tmp_path / "causal")
    config = load_config(tmp_path / "causal")
    geometry, base = reward_model_io.trunk(*reward_model_io.hf_io.load_hf(tmp_path / "causal"))
    assert geometry == dataclasses.replace(config, tie_embeddings=True)
    rng = np.random.default_rng(0)
    shapes = process_head.shapes("linear", geometry.hidden_size)
    score = {n: rng.standard_normal(shape, np.float32) for n, shape in shapes.items()}
    out = tmp_path / "prm"
    reward_model_io.save(out, geometry, base, score, PRMConfig(), tokenizer=None)
    model, info = AutoModelForTokenClassification.from_pretrained(
        out, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info  # no tensor is missing, unexpected or of another shape
    # In training mode, too: the classifier's dropout is 0.
    assert model.train().config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    tokens_BT = random_tokens(2, TIME)
    want = torch_logits(model, tokens_BT)
    check(logits(reward_model_io.load(out), tokens_BT), want)
    p = torch.softmax(torch.tensor(want), -1)[..., 1].numpy()
    got = jax.nn.softmax(logits(reward_model_io.load(out), tokens_BT), axis=-1)[..., 1]
    np.testing.assert_allclose(got, p, atol=BOUND)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("bias", [True, False])
def test_token_classification_of_transformers_is_read(tmp_path, family, bias):
    kind, config = {
        "qwen2": (Qwen2ForTokenClassification, Qwen2Config),
        "qwen3": (Qwen3ForTokenClassification, Qwen3Config),
        "mistral": (MistralForTokenClassification, MistralConfig),
    }[family]
    values = {**CASES[f"{family}_untied"][1], "num_labels": 2, "token_classification_bias": bias}
    torch.manual_seed(1)
    model = kind(config(**values, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3)
            if "norm" in name:
                parameter.add_(1.0)
    model.save_pretrained(tmp_path)
    tokens_BT = random_tokens(2, TIME)
    check(logits(reward_model_io.load(tmp_path), tokens_BT), torch_logits(model, tokens_BT))


class PublishedHead(torch.nn.Module):
    """The trunk and the head of Qwen2.5-Math-PRM, by the names of its checkpoint."""

    def __init__(self, trunk, size):
        super().__init__()
        self.model = trunk
        self.score = torch.nn.Sequential(
            torch.nn.Linear(size, size), torch.nn.ReLU(), torch.nn.Linear(size, 2)
        )

    def forward(self, input_ids):
        return self.score(self.model(input_ids=input_ids).last_hidden_state)


def test_the_released_head_equals_torch(tmp_path):
    causal = random_model(*CASES["qwen2_untied"])
    published = PublishedHead(causal.model, causal.config.hidden_size).eval()
    # lm_head is in the released files and means nothing.
    tensors = {**published.state_dict(), "lm_head.weight": causal.lm_head.weight.data}
    causal.config.architectures = ["Qwen2ForProcessRewardModel"]
    causal.config.save_pretrained(tmp_path)
    save_file({name: x.contiguous() for name, x in tensors.items()}, tmp_path / "model.safetensors")
    tokens_BT = random_tokens(2, TIME)
    with torch.no_grad():
        want = published(torch.tensor(tokens_BT, dtype=torch.long)).numpy()
    found = reward_model_io.load(tmp_path)
    assert found.about.step_token == "<extra_0>"
    got = logits(found, tokens_BT)
    assert np.ptp(want) > 0.3
    assert np.abs(got - want).max() <= BOUND


@pytest.mark.parametrize("case", ["mistral_untied", "mistral_window"])
def test_two_tokens_of_mistral_score_as_math_shepherd_does(tmp_path, case):
    # P(+) after a step: softmax over the two columns of lm_head, at the tag that ends the step.
    plus, minus, tag = 11, 23, 5
    causal = random_model(*CASES[case])
    causal.save_pretrained(tmp_path)
    about = {
        "head": "two_token", "step_token": "x", "right_token_id": plus, "wrong_token_id": minus,
    }  # fmt: skip
    (tmp_path / PRM_CONFIG).write_text(json.dumps(about))
    found = reward_model_io.load(tmp_path)
    assert found.geometry.model_type == "mistral" and "lm_head" not in found.base
    draw = np.random.default_rng(0)
    solutions = [[draw.integers(30, 97, 4).tolist() for _ in range(n)] for n in (1, 3, 2)]
    rows = [steps.encode([1, 40 + i], split, tag, 64) for i, split in enumerate(solutions)]
    got = process_scorer.probabilities(
        QwenModel(found.geometry), {"base": found.base, "lora": {}}, found.score, rows,
        mesh=tiny.mesh(),
    )  # fmt: skip
    for one, row in zip(got, rows, strict=True):
        ids = torch.tensor([row.tokens])
        with torch.no_grad():
            scores = causal(ids).logits[..., [plus, minus]].softmax(-1)[..., 0]
        want = scores[ids == tag].numpy()
        assert len(one) == len(want) == len(row.ends)
        np.testing.assert_allclose(one, want, atol=BOUND)
    assert np.ptp(np.concatenate(got)) > 0.3
