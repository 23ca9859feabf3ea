"""A work directory with two random models, an adapter, and problems in a file."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from distill_jax.models import hf_io
from distill_jax.report import view
from distill_jax.report.view import RunView, StageView
from distill_jax.run import run as runs
from tests.stages.hf import tokenizer, write_model, write_problems
from tests.stages.small import small


class Run(NamedTuple):
    """A work directory and the settings that fit it, as overrides."""

    workdir: Path
    settings: dict[str, Any]

    def opened(self, **changes: Any) -> runs.Run:
        return runs.Run(small(**{**self.settings, **changes}), self.workdir)


@pytest.fixture(scope="session")
def random_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Test problems: six, of which the third is too long and the fifth holds a special token."""
    root = tmp_path_factory.mktemp("random_run")
    tok = tokenizer()
    teacher = write_model(root / "teacher", rows=320, tok=tok, seed=1, noise=0.5)
    student = write_model(root / "student", rows=320, tok=tok, noise=0.5)
    data = write_problems(root / "data")
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    rows[2]["question"] = "And more. " * 40 + rows[2]["question"]
    rows[4]["question"] += "<|im_end|>"
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "stages": ("sft", "rl", "evaluate"),
        "teacher__path": str(teacher),
        "student__path": str(student),
        "data__source": str(data),
        "evaluate__batch": 2,
        "sampling__max_new_tokens": 6,
        "sampling__segment": 3,
    }
    run = Run(root / "run", settings)
    models = run.opened().models
    lora = models.load("student").params["lora"]
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda x: np.asarray(x + 0.5 * rng.standard_normal(x.shape), np.float32),
        jax.device_get(lora),
    )
    models.save_adapter(hf_io.load_config(student), moved, run.workdir / "sft" / "adapter")
    view.save(RunView((StageView("sft", "sft", "sft", "base", "student"),)), run.workdir)
    return run
