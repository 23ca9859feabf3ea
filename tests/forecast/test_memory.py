"""The memory forecast: bytes of trees to the byte, activations beside XLA's own analysis."""

import dataclasses
import functools
import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from distill_jax.core import rng, sharding
from distill_jax.core.errors import ConfigError
from distill_jax.forecast import activations, distillation, limits
from distill_jax.forecast.activations import Program, Rows
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Forecast
from distill_jax.forecast.weights import weights_bytes
from distill_jax.models import quantised, response
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.run import console
from distill_jax.run.models import Models
from distill_jax.run.run import Run, Stage
from distill_jax.stages import runner
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.runner import kind_of
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings, PPOSettings
from distill_jax.training.batch import Advantages, PolicyBatch
from distill_jax.training.step import make_update
from tests import tiny
from tests.stages.small import small

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

MESHES = {"one": (1, 1, 1), "fsdp": (1, 8, 1), "all": (2, 2, 2)}
# Width, feed-forward, layers, heads, kv heads, vocabulary.
NARROW, WIDE = (64, 160, 2, 4, 2, 512), (128, 512, 3, 4, 1, 2048)


def geometry(sizes: tuple[int, ...]) -> QwenConfig:
    D, F, L, H, K, V = sizes
    return QwenConfig("qwen2", V, D, F, L, H, K, D // H)


def abstract(tree: Any, where: Any) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, where
    )


@functools.cache
def initial(config: QwenConfig, lora: LoraConfig | None) -> Any:
    return jax.eval_shape(QwenModel(config, lora).init, jax.random.key(0))


def shapes(model: QwenModel, mesh: Any) -> Any:
    found = initial(model.config, model.lora)
    return abstract(found, states.param_shardings(found, mesh))


def model_of(sizes: tuple[int, ...], mesh: Any, **how: Any) -> QwenModel:
    fuse, rows = mesh.shape["tensor"] == 1, sharding.batch_sharding(mesh)
    return QwenModel(geometry(sizes), fuse=fuse, rows=rows, **how)


def program_of(sizes: tuple[int, ...], mesh: Any, **how: Any) -> Program:
    split = {"fsdp": mesh.shape["fsdp"], "tensor": mesh.shape["tensor"]}
    return Program(geometry(sizes), **split, platform="cpu", **how)


def batch_of(B: int, T: int, R: int, mesh: Any, names: tuple[str, ...]) -> dict[str, Any]:
    where = sharding.batch_sharding(mesh)
    kinds: dict[str, Any] = {
        "tokens_BT": ((B, T), jnp.int32),
        "prompt_len_B": ((B,), jnp.int32),
        "response_len_B": ((B,), jnp.int32),
        "targets_BR": ((B, R), jnp.int32),
    }
    return {
        name: jax.ShapeDtypeStruct(*kinds.get(name, ((B, R), jnp.float32)), sharding=where)
        for name in names
    }


def total(compiled: Any) -> tuple[int, int]:
    """Arguments and outputs that do not alias; temporaries."""
    m = compiled.memory_analysis()
    held = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    return held, m.temp_size_in_bytes


def near(compiled: Any, forecast_bytes: int) -> None:
    held, temp = total(compiled)
    assert abs(forecast_bytes - temp) <= 0.15 * (held + temp), (forecast_bytes, temp, held)
    assert temp > held / 3, "the arguments would hide any error"


@pytest.mark.parametrize(
    ("sizes", "rows", "mesh", "unroll", "parts"),
    [
        (NARROW, (16, 64, 32), "one", True, 1),
        (WIDE, (16, 128, 64), "one", False, 1),
        (WIDE, (64, 128, 64), "one", False, 4),
        (NARROW, (8, 256, 32), "one", False, 1),
        ((64, 160, 2, 4, 2, 16384), (16, 64, 32), "one", True, 1),
        (WIDE, (64, 128, 64), "fsdp", False, 1),
        (WIDE, (64, 128, 64), "all", True, 1),
    ],
)
def test_scoring(
    monkeypatch: pytest.MonkeyPatch, sizes: Any, rows: Any, mesh: str, unroll: bool, parts: int
) -> None:
    where = tiny.mesh(*MESHES[mesh])
    monkeypatch.setattr(response, "PART_TOKENS", rows[0] * rows[1] // parts)
    model = model_of(sizes, where, unroll=unroll)
    # A program of equal arguments is kept: an alpha for each number of parts.
    teacher = TeacherScorer(model, None, where, alpha=float(parts), vocab=sizes[-1])
    names = ("tokens_BT", "prompt_len_B", "response_len_B", "targets_BR")
    compiled = teacher._score.lower(shapes(model, where), batch_of(*rows, where, names)).compile()
    B, T, R = rows
    shards = sharding.batch_shards(where)
    found = activations.scoring_in_parts(
        program_of(sizes, where, unroll=unroll), Rows(B // shards, T, R + 1), shards=shards
    )
    near(compiled, found)


@pytest.mark.parametrize(
    ("sizes", "rows", "mesh", "how"),
    [
        (NARROW, (16, 64, 32), "one", {"unroll": True, "remat": True}),
        (NARROW, (16, 64, 32), "one", {"unroll": False}),
        (NARROW, (8, 256, 128), "one",
         {"unroll": False, "remat": True, "accumulate": 2, "algorithm": "ppo"}),
        (WIDE, (64, 128, 64), "all", {"unroll": False, "remat": True}),
        (WIDE, (64, 128, 64), "fsdp", {"unroll": True}),
        (NARROW, (16, 64, 32), "one", {"unroll": True, "samples": 4}),
        (NARROW, (16, 256, 128), "one", {"unroll": False, "remat": True, "samples": 8}),
        (WIDE, (64, 128, 64), "fsdp", {"unroll": True, "accumulate": 2, "samples": 4}),
    ],
)  # fmt: skip
def test_update(sizes: Any, rows: Any, mesh: str, how: dict[str, Any]) -> None:
    how = dict(how)
    where, name = tiny.mesh(*MESHES[mesh]), how.pop("algorithm", "grpo")
    accumulate, samples = how.pop("accumulate", 1), how.pop("samples", 1)
    algorithm = ALGORITHMS[name]
    settings = PPOSettings() if algorithm.uses_values else GroupSettings()
    model = model_of(sizes, where, lora=LoraConfig(rank=4), **how)
    trainable, frozen = states.split(shapes(model, where), "lora")
    if algorithm.uses_values:
        trainable = jax.eval_shape(lambda x: states.with_value_head(x, sizes[0]), trainable)
    tx = optimizer.make(optimizer.OptimizerSettings(), 10)
    state = jax.eval_shape(lambda x: fresh(x, tx), trainable)
    lies = states.state_shardings(state, tx, where)
    loss, totals = losses.policy(model, algorithm, settings, temperature=1.0, vocab=sizes[-1])
    update = make_update(loss, totals, tx, where, lies, accumulate=accumulate)
    names = ("tokens_BT", "prompt_len_B", "targets_BR", "loss_mask_BR", "behaviour_logp_BR",
             "old_logp_BR")  # fmt: skip
    made = ("advantage_BR", "return_BR", "old_value_BR")
    batch = PolicyBatch(
        **batch_of(*rows, where, names),
        prompts_PS=None,
        ref_logp_BR=None,
        advantages=Advantages(**batch_of(*rows, where, made)),
    )
    B, T, R = rows
    shards = sharding.batch_shards(where)
    placed = Rows(B // shards // accumulate, T, R)
    if samples > 1:  # each prompt of T − R once, in rows of groups
        P, S = B // samples, T - R
        prompts_PS = jax.ShapeDtypeStruct(
            (P, S), jnp.int32, sharding=sharding.batch_sharding(where)
        )
        batch = batch.replace(prompts_PS=prompts_PS)  # type: ignore[attr-defined]
        placed = Rows(P // shards // accumulate, S + samples * R, samples * R, most_keys=T)
    numbers = (np.int32(0), np.int32(1))
    compiled = update.lower(abstract(state, lies), frozen, batch, *numbers).compile()  # type: ignore[attr-defined]
    found = activations.update(
        program_of(sizes, where, rank=4, **how), placed, shards=shards,
    )  # fmt: skip
    near(compiled, found)


def fresh(trainable: Any, tx: Any) -> states.TrainState:
    zero = jnp.zeros((), jnp.int32)
    return states.TrainState(
        step=zero,
        trainable=trainable,
        opt_state=tx.init(trainable),
        reward_state=(),
        curriculum_state=(),
        skipped=zero,
        skipped_in_row=zero,
        key=rng.run_key(0),
    )


# --- trees, to the byte ---------------------------------------------------------------------------


def on_first_device(tree: Any) -> int:
    first = jax.devices()[0]
    parts = [s for leaf in jax.tree.leaves(tree) for s in leaf.addressable_shards]
    return sum(part.data.nbytes for part in parts if part.device == first)


@pytest.mark.parametrize("mesh", ["one", "fsdp", "all"])
@pytest.mark.parametrize("quantise", ["none", "int8"])
def test_weights_are_those_of_the_real_load(mesh: str, quantise: str) -> None:
    where = tiny.mesh(*MESHES[mesh])
    model, params = tiny.build(geometry(NARROW), lora=False)
    placed = tiny.placed(params, where)["base"]
    if quantise == "int8":
        placed = jax.tree_util.tree_map_with_path(
            lambda path, x: (
                quantised.quantise(x, jnp.float32)
                if quantised.is_quantised(tuple(k.key for k in path))
                else x
            ),
            placed,
        )
    settings = dataclasses.replace(small().teacher, quantise=quantise)
    mine = jax.sharding.AbstractMesh(MESHES[mesh], sharding.AXES)
    for some in (where, mine):
        assert weights_bytes(model.config, settings, some) == on_first_device(placed)


@pytest.mark.parametrize("mesh", ["one", "all"])
def test_adapter_and_optimiser_are_those_of_the_real_state(mesh: str) -> None:
    where = tiny.mesh(*MESHES[mesh])
    config = small(lora__rank=4)
    model = QwenModel(geometry(NARROW), config.lora)
    lora = tiny.placed({"lora": tiny.weights(model)["lora"]}, where)
    trainable = states.with_value_head(lora, model.config.hidden_size)
    tx = optimizer.make(config.plan["rl"].optimizer, 10)
    state, _ = states.create(trainable, tx, rng.run_key(0), where)
    job = Job(config, model.config, model.config, where, platform="cpu")
    copies, moments = job.trained_parts(config.plan["rl"].optimizer, values=True, kept="reference")
    assert moments.bytes == on_first_device(state.opt_state)
    assert copies.bytes == on_first_device(state.trainable) + on_first_device(lora)


# --- the whole ------------------------------------------------------------------------------------


def made(stage: str, **changes: Any) -> Forecast:
    config = small(**changes)
    job = Job(config, geometry(WIDE), geometry(NARROW), sharding.abstract_mesh(config.mesh, 8))
    parts = {"sft": job.supervised, "rl": job.reinforcement}[stage](config.plan[stage])
    return job.forecast(stage, parts)


def test_the_kinds_have_these_forecasts() -> None:
    plan = small().plan
    found = {name: kind_of(Stage(name, plan[name])).forecast for name in plan}
    wanted = {"sft": Job.supervised, "distill": distillation.parts, "rl": Job.reinforcement}
    assert {name: parts for name, parts in found.items() if parts is not None} == wanted


def test_the_peak_is_what_stays_and_the_greatest_phase() -> None:
    found = made("rl")
    stays = sum(part.bytes for part in found.parts if part.stays)
    assert found.peak == stays + max(part.bytes for part in found.parts if not part.stays)
    assert any("teacher weights" in part.name for part in found.parts)
    without = made("rl", rl__rewards__intrinsic_weight=0.0)
    assert not any("teacher" in part.name for part in without.parts)
    assert not any("teacher" in part.name for part in made("sft").parts)


def test_settings_move_it_as_they_should() -> None:
    def part(name: str, **changes: Any) -> int:
        return next(p.bytes for p in made("rl", **changes).parts if name in p.name)

    assert part("teacher weights", teacher__quantise="int8") < part("teacher weights") / 2
    assert part("teacher weights", mesh__data=1, mesh__fsdp=8) < part("teacher weights") / 4
    assert part("update", rl__accumulate=2) < part("update")
    assert part("update", student__remat=True) < part("update")
    whole = part("teacher scoring", rl__prompts_per_step=32)
    cut = {"rl__buckets__lengths": 2, "rl__buckets__rows": 8}
    assert part("teacher scoring", rl__prompts_per_step=32, **cut) < whole / 2.5
    assert part("rollout", sampling__max_new_tokens=100) > part("rollout")
    more = {"rl__oversample": 2, "rl__algorithm": "dapo"}  # decoded, not trained on
    twice = {"rl__samples_per_prompt": 8, "rl__algorithm": "dapo"}
    assert part("rollout", **more) == part("rollout", **twice) > part("rollout")
    assert part("update", **more) == part("update", rl__algorithm="dapo")


def test_a_reward_model_takes_rows_of_its_own_length_and_all_moments() -> None:
    config = small()
    job = Job(config, geometry(WIDE), geometry(NARROW), sharding.abstract_mesh(config.mesh, 8))

    def parts(**how: Any) -> dict[str, int]:
        found = job.step_rewards(PRMSettings(batch_size=8, max_length=64, **how))
        return {part.name.partition(":")[0]: part.bytes for part in found}

    lora, full = parts(), parts(trainable="full")
    sft = job.supervised(config.plan["sft"])
    assert lora["optimiser state"] == sft[2].bytes
    weights = full["student weights (float32)"]
    assert 2 * weights <= full["optimiser state"] < 2 * weights + 1000
    assert full["update"] > weights and full["update"] > lora["update"]
    assert job.step_rewards(PRMSettings(batch_size=8, max_length=512))[-1].bytes > lora["update"]


def test_a_pair_takes_two_rows() -> None:
    config = small()
    job = Job(config, geometry(WIDE), geometry(NARROW), sharding.abstract_mesh(config.mesh, 8))

    def parts(**how: Any) -> dict[str, int]:
        found = job.preference(DPOSettings(**{"batch_size": 16, "max_length": 96, **how}))
        return {part.name.partition(":")[0]: part.bytes for part in found}

    pairs, sft = parts(), job.supervised(config.plan["sft"])
    assert pairs["optimiser state"] == sft[2].bytes
    rows, program = job.rows(32, 96, 96), job.program("student")
    assert pairs["update"] == activations.update(program, rows, shards=8)
    assert pairs["reference scoring"] == activations.scoring(program, rows, shards=8)
    assert parts(batch_size=32, accumulate=2)["update"] == pairs["update"]
    assert parts(max_length=0) == parts(max_length=64 + 24)  # prompts and completions
    assert "reference scoring" not in parts(loss="simpo")


def test_a_warning_only_where_it_is_over() -> None:
    found = made("rl")
    limits.refuse(found, None)
    limits.refuse(found, int(found.peak / 1.4))
    with pytest.raises(ConfigError, match="stage rl is forecast to need .* GB of each device, at "):
        limits.refuse(found, int(found.peak / 1.6))
    assert limits.warning(found, None) == limits.warning(found, found.peak) == ""
    assert "WARNING" in limits.warning(found, found.peak - 1)
    assert limits.table(found, None).row_count == limits.table(found, 10).row_count


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_stage_prints_it_before_it_loads(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LoadsError(Exception):
        pass

    def load(self: Models, role: str, **_: Any) -> None:
        raise LoadsError(role)

    monkeypatch.setattr(Models, "load", load)
    screen = io.StringIO()
    monkeypatch.setattr(console, "make_console", lambda: Console(file=screen, width=100))
    run = Run(small(rl__start="base"), tmp_path)
    for role in ("teacher", "student"):  # config.json alone: there are no weights
        where = tmp_path / "pretrain" / role / "model"
        where.mkdir(parents=True)
        (where / "config.json").write_text(json.dumps(geometry(NARROW).to_hf()))
    with pytest.raises(LoadsError, match="student"):
        runner._run_stage(run, run.stage(stage), None)
    printed = screen.getvalue()
    assert f"{stage}: memory forecast" in printed and "peak" in printed
    assert ("teacher weights" in printed) == (stage == "rl")
