"""An update on eight devices equals that on one; arrays lie where the rules say."""

import json
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from distill_jax.core import rng, sharding
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.rewards import combine
from distill_jax.rewards.length import LengthSettings
from distill_jax.rewards.process import ProcessSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.run.run import Run
from distill_jax.stages import rl, rl_prepare, rl_programs, runner, supervised
from distill_jax.stages import teacher as teachers
from distill_jax.stages.rl_step import RLStep
from distill_jax.tasks import Judged
from distill_jax.training import losses, optimizer
from distill_jax.training import state as states
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings
from distill_jax.training.step import make_update
from tests.stages.distilled import one_update, way
from tests.stages.small import copy_stages, run_instead, small

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

MESHES = {
    "one": (1, 1, 1),
    "fsdp×tensor": (1, 4, 2),
    "data×tensor": (4, 1, 2),
    "data×fsdp×tensor": (2, 2, 2),
}


def context(workdir: Path, name: str, **changes: Any) -> Run:
    settings = dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), MESHES[name], strict=True))
    if name != "one":
        return Run(small(**settings, **changes), workdir)
    made = Run(small(**changes), workdir)
    made.mesh = sharding.make_mesh(sharding.MeshSettings(1, 1, 1), jax.devices()[:1])
    made.models.mesh = made.mesh
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made on one device: test_processes.py pretrains on four, and here steps are compared."""
    workdir = tmp_path_factory.mktemp("sharded") / "run"
    one = sharding.make_mesh(sharding.MeshSettings(), jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda settings: one)
        runner.run(small(stages=("pretrain", "sft")), workdir)
    return workdir


def fetched(state: states.TrainState) -> dict[str, np.ndarray]:
    tree = {"trainable": state.trainable, "opt": state.opt_state, "scale": state.reward_state}
    pairs = jax.tree_util.tree_leaves_with_path(sharding.fetch(tree))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in pairs}


def sft_update(where: Path, name: str) -> tuple[states.TrainState, Any, dict[str, float]]:
    ctx = context(where, name, sft__accumulate=1)
    student = ctx.load_student("sft")
    tx = optimizer.make(ctx.config.plan["sft"].optimizer, 2)
    trainable, frozen = states.split(student.params, "lora")
    state, shardings = states.create(trainable, tx, rng.run_key(0), ctx.mesh)
    update = make_update(*losses.sft(student.model, ctx.data.vocab), tx, ctx.mesh, shardings)
    step = supervised.examples_step(
        ctx, supervised.ExampleRows(ctx, answer_only=0.5, seed=0), update, frozen, 8, steps=1
    )
    state, metrics, _ = step(state, 0)
    return state, frozen, {k: float(v) for k, v in metrics.items()}


def rl_update(where: Path, name: str, algorithm: str) -> tuple[states.TrainState, dict, Any]:
    reference = {"rl__ppo__kl_coef": 0.1} if algorithm == "ppo" else {"rl__group__beta": 0.1}
    ctx = context(where, name, rl__algorithm=algorithm, rl__minibatches=2, **reference)
    stage, student = ctx.stage("rl"), ctx.load_student("sft")
    trainable, frozen = states.split(student.params, "lora")
    reference = jax.tree.map(jax.numpy.copy, trainable)
    if algorithm == "ppo":
        trainable = states.with_value_head(trainable, student.model.config.hidden_size)
    tx = optimizer.make(stage.settings.optimizer, 4)
    curriculum = rl.KIND.prepare(ctx, stage)
    state, shardings = states.create(
        trainable, tx, rng.run_key(0), ctx.mesh, combine.fresh_state(), curriculum.fresh()
    )
    step = RLStep(
        ctx,
        stage,
        student.model,
        frozen=frozen,
        reference=reference,
        teacher=teachers.of_stage(ctx, stage, student),
        step_scorer=None,
        curriculum=curriculum,
        tx=tx,
        shardings=shardings,
        lengths=rl_programs.lengths(ctx, stage.settings),
    )
    state, metrics, completions = step(state, 0)
    figures = {k: float(v) for k, v in metrics.items() if not k.startswith("time/")}
    return state, figures, completions


def close(got: dict[str, Any], wanted: dict[str, Any], **tolerance: float) -> None:
    assert got.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], err_msg=name, **tolerance)


@pytest.fixture(scope="module")
def sft_one(models: Path) -> Any:
    return sft_update(models, "one")


@pytest.mark.parametrize("name", ["fsdp×tensor", "data×tensor"])
def test_sft_update(models: Path, sft_one: Any, name: str) -> None:
    state, _, metrics = sft_update(models, name)
    close(metrics, sft_one[2], rtol=1e-4, atol=1e-6)
    close(fetched(state), fetched(sft_one[0]), rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_rl_update(models: Path, algorithm: str) -> None:
    one, figures, completions = rl_update(models, "one", algorithm)
    # Split over all three axes at once, which says as much as two meshes of two axes.
    state, more, texts = rl_update(models, "data×fsdp×tensor", algorithm)
    assert [c["completion"] for c in texts] == [c["completion"] for c in completions]
    close(more, figures, rtol=5e-3, atol=1e-4)
    close(fetched(state), fetched(one), rtol=2e-2, atol=2e-5)


@pytest.mark.parametrize("form", ["linear", "kimi", "o1_pruner"])
def test_length_term_on_eight_devices_equals_that_on_one(form: str) -> None:
    # 8 groups of 4, most answers right, most ended; one group a device.
    draw = np.random.default_rng(0)
    length_B = draw.integers(1, 9, 32).astype(np.int32)
    mask_BR = (np.arange(8) < length_B[:, None]).astype(np.float32)
    zero = np.zeros((32, 8), np.int32)
    host = RolloutBatch(zero, zero[:, 0], length_B, mask_BR, zero, draw.random(32) < 0.9, mask_BR)
    terms = {"correctness": (draw.random(32) < 0.8).astype(np.float32)}
    settings = RewardSettings(intrinsic_weight=0.0, length_weight=1.0, length=LengthSettings(form))
    found = []
    for devices in (1, 8):
        shape = sharding.MeshSettings(devices, 1, 1)
        mesh = sharding.make_mesh(shape, jax.devices()[:devices])
        rows = sharding.batch_sharding(mesh)
        placed = sharding.place((host, terms, mask_BR), rows)
        prepare = rl_prepare.program(
            rows, sharding.replicated(mesh), rewards=settings, bonus=ProcessSettings(),
            algorithm=ALGORITHMS["dapo"], settings=GroupSettings(), samples=4, max_new_tokens=8,
        )  # fmt: skip
        (batch, _), _, figures = prepare(combine.fresh_state(), *placed, None, None, None, None)
        assert batch.advantages.advantage_BR.sharding.is_equivalent_to(rows, 2)
        found.append((sharding.fetch(batch.advantages.advantage_BR), sharding.fetch(figures)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    close(*(figures for _, figures in found), rtol=1e-5)
    assert 0 < found[0][1]["length/open"] < 1 and found[0][1]["length/bonus"] > 0


def test_all_processes_train_on_the_verdicts_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that is met on one process alone: here the second lost its third program."""
    first = Judged(np.array([1, 0, 0], bool), np.array([0, 1, 0], bool), [{}] * 3, ["1", None, "3"])
    sent = iter((first.right_B, first.undecided_B))
    monkeypatch.setattr(sharding, "of_first_process", lambda _: next(sent))
    monkeypatch.setattr(sharding, "text_of_first_process", lambda _: json.dumps(first.stated))
    own = Judged(first.right_B & False, first.undecided_B, [{}] * 3, ["1", None, None])
    task = types.SimpleNamespace(judge=lambda *_: own)
    step = types.SimpleNamespace(run=types.SimpleNamespace(data=types.SimpleNamespace(task=task)))
    rollout = types.SimpleNamespace(ended_B=None)
    drawn = types.SimpleNamespace(repeated=list, texts=[], rollout=rollout)
    got = RLStep._judge(step, drawn)  # type: ignore[arg-type]
    assert got.right_B is first.right_B and got.undecided_B is first.undecided_B
    assert got.stated == first.stated


def test_parameters_and_optimiser_lie_where_the_rules_say(models: Path) -> None:
    state, frozen, _ = sft_update(models, "fsdp×tensor")
    layers = frozen["base"]["layers"]
    assert layers["self_attn"]["q_proj"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")
    assert layers["self_attn"]["k_proj"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")
    assert layers["self_attn"]["o_proj"]["kernel"].sharding.spec == P(None, "tensor", "fsdp")
    assert layers["mlp"]["up_proj"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")
    assert layers["mlp"]["down_proj"]["kernel"].sharding.spec == P(None, "tensor", "fsdp")
    assert frozen["base"]["embed_tokens"]["embedding"].sharding.spec == P("tensor", "fsdp")
    assert frozen["base"]["norm"]["scale"].sharding.is_fully_replicated
    lora = {"q_proj": (P(None, "fsdp"), P(None, None, "tensor")),
            "o_proj": (P(None, "tensor"), P(None, None, "fsdp"))}  # fmt: skip
    moments = state.opt_state[1].inner_state[0]
    for tree in (state.trainable, moments.mu, moments.nu):
        for name, (a, b) in lora.items():
            leaf = tree["lora"]["layers"]["self_attn"][name]
            for part, spec in (("lora_A", a), ("lora_B", b)):
                wanted = jax.sharding.NamedSharding(leaf[part].sharding.mesh, spec)
                assert leaf[part].sharding.is_equivalent_to(wanted, 3), (name, part)
    assert moments.count.sharding.is_fully_replicated


def test_cache_is_split_by_rows_and_heads(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rows over two axes and heads over the third; as many of each as stage rl draws.
    ctx = context(models, "data×fsdp×tensor")
    student = ctx.load_student("sft")
    sampler = ctx.models.sampler(student.model)
    seen: list[Any] = []
    segment = sampler._segment

    def watched(weights, carry, *rest):
        out = segment(weights, carry, *rest)
        seen.extend(jax.tree.leaves(carry.cache) if not carry.done_B.is_deleted() else [])
        seen.extend(jax.tree.leaves(out[0].cache))
        return out

    monkeypatch.setattr(sampler, "_segment", watched)
    data = ctx.data.problems("validation")
    sampler.generate(
        sampler.weights(student.params, ctx.config.sampling),
        data.prompts[:4],
        ctx.config.sampling,
        key=rng.run_key(0),
        prompt_ids=range(4),
        samples=4,
    )
    rows = ("data", "fsdp")
    assert seen
    for buffer in seen:
        wanted = jax.sharding.NamedSharding(ctx.mesh, P(rows, "tensor", None, None))
        assert buffer.sharding.is_equivalent_to(wanted, 4), buffer.sharding


@pytest.mark.parametrize(("name", "accumulate"), [("student", 1), ("teacher", 2)])
def test_eight_devices_and_microbatches_equal_one(
    models: Path, tmp_path: Path, name: str, accumulate: int
) -> None:
    workdir = copy_stages(models, tmp_path / "run", "pretrain", "sft")
    # eps hides no difference that counts, and keeps noise in gradients near 0 from being one.
    how: dict[str, Any] = {"distill__optimizer__eps": 1e-4}
    # Batches of as many rows as stage rl draws above, whose programs decode these, too.
    how |= {"distill__batch_size": 16, "distill__teacher_samples__batch": 16}
    want, figures = one_update(workdir, way(name, **how), (1, 1, 1))
    config = way(name, **how, distill__accumulate=accumulate)
    got, more = one_update(workdir, config, (2, 2, 2))
    assert more.keys() == figures.keys()
    # Each row's divergence finds its place again, whichever microbatch it was in.
    values = [key for key in figures if key.startswith("curriculum/q/")]
    assert len(values) == 2 and all(figures[key] > 0 for key in values)
    for key, value in figures.items():
        np.testing.assert_allclose(more[key], value, rtol=2e-3, atol=1e-4, err_msg=key)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=2e-2, atol=2e-5), got, want)


def test_mesh_checkpoints_and_records_may_change(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copy_stages(models, tmp_path / "run", "pretrain", "sft")

    def refuse(*_: Any) -> None:
        raise AssertionError("this stage must not run again")

    for stage in ("pretrain", "sft"):
        run_instead(monkeypatch, stage, refuse)
    how = {"mesh__tensor": 2, "checkpoint__keep": 5, "records__every": 3}
    only = {"evaluate__teacher": False, "report__problems": 0}
    runner.run(small(stages=("pretrain", "sft", "evaluate"), **how, **only), workdir)
    assert (workdir / "evaluate" / "done.json").exists()
