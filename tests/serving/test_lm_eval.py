"""lm-evaluation-harness reads what this server says: its texts, log-probabilities and figures.

LM_EVAL names its program, of an environment with `lm_eval[api]` and transformers; see .ci/run.
Where REAL=1 is set, as there, a missing one is a failure.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from distill_jax.data.chat import render_messages
from distill_jax.serving.scoring import Reader
from distill_jax.serving.served import Served
from distill_jax.serving.slots import Decoding
from tests.serving.endpoint import Running, decoded, drawn

PROGRAM = os.environ.get("LM_EVAL", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM and "REAL" not in os.environ, reason="no LM_EVAL"),
]
QUESTIONS = [f"Tom has {n} pens and buys {n + 2}. How many now?" for n in range(3, 9)]
NEW = 12
TASKS = {
    "says": {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["<|im_end|>"], "do_sample": False, "max_gen_toks": NEW},
        "metric_list": [{"metric": "exact_match"}],
    },
    "reads": {"output_type": "loglikelihood", "metric_list": [{"metric": "acc"}]},
}


def greedy(served: Served, question: str) -> str:
    """What the model says to a question, without a server."""
    messages = [[{"role": "user", "content": question}]]
    prompt = render_messages(served.tokenizer, messages, enable_thinking=False)[0]
    return decoded(served, drawn(served, prompt, [Decoding(temperature=0.0)], NEW)[0])


def read(served: Served, text: str, continuation: str) -> float:
    """The log-probability of a continuation, without a server."""
    # The harness counts white space at the end of a text to its continuation.
    first, row = (
        served.tokenizer(one)["input_ids"] for one in (text.rstrip(), text + continuation)
    )
    reader = Reader(served.model, served.weights, longest=200, top=1)
    (found,) = reader.read([row], [Decoding(temperature=0.0)], tops=False)
    return float(sum(found.logp[len(first) - 1 :]))


@pytest.fixture(scope="module")
def harness(server: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Figures and samples of both tasks; of the first half of the questions our text is right."""
    root: Path = tmp_path_factory.mktemp("harness")
    server.served.tokenizer.save_pretrained(root / "tokenizer")
    wanted = [greedy(server.served, one) for one in QUESTIONS]
    assert len(set(wanted)) > 1
    golds = [*wanted[:3], *("none of these" for _ in wanted[3:])]
    rows = [{"question": q, "gold": g} for q, g in zip(QUESTIONS, golds, strict=True)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, how in TASKS.items():
        task = {
            "task": name, "dataset_path": "json", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": str(root / "rows.jsonl")}},
            "doc_to_text": "{{question}}", "doc_to_target": "{{gold}}", **how,
        }  # fmt: skip
        (root / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML
    model = (
        f"base_url={server.url}/completions,model={server.served.name},"
        f"tokenizer={root / 'tokenizer'},max_length=200,num_concurrent=2"
    )
    subprocess.run(
        [
            PROGRAM, "--model", "local-completions", "--model_args", model,
            "--include_path", root, "--tasks", ",".join(TASKS), "--batch_size", "2",
            "--apply_chat_template", "--log_samples", "--output_path", root / "out",
        ],
        cwd=root, check=True, timeout=500,
        env={**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(root / "cache")},
    )  # fmt: skip
    (results,) = (root / "out").rglob("results_*.json")
    found: dict[str, Any] = {"results": json.loads(results.read_text())["results"]}
    for name in TASKS:
        (file,) = (root / "out").rglob(f"samples_{name}_*.jsonl")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        found[name] = sorted(lines, key=lambda line: line["doc_id"])
    return found


def test_its_texts_are_ours_and_its_figure_follows(
    harness: dict[str, Any], server: Running
) -> None:
    wanted = [greedy(server.served, one) for one in QUESTIONS]
    assert [line["resps"][0][0] for line in harness["says"]] == wanted
    assert harness["results"]["says"]["exact_match,none"] == 0.5


def test_its_log_probabilities_are_the_models(harness: dict[str, Any], server: Running) -> None:
    for line in harness["reads"]:
        asked = line["arguments"]["gen_args_0"]
        value, _ = line["resps"][0][0]
        wanted = read(server.served, asked["arg_0"], asked["arg_1"])
        assert float(value) == pytest.approx(wanted, abs=1e-3) and wanted < -1
