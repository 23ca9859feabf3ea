"""Loss, gradient and metrics of preference training equal TRL's DPOTrainer on the same rows.

The trainer starts from an adapter, of which it keeps a frozen copy as the reference; then the
policy's own is moved, so that log-ratios are not 0.
"""

import functools
import json
import warnings

import jax
import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict
from safetensors.numpy import save_file
from transformers.utils import logging

from distill_jax.core.batching import round_up
from distill_jax.data import batching, chat, pair_rows, synthetic
from distill_jax.data.chat import ChatSettings, Example
from distill_jax.data.problem import Problem
from distill_jax.data.tokenizer import eos_id, train_tokenizer
from distill_jax.models.hf_io import load_hf
from distill_jax.models.lora import LoraConfig
from distill_jax.models.peft_io import load_adapter, save_adapter
from distill_jax.models.qwen import QwenModel
from distill_jax.training import state as states
from distill_jax.training.preference import Objective, preference, sequence_logps
from tests.parity.test_peft import random_adapter
from tests.parity.torch_models import QWEN2, load_torch, random_model

trl = pytest.importorskip("trl")

BOUND = 1e-4
LORA = LoraConfig(rank=3, alpha=6.0, targets=("q_proj", "v_proj", "down_proj"))
CASES = {
    "sigmoid": (Objective(), ["sigmoid"], None),
    "ipo": (Objective("ipo", beta=0.4), ["ipo"], None),
    "hinge": (Objective("hinge", beta=0.05), ["hinge"], None),
    "robust": (Objective("robust", label_smoothing=0.2), ["robust"], None),
    "sigmoid_norm": (Objective("sigmoid_norm", beta=5.0), ["sigmoid_norm"], None),
    "anchored": (Objective(sft_weight=0.3), ["sigmoid", "sft"], [1.0, 0.3]),
}
ROWS = [
    {"prompt": "Tom has 15 pens and uses 8. How many now?", "chosen": "15-8=7\n#### 7",
     "rejected": "15+8=23\nso there are 23 pens now\n#### 23"},
    {"prompt": "What is 2 + 2?", "chosen": "2+2=4. The answer is four.\n#### 4",
     "rejected": "#### 5"},
    {"prompt": "Ann sells 3 of 9 cakes. How many are left?", "chosen": "9-3=6\n#### 6",
     "rejected": "9-3=5\n#### 5"},
    {"prompt": "What is 7 times 3?", "chosen": "#### 21", "rejected": "7+3=10\n#### 10"},
]  # fmt: skip


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """(trainer, its batch, our model, trees of base, reference adapter and policy, our batch)."""
    root = tmp_path_factory.mktemp("trl")
    tok = train_tokenizer(synthetic.texts(synthetic.ProblemSettings(), 0, 500), 300)
    family, values = QWEN2
    values = {**values, "vocab_size": 320, "max_position_embeddings": 256, "num_hidden_layers": 2}
    model = random_model(family, values)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(0.3 if "norm" not in name else 1.0)
    model.save_pretrained(root / "model")
    config, base = load_hf(root / "model")
    save_adapter(root / "start", config, LORA, random_adapter(config, LORA), root / "model")
    policy = PeftModel.from_pretrained(
        load_torch(root / "model"), root / "start", is_trainable=True
    )
    prompts = chat.render_prompts(
        tok, [Problem("", row["prompt"], "", "") for row in ROWS], ChatSettings()
    )
    rendered = [{**row, "prompt": tok.decode(p)} for row, p in zip(ROWS, prompts, strict=True)]
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.DPOTrainer(
            policy,
            args=trl.DPOConfig(
                output_dir=str(root / "out"),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                max_length=None,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rendered),
            processing_class=tok,
        )
    assert "ref" in trainer.model.peft_config  # the copy of the start
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_" in name and "default" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    inputs = trainer.data_collator(list(trainer.train_dataset))

    ours = as_ours(tok, root / "rows.jsonl")
    for place, row in enumerate(trainer.train_dataset):
        prompt, chosen, rejected = ours[place]
        assert row["prompt_ids"] == prompt
        assert (row["chosen_ids"], row["rejected_ids"]) == (chosen, rejected)
    trees = [load_adapter(root / "start", config)[0]]
    trees.append(to_tree(trainer.model, root / "moved", config, lambda p: p))
    model = QwenModel(config, LORA)
    return trainer, inputs, model, base, trees, packed(ours, tok.pad_token_id), config


def as_ours(tok, path):
    """(prompt, chosen, rejected) as stage dpo makes them of a file of rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pairs = pair_rows.read(path)
    problems = [Problem(pair.where, pair.question, "", "") for pair in pairs]
    sides = [
        chat.render_examples(tok, problems, [getattr(p, name).text for p in pairs], ChatSettings())
        for name in ("chosen", "rejected")
    ]
    assert all(e.response[-1] == eos_id(tok) for side in sides for e in side)
    return [(c.prompt, c.response, r.response) for c, r in zip(*sides, strict=True)]


def packed(ours, pad_id):
    flat = [Example(prompt, side) for prompt, *sides in ours for side in sides]
    rows = batching.pack_examples(flat, pad_id=pad_id, multiple=16)
    assert rows["tokens_BT"].shape[1] == round_up(max(len(p) + len(r) for p, r in flat), 16)
    names = {name: name.replace("_B", "_BC") for name in rows}
    return {names[n]: x.reshape(-1, 2, *x.shape[1:]) for n, x in rows.items()}


def to_tree(model, directory, config, of):
    """Our tree of the policy's adapter, or of its gradients."""
    model.save_pretrained(directory, selected_adapters=["default"])
    found = {n: of(p).detach().numpy() for n, p in model.named_parameters() if ".default." in n}
    names = set(get_peft_model_state_dict(model, adapter_name="default"))
    tensors = {name.replace(".default", ""): x for name, x in found.items()}
    assert set(tensors) == names
    save_file({n: np.ascontiguousarray(x) for n, x in tensors.items()},
              directory / "adapter_model.safetensors")  # fmt: skip
    return load_adapter(directory, config)[0]


@pytest.mark.parametrize("case", CASES)
def test_loss_gradient_and_metrics(setting, tmp_path, case):
    trainer, inputs, model, base, (start, moved), batch, config = setting
    objective, types, weights = CASES[case]
    trainer.loss_types, trainer.loss_weights = types, weights or [1.0]
    trainer.beta, trainer.label_smoothing = objective.beta, objective.label_smoothing
    trainer.model.train()
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    want = trainer.compute_loss(trainer.model, dict(inputs))
    want.backward()
    want_grads = to_tree(trainer.model, tmp_path, config, lambda p: p.grad)

    vocab = config.vocab_size  # TRL's softmax has the rows of the head without a token, too
    score = jax.jit(functools.partial(sequence_logps, model, vocab=vocab))
    reference_BC = score({"base": base, "lora": start}, batch)
    batch = {**batch, "reference_BC": reference_BC}
    loss, totals = preference(model, objective, vocab)
    trainable, frozen = states.split({"base": base, "lora": moved}, "lora")
    (value, metrics), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        trainable, frozen, batch, totals(batch), jax.random.key(0)
    )
    np.testing.assert_allclose(value, want.item(), rtol=BOUND, atol=BOUND)
    scale = max(np.abs(x).max() for x in jax.tree.leaves(want_grads))
    assert scale > 1e-3  # the loss pulls
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=BOUND, atol=BOUND * scale),
        grads["lora"],
        want_grads,
    )
    shared = [n for n in metrics if n.startswith(("rewards/", "logps/")) and "per_token" not in n]
    assert len(shared) == 6
    for name in shared:
        got = trainer._metrics["train"][name][-1]
        np.testing.assert_allclose(metrics[name], got, rtol=BOUND, atol=BOUND, err_msg=name)
