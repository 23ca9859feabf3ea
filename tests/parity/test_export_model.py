"""Exports load in transformers and peft: logits to 1e-4, tokens, text and ends equal."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_jax.core import rng
from distill_jax.data import tokenizer as tokenizers
from distill_jax.evaluation import subjects
from distill_jax.handover import export as exports
from distill_jax.inference import generate
from distill_jax.models import hf_io
from distill_jax.report import view
from distill_jax.report.view import RunView, StageView
from distill_jax.run.run import Run
from distill_jax.training import manifest
from tests.parity.torch_models import jax_logits, load_torch, torch_logits
from tests.stages.hf import tokenizer, write_model, write_problems
from tests.stages.small import small

BOUND = 1e-4
QWEN3 = {"model_type": "qwen3", "qk_norm": True, "qkv_bias": False}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "qwen2_tied": {"tie_embeddings": True},
    "qwen2_untied": {"tie_embeddings": False},
    "qwen3_tied": {**QWEN3, "tie_embeddings": True},
    "qwen3_untied": {**QWEN3, "tie_embeddings": False},
}
# <|endoftext|>, the end that a base model's config.json names; the sampler waits for <|im_end|>.
OTHER_END = tokenizer().convert_tokens_to_ids(tokenizers.END_OF_TEXT)
QUESTION = "How many pens are 2 and 3?"


class Made(NamedTuple):
    run: Run
    logits_BTV: np.ndarray
    tokens_BT: np.ndarray


@pytest.fixture(scope="module", params=GEOMETRIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A work directory with a base model and an adapter, and the logits of the two."""
    root = tmp_path_factory.mktemp(request.param)
    how = {**GEOMETRIES[request.param], "num_layers": 2, "eos_token_id": OTHER_END}
    base = write_model(root / "base", rows=320, noise=0.3, **how)
    settings = {
        "student__path": str(base),
        "teacher__path": str(base),
        "data__source": str(write_problems(root / "data")),
        "data__chat__instruction": "Answer.",
        "data__max_prompt_tokens": 80,
        "stages": ("sft", "evaluate"),
        "sampling__max_new_tokens": 12,
        "lora__alpha": 8.0,
    }
    run = Run(small(**settings), root / "run")
    lora = jax.device_get(run.models.load("student").params["lora"])
    draw = np.random.default_rng(0).standard_normal
    moved = jax.tree.map(lambda x: np.asarray(x + 0.3 * draw(x.shape), np.float32), lora)
    run.models.save_adapter(hf_io.load_config(base), moved, run.workdir / "sft" / "adapter")
    view.save(RunView((StageView("sft", "sft", "sft", "base", "student"),)), run.workdir)
    manifest.write_manifest(run.workdir / "sft", run.config_dict)
    tokens_BT = np.random.default_rng(1).integers(0, 300, (3, 24)).astype(np.int32)
    loaded = run.load_student("sft")
    params, config = loaded.params, loaded.model.config
    ours = jax_logits(
        config, params["base"], tokens_BT, lora=loaded.model.lora, lora_params=params["lora"]
    )
    alone = jax_logits(config, params["base"], tokens_BT)
    assert np.abs(ours).max() > 1.0 and np.abs(ours - alone).max() > 0.1  # the adapter matters
    return Made(run, ours, tokens_BT)


@pytest.fixture(scope="module")
def merged(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "model"
    request = exports.Request(exports.MERGED, max_shard_bytes=20_000)
    return exports.export(made.run, "sft", request, out)


def test_a_merged_model_has_our_logits_in_transformers_and_here(made: Made, merged: Path) -> None:
    assert len(list(merged.glob("model-*.safetensors"))) > 1
    theirs = torch_logits(load_torch(merged), made.tokens_BT)
    assert np.abs(theirs - made.logits_BTV).max() <= BOUND
    again = jax_logits(*hf_io.load_hf(merged), made.tokens_BT)
    assert np.abs(again - theirs).max() <= BOUND


def test_bfloat16_is_the_sum_rounded_once(made: Made, merged: Path, tmp_path: Path) -> None:
    request = exports.Request(exports.MERGED, "bfloat16")
    exports.export(made.run, "sft", request, tmp_path / "half")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert half.dtype == torch.bfloat16
    whole = load_torch(merged).state_dict()
    assert half.state_dict().keys() == whole.keys()
    for name, tensor in half.state_dict().items():
        assert torch.equal(tensor, whole[name].to(torch.bfloat16)), name


def test_the_tokenizer_and_the_end_are_the_samplers(made: Made, merged: Path) -> None:
    ours = made.run.data.tokenizer
    theirs = AutoTokenizer.from_pretrained(merged)
    text = f"{QUESTION} <|im_end|>\n1,234 = é"
    assert theirs(text)["input_ids"] == ours(text)["input_ids"]
    assert theirs.chat_template == ours.chat_template
    model, end = AutoModelForCausalLM.from_pretrained(merged), tokenizers.eos_id(ours)
    assert end != OTHER_END
    assert model.generation_config.eos_token_id == model.config.eos_token_id == end
    assert model.generation_config.pad_token_id == tokenizers.pad_id(ours)


def shown(path: Path) -> str:
    """What the code of a card prints for QUESTION."""
    code = re.findall(r"```python\n(.*?)```", (path / "README.md").read_text(), re.DOTALL)
    (text,) = code
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(text.replace("PATH", str(path)).replace("QUESTION", QUESTION), {})
    return out.getvalue().removesuffix("\n")


def test_the_code_of_the_card_prints_what_the_sampler_draws(
    made: Made, merged: Path, tmp_path: Path
) -> None:
    run, loaded = made.run, made.run.load_student("sft")
    sampler, sampling = run.models.sampler(loaded.model), run.config.sampling.whole(0.0)
    prompt = f"<|im_start|>user\n{QUESTION}\nAnswer.<|im_end|>\n<|im_start|>assistant\n"
    drawn = generate.answers(
        sampler,
        lambda: sampler.weights(loaded.params, sampling),
        [run.data.tokenizer(prompt)["input_ids"]],
        sampling,
        key=rng.run_key(0),
        batch=1,
    )
    text = run.data.text(drawn.tokens[0])
    assert text.strip() and shown(merged) == text
    adapter = exports.export(run, "sft", exports.Request(exports.ADAPTER), tmp_path / "adapter")
    assert shown(adapter) == text


def test_an_adapter_has_our_logits_in_peft(made: Made, tmp_path: Path) -> None:
    out = exports.export(made.run, "sft", exports.Request(exports.ADAPTER), tmp_path / "out")
    model = AutoPeftModelForCausalLM.from_pretrained(out, attn_implementation="eager").eval()
    assert np.abs(torch_logits(model, made.tokens_BT) - made.logits_BTV).max() <= BOUND
    assert subjects.named(made.run, "sft").weights.keys() == {"student", "adapter"}
