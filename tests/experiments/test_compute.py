"""Operations and seconds that a run has spent: enumerated by hand, and read from files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.files import CONFIG_FILE
from distill_jax.experiments import compute
from distill_jax.experiments.compute import Counts
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.rewards.settings import RewardSettings
from distill_jax.run.config import to_dict
from distill_jax.stages.distill_rows import SAMPLES_FILE
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.settings import SFTSettings
from distill_jax.training.algorithms import GroupSettings
from distill_jax.training.distillation import DistillLossSettings
from tests.stages.small import small

# A layer: q, k, v, o 2·2 each, MLP 3·2·3: 34 weights; the head 5·2 = 10; a pair costs 4 operations
# in each of 2 dimensions of the one head: 8.
STUDENT = QwenConfig(
    model_type="qwen2", vocab_size=5, hidden_size=2, intermediate_size=3, num_layers=1,
    num_heads=1, num_kv_heads=1, head_dim=2, rope_theta=10_000.0,
)  # fmt: skip
# q, o 4·4 each, k, v 4·2 each, MLP 3·4·3: 84 weights; the head 5·4 = 20; a pair 4·2·2 = 16.
TEACHER = dataclasses.replace(STUDENT, hidden_size=4, num_heads=2)

# One step: a prompt of 3 tokens, completions of 2 and 4. Two rows of 6 tokens on average.
COUNTS = Counts(*(np.array([0.0, x]) for x in (1, 2, 12, 6, 3, 6)), estimated=False)
# Layers: the prompt once, 6 drawn; pairs: 3²/2 of the prompt, 6·3 with it, 6·3/2 among themselves.
SAMPLING = 2 * (34 * 9 + 10 * 6) + 8 * (4.5 + 18 + 9)
# Pairs: 2 rows of 6²/2.
FORWARD = 2 * (34 * 12 + 10 * 6) + 8 * 36
UPDATE = 2 * 2 * (34 * 12 + 10 * 6) + 3 * 8 * 36
TWO_HEADS = 2 * 2 * (34 * 12 + 2 * 10 * 6) + 3 * 8 * 36
SCORES = 2 * (84 * 12 + 20 * 6) + 16 * 36


def rl(**changes: Any) -> RLSettings:
    return RLSettings(**{"prompts_per_step": 1, "samples_per_prompt": 2, **changes})


def loss(**changes: Any) -> DistillLossSettings:
    plain = {"divergence": "reverse", "temperature": 1.0, "ce_weight": 0.0, "kd_weight": 1.0}
    return DistillLossSettings(**{**plain, **changes})


def own(**changes: Any) -> DistillSettings:
    return DistillSettings(
        data="student_samples", batch_size=2, samples_per_prompt=2, loss=loss(**changes)
    )


EXACT = RewardSettings(
    correctness_weight=0.0, credit="exact", student_weight=1.0, normaliser="none", clip=0.0
)
GOLD = RewardSettings(correctness_weight=1.0, intrinsic_weight=0.0)
BOTH = RewardSettings(correctness_weight=1.0, intrinsic_weight=1.0)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        # Sampling, update, teacher, other.
        (rl(rewards=GOLD), (SAMPLING, UPDATE, 0, 0)),
        (rl(rewards=BOTH), (SAMPLING, UPDATE, SCORES, 0)),
        (rl(rewards=EXACT), (SAMPLING, TWO_HEADS, SCORES, 0)),
        # Weights with gradients.
        (
            rl(rewards=GOLD, trainable="full"),
            (SAMPLING, UPDATE + 2 * (34 * 12 + 10 * 6), 0, 0),
        ),
        # Two passes over a rollout: the old policy is scored once. Scores are of one pass, the
        # teacher in the loss is run in both.
        (rl(rewards=BOTH, num_iterations=2), (SAMPLING, 2 * UPDATE, SCORES, FORWARD)),
        (rl(rewards=EXACT, num_iterations=2), (SAMPLING, 2 * TWO_HEADS, 2 * SCORES, FORWARD)),
        # Parts of a pass cost what the pass does.
        (rl(rewards=BOTH, minibatches=2), (SAMPLING, UPDATE, SCORES, FORWARD)),
        (rl(rewards=GOLD, group=GroupSettings(beta=0.1)), (SAMPLING, UPDATE, 0, FORWARD)),
        (own(), (SAMPLING, UPDATE, SCORES, 0)),
        (own(future=1.0), (SAMPLING, TWO_HEADS, SCORES, 0)),
    ],
)
def test_a_step_by_hand(settings: Any, wanted: tuple[float, ...]) -> None:
    found = compute.spent(settings, COUNTS, STUDENT, TEACHER, {})
    assert [found[part][0] for part in compute.PARTS] == [0, 0, 0, 0]
    assert tuple(found[part][1] for part in compute.PARTS) == wanted


def test_learning_on_given_rows_by_hand() -> None:
    given = COUNTS._replace(prefilled_K=np.zeros(2), sampled_K=np.zeros(2))
    found = compute.spent(SFTSettings(batch_size=2), given, STUDENT, STUDENT, {})
    assert [found[part][1] for part in compute.PARTS] == [0, UPDATE, 0, 0]
    kd = DistillSettings(batch_size=2, loss=loss(ce_weight=1.0))
    found = compute.spent(kd, given, STUDENT, TEACHER, {})
    assert [found[part][1] for part in compute.PARTS] == [0, UPDATE, SCORES, 0]


def test_cross_entropy_on_what_the_teacher_wrote_by_hand() -> None:
    given = COUNTS._replace(prefilled_K=np.zeros(2), sampled_K=np.zeros(2))
    settings = DistillSettings(
        data="teacher_samples", batch_size=2, loss=loss(ce_weight=1.0, kd_weight=0.0)
    )
    # 10 prompts of 3 tokens, an answer each, 40 tokens in all; a row's answer has 3 on average.
    figures = {"teacher_prefilled_tokens": 30, "teacher_sampled_tokens": 40}
    written = 2 * (84 * 70 + 20 * 40) + 16 * (30 * 3 / 2 + 40 * 3 + 40 * 3 / 2)
    found = compute.spent(settings, given, STUDENT, TEACHER, figures)
    # Before the first step, and whatever is trained on later.
    assert [found[part].tolist() for part in compute.PARTS] == [
        [0, 0], [0, UPDATE], [written, written], [0, 0]
    ]  # fmt: skip
    with pytest.raises(compute.Unknown, match="teacher_sampled_tokens"):
        compute.spent(settings, given, STUDENT, TEACHER, {})


# --- counts ---------------------------------------------------------------------------------------


def logged(step: int, tokens: int, **more: float) -> dict[str, Any]:
    return {"step": step, "num_tokens": tokens, **more}


FULL = {"num_response_tokens": 6, "num_prefilled_tokens": 3, "num_sampled_tokens": 8}


def test_recorded_counts_are_taken() -> None:
    rows = [{"step": 0, "eval/accuracy": 0.5}, logged(1, 12, **FULL)]
    found = compute.counts(rl(), rows)
    assert not found.estimated
    assert [x[1] for x in found[:6]] == [1, 2, 12, 6, 3, 8] and [x[0] for x in found[:6]] == [0] * 6
    # Given rows are not sampled.
    found = compute.counts(SFTSettings(batch_size=4), [logged(2, 50, num_response_tokens=20)])
    assert [x[1] for x in found[:6]] == [2, 8, 50, 20, 0, 0]


@pytest.mark.parametrize("settings", [rl(), own()])
def test_counts_of_an_earlier_version_are_estimated(settings: Any) -> None:
    length = "completions/mean_length"
    rows = [logged(1, 12, **{length: 3.0}), logged(3, 34, **{length: 2.0})]
    found = compute.counts(settings, rows)
    # Two rows a step: 2·3 tokens, then 2 steps of 2·2. A prompt is read once for two samples.
    assert found.estimated and found.step_K.tolist() == [0, 1, 3]
    assert found.rows_K.tolist() == [0, 2, 6] and found.tokens_K.tolist() == [0, 12, 34]
    assert found.response_K.tolist() == found.sampled_K.tolist() == [0, 6, 14]
    assert found.prefilled_K.tolist() == [0, 3, 10]


@pytest.mark.parametrize(
    ("settings", "row", "rounds"),
    [
        (SFTSettings(), {}, 1),
        (DistillSettings(), {"completions/mean_length": 3.0}, 1),
        (rl(), {}, 1),
        (rl(), {"completions/mean_length": 3.0}, 2),
        (rl(dynamic_sampling=1), {"completions/mean_length": 3.0}, 1),
        (rl(samples_per_prompt=4, oversample=2), {"completions/mean_length": 3.0}, 1),
    ],
)
def test_counts_that_are_not_recorded_are_unknown(
    settings: Any, row: dict[str, float], rounds: int
) -> None:
    with pytest.raises(compute.Unknown, match="has no num_response_tokens"):
        compute.counts(settings, [logged(1, 12, **row)], rounds=rounds)


# --- files ----------------------------------------------------------------------------------------


def run(workdir: Path, **changes: Any) -> Path:
    config = small(**{"rl__prompts_per_step": 1, "rl__samples_per_prompt": 2, **changes})
    (workdir / CONFIG_FILE).write_text(json.dumps(to_dict(config)), encoding="utf-8")
    for role, geometry in (("student", STUDENT), ("teacher", TEACHER)):
        path = workdir / "pretrain" / role / "model" / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(geometry.to_hf()), encoding="utf-8")
    return workdir


def test_the_stages_of_a_run_add_up(tmp_path: Path) -> None:
    run(tmp_path, sft__batch_size=2)
    sft = [logged(1, 12, num_response_tokens=6)]
    both = [logged(1, 12, **{**FULL, "num_sampled_tokens": 6})]
    found = compute.operations(tmp_path, {"sft": sft, "rl": both})
    parts = dict(zip(compute.PARTS, (SAMPLING, 2 * UPDATE, SCORES, 0), strict=True))
    assert found.parts == {**parts, "all": sum(parts.values())} and not found.missing
    # Of the last stage by step, sft before it.
    assert [found.at(step) for step in (0, 1)] == [UPDATE, sum(parts.values())]
    assert found.at(9) == found.at(1)


def test_between_logged_steps_is_a_straight_line(tmp_path: Path) -> None:
    run(tmp_path)
    rows = [logged(2, 12, num_response_tokens=6), logged(4, 24, num_response_tokens=12)]
    spent = compute.operations(tmp_path, {"sft": rows})
    values = [spent.at(step) for step in (0, 1, 2, 3, 4)]
    assert values[1] == pytest.approx(values[2] / 2)
    assert values[3] == pytest.approx((values[2] + values[4]) / 2)


def test_the_students_own_start_costs_what_the_student_does(tmp_path: Path) -> None:
    rows = [logged(1, 12, **{**FULL, "num_sampled_tokens": 6})]
    found = compute.operations(run(tmp_path, rl__teacher__source="start"), {"rl": rows})
    assert found.parts is not None and found.parts["teacher"] == FORWARD


def test_answers_are_written_by_the_teacher(tmp_path: Path) -> None:
    how = {"data": "teacher_samples", "batch_size": 2, "loss__kd_weight": 0.0}
    run(tmp_path, **{f"distill__{name}": value for name, value in how.items()})
    figures = {"teacher_prefilled_tokens": 30, "teacher_sampled_tokens": 40}
    (tmp_path / "distill").mkdir()
    done = {"figures": figures}
    (tmp_path / "distill" / "done.json").write_text(json.dumps(done), encoding="utf-8")
    rows = {"distill": [logged(1, 12, num_response_tokens=6)]}
    found = compute.operations(tmp_path, rows)
    written = 2 * (84 * 70 + 20 * 40) + 16 * (30 * 3 / 2 + 40 * 3 + 40 * 3 / 2)
    assert found.parts is not None and found.parts["teacher"] == written
    assert [found.at(step) for step in (0, 1)] == [written, written + UPDATE]


def test_a_run_without_training_has_spent_nothing(tmp_path: Path) -> None:
    found = compute.operations(tmp_path, {})
    assert found.parts == dict.fromkeys((*compute.PARTS, "all"), 0.0)


@pytest.mark.parametrize(
    ("changes", "stage", "why"),
    [
        ({"rl__teacher__prompt": "{question}"}, "rl", "teacher of stage rl reads is not recorded"),
        ({"rl__cache__megabytes": 1.0}, "rl", "a cache"),
        ({"rl__process__reward_model": "./prm"}, "rl", "the reward model of stage rl"),
        ({}, "pretrain", "is of kind pretrain"),
        ({}, "other", "is of an unknown kind"),
    ],
)
def test_what_is_not_recorded_is_named(
    tmp_path: Path, changes: dict[str, Any], stage: str, why: str
) -> None:
    found = compute.operations(run(tmp_path, **changes), {stage: [logged(1, 12, **FULL)]})
    assert found.parts is None and why in found.missing and found.at(1) is None


def test_missing_files_are_named(tmp_path: Path) -> None:
    rows = {"rl": [logged(1, 12, **FULL)]}
    assert "config.json" in compute.operations(tmp_path, rows).missing
    run(tmp_path)
    (tmp_path / "pretrain" / "teacher" / "model" / "config.json").unlink()
    assert compute.operations(tmp_path, rows).parts is None
    # An arm without a teacher does not ask for it.
    run(tmp_path, rl__rewards__intrinsic_weight=0.0)
    (tmp_path / "pretrain" / "teacher" / "model" / "config.json").unlink()
    assert compute.operations(tmp_path, rows).parts is not None


# --- seconds --------------------------------------------------------------------------------------


def timed(step: int, seconds: float | None = None) -> dict[str, Any]:
    return logged(step, 1) | ({} if seconds is None else {"step_time": seconds})


def test_seconds_by_hand() -> None:
    # The first step traces: it costs what those to step 5 do. Between 5 and 10 all compiled.
    rows = [
        timed(1, 90.0),
        {"step": 3, "eval/accuracy": 0.1},
        timed(5, 2.0),
        timed(10),
        timed(12, 3),
    ]
    found = compute.seconds(rows)
    assert found is not None
    assert found[0].tolist() == [0, 1, 5, 10, 12] and found[1].tolist() == [0, 2, 10, 25, 31]
    found = compute.seconds([timed(1, 9.0), timed(5, 2.0), timed(6)])
    assert found is not None and found[1].tolist() == [0, 2, 10, 12]
    found = compute.seconds([timed(2, 9.0)])
    assert found is not None and found[1].tolist() == [0, 18]
    assert compute.seconds([timed(1), timed(5)]) is None and compute.seconds([]) is None


def test_seconds_of_stages_add_up(tmp_path: Path) -> None:
    stages = {"sft": [timed(2, 9.0)], "distill": [timed(3, 1.0)]}
    found = compute.training_seconds(tmp_path, stages)
    assert found is not None and found[1].tolist() == [18, 21]
    (tmp_path / "distill").mkdir()
    (tmp_path / "distill" / SAMPLES_FILE).touch()
    assert compute.training_seconds(tmp_path, stages) is None
