"""The forecast of stage distill: what its data, teacher and loss add to an update."""

import dataclasses
from typing import Any

import pytest

from configs import presets
from distill_jax.forecast.parts import Forecast
from distill_jax.run.config import RunConfig
from launch import forecast


def parts(config: RunConfig, devices: int = 1, **changes: Any) -> tuple[dict[str, int], Forecast]:
    config = dataclasses.replace(config.replace("distill", **changes), stages=("distill",))
    (found,) = forecast.run(config, devices)
    return {part.name: part.bytes for part in found.parts}, found


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return presets.qwen_0_5b().replace("distill", packing=0, accumulate=1)


def loss(config: RunConfig, **changes: Any) -> Any:
    return dataclasses.replace(config.plan["distill"].loss, **changes)  # type: ignore[attr-defined]


def test_cross_entropy_alone_is_an_update_and_no_more(config: RunConfig) -> None:
    alone, _ = parts(config, loss=loss(config, kd_weight=0.0, ce_weight=1.0))
    both, _ = parts(config)
    teacher, stage = config.teacher, config.plan["distill"]
    assert teacher.compute_dtype == "bfloat16"
    responses = -(-config.sampling.max_new_tokens // 16) * 16
    # The states of the 1.5B teacher, 1,536 wide, of every response token.
    states = 2 * stage.batch_size * responses * 1_536  # type: ignore[attr-defined]
    name = "update: activations"
    assert both[name] == alone[name] + states
    assert both.keys() == alone.keys()


def test_a_teacher_that_needs_more_than_the_update_decides(config: RunConfig) -> None:
    wide = dataclasses.replace(config, teacher=dataclasses.replace(
        config.teacher, path="Qwen/Qwen2.5-32B-Instruct"))  # fmt: skip
    large, _ = parts(wide, batch_size=512, accumulate=4)
    small, _ = parts(config, batch_size=512, accumulate=4)
    assert large["update: activations"] > 1.5 * small["update: activations"]
    own: dict[str, Any] = {"data": "student_samples", "loss": loss(config, ce_weight=0.0)}
    stage = config.plan["distill"].teacher  # type: ignore[attr-defined]
    shown = dataclasses.replace(stage, prompt="{question} {solution}", max_prompt_tokens=4096)
    longer, _ = parts(wide, batch_size=512, accumulate=4, teacher=shown, **own)
    assert longer["update: activations"] > 2 * large["update: activations"]


def test_the_gathered_head_of_the_teacher_is_held() -> None:
    config = presets.qwen_7b()
    alone, _ = parts(config, 8, loss=loss(config, kd_weight=0.0, ce_weight=1.0))
    both, _ = parts(config, 8)
    rows = 32 // 8 * 1024  # tokens of a device; the teacher is 5,120 wide
    assert config.plan["distill"].packing == 1024  # type: ignore[attr-defined]
    name = "update: activations"
    assert both[name] - alone[name] == 2 * 5_120 * (rows + 152_064)


def test_the_start_as_teacher_is_in_memory_once_with_its_adapter(config: RunConfig) -> None:
    stage = config.plan["distill"]
    source = dataclasses.replace(stage.teacher, source="start")  # type: ignore[attr-defined]
    own, _ = parts(config, teacher=source)
    other, _ = parts(config)
    assert not any(name.startswith("teacher weights") for name in own)
    assert own["adapter, its start as teacher"] == 2 * other["adapter"]


def test_samples_of_either_model_are_drawn(config: RunConfig) -> None:
    drawn, _ = parts(config, data="student_samples", loss=loss(config, ce_weight=0.0))
    written, _ = parts(config, data="teacher_samples")
    given, _ = parts(config)
    assert "rollout: decode weights, cache, logits" in drawn.keys() - given.keys()
    assert any("solutions of the teacher" in name for name in written.keys() - given.keys())


def test_more_samples_of_a_problem_than_a_batch_has_are_one_batch(config: RunConfig) -> None:
    stage = config.plan["distill"].teacher_samples  # type: ignore[attr-defined]
    many = dataclasses.replace(stage, batch=4, samples=16)
    found, _ = parts(config, data="teacher_samples", teacher_samples=many)
    assert any(name.startswith("16 solutions of the teacher") for name in found)
    assert any(name.startswith("1 prompts of solutions") for name in found)
    pairs = dataclasses.replace(stage, samples=2)
    usual, _ = parts(config, data="teacher_samples", teacher_samples=pairs)
    assert any(name.startswith(f"{stage.batch // 2} prompts of solutions") for name in usual)


def test_steps_on_own_samples_are_not_packed(config: RunConfig) -> None:
    alone, _ = parts(config, lmbda=0.5)
    both, _ = parts(config, lmbda=0.5, packing=1024)
    large, _ = parts(config, lmbda=0.5, packing=2048)
    packed, _ = parts(config, packing=2048)
    name = "update: activations"
    assert both[name] >= alone[name]
    assert large[name] == packed[name] > alone[name]


def test_a_stored_top_k_is_scored_before_the_update(config: RunConfig) -> None:
    listed, _ = parts(config, loss=loss(config, top_k=16))
    whole, _ = parts(config)
    assert listed["teacher scoring: activations"] > 0
    assert listed["update: activations"] < whole["update: activations"]


def test_all_weights_have_gradients(config: RunConfig) -> None:
    full, _ = parts(config, trainable="full")
    adapters, _ = parts(config)
    # Without the adapters' products, which are .65 GB, and with .99 GB of gradients.
    assert full["update: activations"] > adapters["update: activations"]
    assert full["optimiser state"] > 50 * adapters["optimiser state"]


def test_packed_rows_count_at_their_width(config: RunConfig) -> None:
    # 992 tokens at most, one example a row of 1,024 or of 2,048: padding is counted.
    narrow, _ = parts(config, packing=1024)
    wide, _ = parts(config, packing=2048)
    assert wide["update: activations"] > narrow["update: activations"]
