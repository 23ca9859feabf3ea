"""Several teachers side by side: each row is scored by the one that its problem names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError, TokenizerMismatchError
from distill_jax.core.files import read_json
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.models import hf_io
from distill_jax.run.run import Run
from distill_jax.stages import checks, forecasts, runner
from distill_jax.stages import teacher as teachers
from distill_jax.stages.rl_step import RLStep
from distill_jax.training.records import read_rows
from tests.stages.hf import tokenizer, write_model, write_problems
from tests.stages.small import rows, small, weights
from tests.stages.stopping import sigterm
from tests.stages.test_teacher import batch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Odd problems name teacher `big`, even ones the run's own."""
    root, tok = tmp_path_factory.mktemp("routes"), tokenizer()
    data = write_problems(root / "data")
    for path in data.iterdir():
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for place, line in enumerate(lines):
            line["from"] = ("teacher", "big")[place % 2]
        path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    big = write_model(root / "big", rows=384, tok=tok, seed=2, noise=0.1, num_layers=2)
    return {
        "teacher__path": str(write_model(root / "teacher", rows=320, tok=tok, seed=1, noise=0.1)),
        "student__path": str(write_model(root / "student", rows=320, tok=tok, noise=0.1)),
        "data__source": str(data),
        "stages": ("rl",),
        "rl__start": "base",
        "rl__eval_every": 0,
        "rl__batch_multiple": 8,
        "rl__buckets__rows": 4,
        "rl__teacher__models": (f"big={big}",),
        "rl__teacher__column": "from",
    }


def scores(how: dict[str, Any], workdir: Path, **changes: Any) -> tuple[Any, list[str]]:
    """q_BR and value_BR inside of the responses of a batch, and the name of each row's teacher."""
    run = Run(small(**{**how, **changes}), workdir)
    host, problems = batch(run), run.data.problems("train").problems[:8]
    other = dict.fromkeys(("response_mask_BR", "ended_B", "behaviour_logp_BR"))
    made = teachers.of_stage(run, run.stage("rl"), run.load_student("base"))
    assert made is not None
    found = made.launch(RolloutBatch(**host, **other), problems)()
    made.close()
    inside = np.arange(16) < host["response_len_B"][:, None]
    kept = [np.where(inside, x, 0.0) for x in (found.q_BR, found.value_BR)]
    return np.stack(kept, axis=1), [str(one.extra["from"]) for one in problems]


@pytest.mark.parametrize("megabytes", [0.0, 1.0])
@pytest.mark.parametrize("packed", [False, True])
def test_each_row_has_its_own_teachers_scores(
    how: dict[str, Any], tmp_path: Path, megabytes: float, packed: bool
) -> None:
    alone = {"rl__teacher__models": (), "rl__teacher__column": ""}
    big = dict(one.split("=") for one in how["rl__teacher__models"])["big"]
    buckets = {"rl__buckets__packed": packed}
    routed, names = scores(how, tmp_path, rl__cache__megabytes=megabytes, **buckets)
    assert set(names) == {"teacher", "big"}
    wanted = {
        "teacher": scores(how, tmp_path, **alone)[0],
        "big": scores(how, tmp_path, **alone, teacher__path=big)[0],
    }
    for row, name in enumerate(names):
        np.testing.assert_allclose(routed[row], wanted[name][row], atol=1e-5)
    assert np.abs(wanted["teacher"] - wanted["big"]).max() > 1e-2


def test_a_run_with_two_teachers(how: dict[str, Any], tmp_path: Path) -> None:
    """It records both models' weights, forecasts both, and resumes to equal bits."""
    config = small(**how, rl__cache__megabytes=1.0)
    runner.run(config, tmp_path / "a")
    found = read_json(tmp_path / "a" / "rl" / "done.json") or {}
    assert {"weights of the teacher", "weights of big"} <= found["inputs"].keys()
    last = read_rows(tmp_path / "a" / "rl" / "metrics.jsonl")[-1]
    assert last["teacher_cache/misses"] > 0 and last["teacher_cache/big/misses"] > 0
    with sigterm(RLStep, 0, "asked to stop"):
        runner.run(config, tmp_path / "b")
    runner.run(config, tmp_path / "b")
    assert rows(tmp_path / "a", "rl") == rows(tmp_path / "b", "rl")
    assert weights(tmp_path / "a", "rl") == weights(tmp_path / "b", "rl")
    run = Run(config, tmp_path / "a")
    forecast = forecasts.of_stage(run, run.stage("rl"))
    assert forecast is not None
    sizes = {part.name: part.bytes for part in forecast.parts}
    _, base = hf_io.load_hf(Path(config.plan["rl"].teacher.paths["big"]))
    size = sum(leaf.nbytes for leaf in _leaves(base))
    assert sizes["teacher big weights"] == size > sizes["teacher weights (float32)"]
    assert sizes["teacher big scoring: activations"] > 0


def _leaves(tree: Any) -> list[Any]:
    return (
        [leaf for part in tree.values() for leaf in _leaves(part)]
        if isinstance(tree, dict)
        else [tree]
    )


def test_an_unknown_name_is_refused_with_its_row(how: dict[str, Any], tmp_path: Path) -> None:
    for column, said in (("question", "question=None"), ("level", "level=None")):
        with pytest.raises(
            DataError, match=rf"problem \S+ has {said}; wanted: one of teacher, big"
        ):
            checks.prepare(Run(small(**{**how, "rl__teacher__column": column}), tmp_path))


def test_models_that_do_not_fit_are_refused(how: dict[str, Any], tmp_path: Path) -> None:
    for models in (("big",), ("=x",), ("teacher=x",), ("a=x", "a=y")):
        with pytest.raises(ConfigError, match="wanted: NAME=PATH each"):
            small(**{**how, "rl__teacher__models": models})
    with pytest.raises(ConfigError, match="wanted: source=model, and the column"):
        small(**{**how, "rl__teacher__column": ""})
    with pytest.raises(ConfigError, match="one teacher's distributions enter the loss"):
        small(**how, distill__teacher__models=("a=x",), distill__teacher__column="from")
    far = {"rl__teacher__prompt": "{question} {solution}", "rl__teacher__max_prompt_tokens": 160}
    for role in ("teacher", "student"):
        made = {"rows": 320, "noise": 0.1, "max_position_embeddings": 256, "tok": tokenizer()}
        far[f"{role}__path"] = str(write_model(tmp_path / role, **made))
    with pytest.raises(ConfigError, match="take 184 positions; wanted: at most the teacher big's"):
        checks.prepare(Run(small(**{**how, **far}), tmp_path))
    other = write_model(tmp_path / "other", rows=320, tok=tokenizer(seed=3))
    with pytest.raises(TokenizerMismatchError):
        checks.prepare(Run(small(**{**how, "rl__teacher__models": (f"a={other}",)}), tmp_path))
