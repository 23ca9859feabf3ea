"""Kinds of teachers of a stage: the student's own start."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.core import unread
from distill_jax.models import hf_io, lora
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run
from distill_jax.stages import runner
from distill_jax.stages import teacher as teachers
from distill_jax.stages.kinds import KINDS
from distill_jax.training import state as states
from tests.forecast.test_kinds import job
from tests.stages.small import rows, small
from tests.stages.test_teacher import batch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def how(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Stage rl from the adapter of stage sft; the run's teacher is that student merged."""
    ctx = Run(small(), begun)
    student = ctx.load_student("sft")
    merged = lora.merge(student.params["base"], student.params["lora"], ctx.config.lora.scale)
    teacher = tmp_path_factory.mktemp("merged")
    hf_io.save_hf(teacher, student.model.config, merged, tokenizer=ctx.data.tokenizer)
    return {
        "stages": ("rl",),
        "teacher__path": str(teacher),
        "student__path": str(begun / "pretrain" / "student" / "model"),
        "rl__start": str(begun / "sft" / "adapter"),
        "rl__eval_every": 0,
        "distill__start": str(begun / "sft" / "adapter"),
    }


def start_of(run: Run) -> tuple[Loaded, Any]:
    """The start as stage rl hands it to its teacher, and the frozen weights of the student."""
    student = run.load_student(run.config.plan["rl"].start)
    trainable, frozen = states.split(student.params, "lora")
    reference = jax.tree.map(jax.numpy.copy, trainable)
    return Loaded(student.model, states.join(reference, frozen)), frozen


def live_bytes() -> int:
    return sum(x.nbytes for x in jax.live_arrays())


def test_the_start_as_teacher_holds_no_second_copy(how: dict[str, Any], tmp_path: Path) -> None:
    run = Run(small(**how, rl__teacher__source="start"), tmp_path)
    start, frozen = start_of(run)
    before = live_bytes()
    made = teachers.scorer(run, run.stage("rl").settings, start)
    assert live_bytes() == before > 0
    pairs = zip(jax.tree.leaves(made.params["base"]), jax.tree.leaves(frozen["base"]), strict=True)
    assert all(own is theirs for own, theirs in pairs)
    # A teacher of its own takes memory: the figure would show a copy.
    other = Run(small(**how), tmp_path)
    assert other.stage("rl").settings.teacher.is_model
    kept = teachers.scorer(other, other.stage("rl").settings, start)
    assert live_bytes() > before, kept


def test_its_scores_are_those_of_the_merged_start(how: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for source in ("start", "model"):
        run = Run(small(**how, rl__teacher__source=source), tmp_path)
        made = teachers.scorer(run, run.stage("rl").settings, start_of(run)[0])
        host = batch(run)
        scores = made.score(host)
        inside = np.arange(16) < host["response_len_B"][:, None]
        found.append([np.asarray(x)[inside] for x in (scores.q_BR, scores.value_BR)])
    np.testing.assert_allclose(*found, atol=1e-5)


def test_stage_rl_pays_by_the_start_while_the_policy_moves(
    how: dict[str, Any], tmp_path: Path
) -> None:
    """Three steps with a large rate: a teacher that moved with the policy would pay otherwise."""
    paid = {}
    fast = {"rl__steps": 3, "rl__optimizer__learning_rate": 0.03, "rl__minibatches": 2}
    for source in ("start", "model"):
        directory = tmp_path / source
        runner.run(small(**how, **fast, rl__teacher__source=source), directory)
        found = rows(directory, "rl")
        paid[source] = [row["rewards/intrinsic/mean"] for row in found]
    assert len(paid["start"]) == 3
    np.testing.assert_allclose(paid["start"], paid["model"], atol=1e-5)


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_distillation_from_the_start_begins_at_zero(
    how: dict[str, Any], tmp_path: Path, trainable: str
) -> None:
    """Student and teacher are equal before the first update, and differ after it."""
    settings = {
        "source": "start", "data": "student_samples", "ce": 0.0, "trainable": trainable,
    }  # fmt: skip
    changes = {
        "stages": ("distill",),
        "distill__teacher__source": settings["source"],
        "distill__data": settings["data"],
        "distill__loss__ce_weight": settings["ce"],
        "distill__trainable": settings["trainable"],
        "distill__eval_every": 0,
        # Gradients are 0 at first: decay alone moves the weights.
        "distill__optimizer__weight_decay": 5.0,
    }
    runner.run(small(**{**how, **changes}), tmp_path)
    first, *later = [row["kl"] for row in rows(tmp_path, "distill")]
    assert abs(first) < 1e-6 and later[-1] > 10 * abs(first) + 1e-9


def test_the_forecast_has_no_weights_of_a_teacher() -> None:
    def parts(**changes: Any) -> dict[str, int]:
        # The reference is a copy of the start, in both.
        settings = small(rl__group__beta=0.1, **changes).plan["rl"]
        found = KINDS["rl"].forecast
        assert found is not None
        return {part.name: part.bytes for part in found(job(), settings)}

    own, start = parts(), parts(rl__teacher__source="start")
    assert own.keys() - start.keys() == {"teacher weights (float32)"}
    name = "teacher scoring: activations"
    assert start[name] < own[name]  # those of the student, which is smaller
    assert all(start[key] == own[key] for key in start if key != name)


def test_nothing_reads_it_without_an_intrinsic_reward() -> None:
    settings = small(rl__rewards__intrinsic_weight=0.0, rl__teacher__source="start").plan["rl"]
    assert "teacher.source" in [one.name for one in unread.find(settings)]
    assert settings.roles() == ("student",)
