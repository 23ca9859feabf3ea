"""Adapters go to peft and come from it: logits to 1e-5, key sets equal."""

import json
import warnings

import jax
import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.numpy import load_file, save_file

from distill_jax.core.errors import CheckpointError
from distill_jax.models.hf_io import load_hf
from distill_jax.models.lora import LoraConfig
from distill_jax.models.peft_io import load_adapter, save_adapter
from distill_jax.models.qwen import QwenModel
from tests.parity.torch_models import (
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    jax_logits,
    load_torch,
    random_model,
    random_tokens,
    torch_logits,
)

BOUND = 1e-5
TARGETS = {
    "all": LoraConfig().targets,
    "attention": ("q_proj", "v_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
    "one": ("o_proj",),
}
TOKENS_BT = random_tokens(2, 12)


@pytest.fixture(scope="module", params=[QWEN2, QWEN3, LLAMA, MISTRAL], ids=lambda one: one[0])
def base_model(request, tmp_path_factory):
    """(directory, config, base tree) of a small random model with logits of order one."""
    model = random_model(*request.param)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Logits below about 2, where a float32 step is 2e-7, make 1e-5 a fair bound.
            parameter.mul_(0.3 if "norm" not in name else 1.0)
    directory = tmp_path_factory.mktemp(request.param[0])
    model.save_pretrained(directory)
    return directory, *load_hf(directory)


def random_adapter(config, lora, seed=3):
    """A LoRA tree in which B is not zero."""
    shapes = jax.eval_shape(QwenModel(config, lora).init, jax.random.key(0))["lora"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: 0.1 * rng.standard_normal(leaf.shape).astype(np.float32), shapes
    )


def write_with_peft(directory, out, **settings):
    """An adapter that peft itself makes and saves; returns the peft model."""
    settings = {"task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(load_torch(directory), PeftConfig(**settings)).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(out)
    return model


def differs(a, b) -> float:
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("targets", TARGETS)
def test_export_is_loaded_by_peft(base_model, tmp_path, targets):
    directory, config, base = base_model
    lora = LoraConfig(
        rank=3,
        alpha=12.0,
        use_rslora=targets == "attention",
        dropout=0.1,
        targets=TARGETS[targets],
    )
    tree = random_adapter(config, lora)
    save_adapter(tmp_path / "out", config, lora, tree, directory)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # peft only warns about keys that it cannot place
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(load_torch(directory), tmp_path / "out").eval()
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert set(saved) == set(get_peft_model_state_dict(model))
    got = jax_logits(config, base, TOKENS_BT, lora=lora, lora_params=tree)
    assert differs(got, torch_logits(model, TOKENS_BT)) <= BOUND
    # The adapter does something, so that equality means something.
    assert differs(got, jax_logits(config, base, TOKENS_BT)) > 0.01


@pytest.mark.parametrize("targets", TARGETS)
def test_an_adapter_of_peft_is_read(base_model, tmp_path, targets):
    directory, config, base = base_model
    names = list(TARGETS[targets])
    model = write_with_peft(directory, tmp_path, r=4, lora_alpha=10, target_modules=names)
    tree, lora = load_adapter(tmp_path, config)
    assert (lora.rank, lora.alpha, set(lora.targets)) == (4, 10.0, set(names))
    got = jax_logits(config, base, TOKENS_BT, lora=lora, lora_params=tree)
    assert differs(got, torch_logits(model, TOKENS_BT)) <= BOUND
    made = jax.eval_shape(QwenModel(config, lora).init, jax.random.key(0))["lora"]
    assert jax.tree.map(np.shape, tree) == jax.tree.map(np.shape, made)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "all-linear"},
        {"target_modules": r".*self_attn\.(q|k)_proj"},
        {"target_modules": ["q_proj"], "use_rslora": True},
    ],
)
def test_other_ways_to_name_the_targets(base_model, tmp_path, settings):
    directory, config, base = base_model
    model = write_with_peft(directory, tmp_path, r=4, lora_alpha=8, **settings)
    tree, lora = load_adapter(tmp_path, config)
    assert (lora.alpha, lora.use_rslora) == (8.0, settings.get("use_rslora", False))
    got = jax_logits(config, base, TOKENS_BT, lora=lora, lora_params=tree)
    assert differs(got, torch_logits(model, TOKENS_BT)) <= BOUND


def test_there_and_back_is_the_same(base_model, tmp_path):
    directory, config, _ = base_model
    lora = LoraConfig(2, 5.0, use_rslora=True, dropout=0.25, targets=("k_proj", "down_proj"))
    tree = random_adapter(config, lora)
    save_adapter(tmp_path / "out", config, lora, tree, directory)
    again, lora_again = load_adapter(tmp_path / "out", config)
    assert lora_again == lora
    jax.tree.map(np.testing.assert_array_equal, tree, again)


def test_merged_by_peft_equals_merged_here(base_model, tmp_path):
    directory, config, base = base_model
    model = write_with_peft(directory, tmp_path, r=4, lora_alpha=8, target_modules=["v_proj"])
    tree, lora = load_adapter(tmp_path, config)
    with_adapter = jax_logits(config, base, TOKENS_BT, lora=lora, lora_params=tree)
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    plain_config, plain = load_hf(tmp_path / "merged")
    assert differs(jax_logits(plain_config, plain, TOKENS_BT), with_adapter) <= BOUND


def edit_config(path, **change):
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 0}, "r=0"),
        ({"r": 5}, r"shape \[4, 32\].*wanted: \[5, 32\]"),
    ],
)
def test_adapters_that_are_refused(base_model, tmp_path, change, says):
    directory, config, _ = base_model
    write_with_peft(directory, tmp_path, r=4, lora_alpha=8, target_modules=["q_proj"])
    edit_config(tmp_path, **change)
    with pytest.raises(CheckpointError, match=says):
        load_adapter(tmp_path, config)


def test_key_sets_are_compared(base_model, tmp_path):
    directory, config, _ = base_model
    write_with_peft(directory, tmp_path, r=4, lora_alpha=8, target_modules=["q_proj"])
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    key = "base_model.model.model.layers.2.self_attn.q_proj.lora_B.weight"
    save_file({k: x for k, x in tensors.items() if k != key}, path)
    with pytest.raises(CheckpointError, match=f"missing {key}"):
        load_adapter(tmp_path, config)
    save_file({**tensors, "base_model.model.lm_head.lora_A.weight": np.ones(2)}, path)
    with pytest.raises(CheckpointError, match="unexpected base_model.model.lm_head"):
        load_adapter(tmp_path, config)
    save_file({k.removeprefix("base_model.model."): x for k, x in tensors.items()}, path)
    with pytest.raises(CheckpointError, match="keys must start with base_model.model.model"):
        load_adapter(tmp_path, config)


def test_missing_and_damaged_adapters(base_model, tmp_path):
    directory, config, _ = base_model
    with pytest.raises(CheckpointError, match="no directory"):
        load_adapter(tmp_path / "nowhere", config)
    with pytest.raises(CheckpointError, match=r"no adapter_config.json"):
        load_adapter(tmp_path, config)
    write_with_peft(directory, tmp_path, r=4, lora_alpha=8, target_modules=["q_proj"])
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="cut short"):
        load_adapter(tmp_path, config)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model.safetensors"):
        load_adapter(tmp_path, config)


def test_a_tree_that_does_not_fit_is_refused(base_model, tmp_path):
    directory, config, _ = base_model
    lora = LoraConfig(rank=2, targets=("k_proj",))
    tree = random_adapter(config, LoraConfig(rank=2, targets=("k_proj", "v_proj")))
    with pytest.raises(CheckpointError, match="differ in layers/self_attn/v_proj/lora_A"):
        save_adapter(tmp_path / "x", config, lora, tree, directory)
    tree = random_adapter(config, LoraConfig(rank=3, targets=("k_proj",)))
    with pytest.raises(CheckpointError, match=r"lora_A has shape \[3, 32, 3\]"):
        save_adapter(tmp_path / "x", config, lora, tree, directory)
