"""A student and a reward model that are Mistral directories, with a tokenizer of that form."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from distill_jax.data import synthetic
from distill_jax.inference import process_scorer
from distill_jax.models import hf_io, peft_io, reward_model_io
from distill_jax.models.qwen import QwenModel
from distill_jax.models.reward_model_io import PRM_CONFIG
from distill_jax.reasoning.steps import StepSettings
from distill_jax.run.run import Run
from distill_jax.stages import runner
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.step_bench import SCORES_FILE, StepBenchSettings
from tests import tiny
from tests.sentence_piece import sentence_piece
from tests.stages.hf import PROBLEMS, write_model, write_problems
from tests.stages.small import rows, small

pytestmark = pytest.mark.slow

TAG = "ки"
# A row of Math-Shepherd's form for each of a few questions; half of the second steps are wrong.
ROWS = [
    {
        "input": f"Tom has {n} pens and buys 2. How many? Step 1: {n} + 2 = {n + 2} {TAG}\n"
        f"Step 2: The answer is: {n + 2 + n % 2} {TAG}",
        "label": f"Tom has {n} pens and buys 2. How many? Step 1: {n} + 2 = {n + 2} +\n"
        f"Step 2: The answer is: {n + 2 + n % 2} {'-' if n % 2 else '+'}",
    }
    for n in range(12)
]
MISTRAL = {
    "rows": 512, "model_type": "mistral", "qkv_bias": False, "sliding_window": 12,
    "layer_types": ("sliding_attention",), "tie_embeddings": False, "noise": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    root = tmp_path_factory.mktemp("mistral")
    texts = [
        *synthetic.texts(PROBLEMS, 0, 100),
        *(row["input"] for row in ROWS),
        *["+ - [INST]"] * 40,
    ]
    tok = sentence_piece(texts, 500)
    student = write_model(root / "student", tok=tok, **MISTRAL)
    shepherd = write_model(root / "shepherd", tok=tok, seed=1, **MISTRAL)
    right, wrong = (tok.convert_tokens_to_ids(f"▁{sign}") for sign in "+-")
    about = {
        "head": "two_token", "step_token": TAG, "right_token_id": right, "wrong_token_id": wrong,
    }  # fmt: skip
    (shepherd / PRM_CONFIG).write_text(json.dumps(about))
    data = root / "steps.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    base = small(
        teacher__path=str(student), student__path=str(student), data__max_prompt_tokens=64,
        data__source=str(write_problems(root / "data")), records__every=1,
    )  # fmt: skip
    plan = {
        "pretrain": base.plan["pretrain"],
        "sft": base.plan["sft"],
        "prm": PRMSettings(
            data=str(data), start="base", steps=2, batch_size=4, validation_share=0.0,
            max_length=128, step_format=StepSettings(token=TAG),
        ),
        "bench": StepBenchSettings(reward_model=str(shepherd), data=str(data)),
    }  # fmt: skip
    config = dataclasses.replace(base, plan=plan, stages=("sft", "prm", "bench"))
    runner.run(config, root / "run")
    return Run(config, root / "run"), root


def test_two_steps_of_sft(run: tuple[Run, Path]) -> None:
    found, root = run
    losses = [row["loss"] for row in rows(found.workdir, "sft") if "loss" in row]
    assert len(losses) > 1 and np.isfinite(losses).all()
    adapter = found.workdir / "sft" / "adapter"
    peft_io.load_adapter(adapter, hf_io.load_config(root / "student"))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(root / "student")


def test_a_reward_model_of_a_mistral_student(run: tuple[Run, Path]) -> None:
    directory = run[0].workdir / "prm" / "reward_model"
    made = reward_model_io.load(directory)
    assert made.about.step_token == TAG and made.geometry.windows == (12,)
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["MistralForTokenClassification"]
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 12)


def test_two_tokens_score_the_steps(run: tuple[Run, Path]) -> None:
    found, root = run
    scorer = process_scorer.load(found, str(root / "shepherd"))
    results = json.loads((found.workdir / "bench" / SCORES_FILE).read_text())["results"]
    tok, signs = scorer.tokenizer, [scorer.about.right_token_id, scorer.about.wrong_token_id]
    places, tokens_BT = [], np.zeros((len(ROWS), 64), np.int32)
    for row, tokens_T in zip(ROWS, tokens_BT, strict=True):
        # By hand: the chat format, the steps, after each the tag; two columns of the untied head.
        begin = row["input"].index("Step 1")
        text, ends = f"<s>[INST] {row['input'][:begin].strip()} [/INST]", []
        ids = tok(text, add_special_tokens=False)["input_ids"]
        for step in row["input"][begin:].split(TAG)[:2]:
            ids += tok(f"{step.strip()} {TAG}", add_special_tokens=False)["input_ids"]
            ends.append(len(ids) - 1)
        assert len(ids) > 2 * 12  # the window
        tokens_T[: len(ids)] = ids
        places.append(ends)
    config, base = hf_io.load_hf(root / "shepherd")
    hidden_BTD = tiny.hidden(QwenModel(config), {"base": base, "lora": {}}, tokens_BT)
    hidden_BSD = np.take_along_axis(np.asarray(hidden_BTD), np.array(places)[..., None], axis=1)
    plus, minus = np.moveaxis(hidden_BSD @ base["lm_head"]["kernel"][np.array(signs)].T, -1, 0)
    scores = [one["scores"] for one in results]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(minus - plus)), atol=1e-5)
    assert np.ptp(scores) > 0.1
