"""The teacher of stage rl at scale: int8 kernels, length buckets, a cache, sharded."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, MissingExtraError
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.length_buckets import BucketedTeacher
from distill_jax.rewards.packed_teacher import PackedTeacher
from distill_jax.run.run import Run
from distill_jax.stages import checks, rl
from distill_jax.stages import teacher as teachers
from distill_jax.training.records import read_rows
from tests.stages.hf import random_pair
from tests.stages.small import rows, small, weights

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

HOW: dict[str, Any] = {
    "teacher__quantise": "int8",
    "mesh__data": 2,
    "mesh__fsdp": 4,
    "rl__buckets__lengths": 3,
    "rl__buckets__rows": 4,
    "rl__batch_multiple": 8,
}

# A batch in one call, at its own length.
WHOLE = {"rl__buckets__lengths": 1, "rl__buckets__rows": 32}


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """With random models of one tokenizer and problems from a file: nothing need be trained."""
    return {
        **HOW,
        **random_pair(tmp_path_factory.mktemp("teacher")),
        "rl__eval_every": 0,
    }


def scorer(run: Run) -> Any:
    return teachers.scorer(run, run.stage("rl").settings, run.load_student("base"))


def batch(ctx: Run) -> dict[str, np.ndarray]:
    random, B, T, R = np.random.default_rng(0), 8, 24, 16
    made = {
        "tokens_BT": random.integers(5, ctx.data.vocab, (B, T)).astype(np.int32),
        "prompt_len_B": random.integers(1, T - R, B).astype(np.int32),
        "response_len_B": random.integers(1, R, B).astype(np.int32),
    }
    index = made["prompt_len_B"][:, None] + np.arange(R)
    return {**made, "targets_BR": np.take_along_axis(made["tokens_BT"], index, axis=1)}


def test_an_int8_teacher_is_near_and_holds_fewer_bytes(how: dict[str, Any], tmp_path: Path) -> None:
    found = {}
    for quantise in ("none", "int8"):
        changes = {**how, "rl__buckets__lengths": 1, "teacher__quantise": quantise}
        ctx = Run(small(**changes), tmp_path)
        params = ctx.models.load("teacher").params
        kinds = {leaf.dtype for leaf in jax.tree.leaves(params["base"]["layers"])}
        assert (jnp.dtype(jnp.int8) in kinds) == (quantise == "int8")
        teacher = scorer(ctx)
        assert teacher is not None
        scores = teacher.score(batch(ctx))
        inside = np.arange(16) < batch(ctx)["response_len_B"][:, None]
        found[quantise] = np.asarray(scores.q_BR - scores.value_BR)[inside]
    error = np.abs(found["int8"] - found["none"])
    assert 0 < error.max() < 0.1  # logits of a model 16 wide


def test_stage_rl_with_it_and_the_cache_does_not_change_a_bit(
    how: dict[str, Any], tmp_path: Path
) -> None:
    """In length buckets a score does not depend on what was cached: the same adapter."""
    made, hits = {}, {}
    # The second step draws what the first one drew: as many problems as a step takes, a policy that
    # hardly moves, and nearly greedy samples.
    again = {
        "data__limit": 4, "sampling__temperature": 0.01,
        "rl__optimizer__learning_rate": 1e-6,
    }  # fmt: skip
    for name, megabytes in (("none", 0.0), ("small", 0.002), ("all", 1.0)):
        directory = tmp_path / name
        run = Run(small(**how, **again, rl__cache__megabytes=megabytes), directory)
        stage = run.stage("rl")
        rl.KIND.run(run, stage, run.directory("rl"), rl.KIND.prepare(run, stage))
        metrics = [row for row in rows(directory, "rl") if "rewards/intrinsic/mean" in row]
        # Equal samples teach nothing, so the weights alone would not see a wrong score.
        scores = [row["rewards/intrinsic/mean"] for row in metrics]
        made[name] = (weights(directory, "rl"), scores)
        assert len(metrics) == 2
        hits[name] = read_rows(directory / "rl" / "metrics.jsonl")[-1].get("teacher_cache/hits", 0)
        assert all(np.isfinite(row["rewards/intrinsic/mean"]) for row in metrics)
    assert made["none"] == made["small"] == made["all"]
    assert hits["none"] == 0 < hits["all"], hits


def test_buckets_stand_below_the_cache(how: dict[str, Any], tmp_path: Path) -> None:
    teacher = scorer(Run(small(**how, rl__cache__megabytes=1.0), tmp_path))
    assert isinstance(teacher, CachedTeacher)
    assert isinstance(teacher.teacher, BucketedTeacher)
    # 64 prompt and 24 new tokens in thirds of 88, each a multiple of 8; 4 rows on 2 × 4 devices.
    assert (teacher.teacher.sizes, teacher.teacher.rows) == ((32, 64, 88), 8)
    assert isinstance(scorer(Run(small(**how), tmp_path)), BucketedTeacher)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_stage_rl_with_packed_rows_learns_as_without(
    how: dict[str, Any], tmp_path: Path, algorithm: str
) -> None:
    """Its rewards and its update are the same up to rounding. Most answers are cut off, so the
    values of their ends count."""
    how = {
        **how,
        "teacher__quantise": "none",
        "rl__algorithm": algorithm,
        "rl__rewards__form": "raw",
        "rl__steps": 1,
        "rl__optimizer__warmup_steps": 0,
    }
    found = {}
    for name, changes in (("packed", {"rl__buckets__packed": True}), ("whole", WHOLE)):
        config, directory = small(**{**how, **changes}), tmp_path / name
        run = Run(config, directory)
        stage = run.stage("rl")
        rl.KIND.run(run, stage, run.directory("rl"), rl.KIND.prepare(run, stage))
        metrics = next(row for row in rows(directory, "rl") if "rewards/intrinsic/mean" in row)
        assert metrics["completions/clipped_ratio"] > 0.5
        found[name] = {k: v for k, v in metrics.items() if isinstance(v, float)}
    assert found["packed"] == pytest.approx(found["whole"], rel=1e-4, abs=1e-5)


def test_a_packed_scorer_has_the_calls_of_its_settings(how: dict[str, Any], tmp_path: Path) -> None:
    run = Run(small(**how, rl__buckets__packed=True), tmp_path)
    teacher, settings = scorer(run), run.stage("rl").settings
    assert isinstance(teacher, PackedTeacher)
    # 64 prompt and 24 new tokens: 88 · (2/5)^(1, 1/2, 0), to multiples of 16.
    assert teacher.sizes == (48, 64, 96)
    calls = settings.buckets.calls(88, 24, settings.batch_multiple, 8)
    assert [call.T for call in calls] == [48, 64, 96]
    assert {call.rows for call in calls} == {8}
    one = {**how, "rl__buckets__lengths": 1, "rl__buckets__packed": True}
    assert scorer(Run(small(**one), tmp_path / "one")).sizes == (96,)
    whole = scorer(Run(small(**{**how, **WHOLE}), tmp_path / "whole"))
    inside = np.arange(16) < batch(run)["response_len_B"][:, None]
    for x, other in zip(teacher.score(batch(run)), whole.score(batch(run)), strict=True):
        kept = inside if x.ndim == 2 else ...
        np.testing.assert_allclose(np.asarray(x)[kept], np.asarray(other)[kept], atol=1e-5)


def test_the_student_cannot_be_quantised() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting student\.quantise"):
        small(student__quantise="int8")


def test_without_qwix_it_is_told_before_anything(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Run(small(**how), tmp_path)
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(MissingExtraError, match="int8"):
        checks.prepare(context)


def test_the_cache_knows_whether_the_teacher_is_quantised(
    how: dict[str, Any], tmp_path: Path
) -> None:
    keys = set()
    for quantise in ("none", "int8"):
        changes = {**how, "rl__cache__megabytes": 1.0, "teacher__quantise": quantise}
        teacher = scorer(Run(small(**changes), tmp_path))
        assert isinstance(teacher, CachedTeacher)
        keys.add(teacher.cache.source.model)
    assert len(keys) == 2
