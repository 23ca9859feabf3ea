"""RunConfig: its flat form, and every plan that is refused."""

import dataclasses
import json
from typing import Any

import pytest

from configs import presets
from distill_jax.core.errors import ConfigError
from distill_jax.run.config import RunConfig, build, concerned, to_config_dict, to_dict, upstream
from distill_jax.run.record import stage_key
from distill_jax.stages.rl_settings import RLSettings

SMOKE = presets.smoke()


def changed(config: RunConfig = SMOKE, **changes: Any) -> RunConfig:
    return dataclasses.replace(config, **changes)


def planned(*names: str, config: RunConfig = SMOKE, **more: Any) -> RunConfig:
    """A config whose plan, and stages, are these; `more` are further stages' settings."""
    plan = {**config.plan, **more}
    return changed(config, plan={name: plan[name] for name in names}, stages=names)


# --- the flat form --------------------------------------------------------------------------------


def test_the_flat_form_keeps_the_order_of_the_plan() -> None:
    names = ("pretrain", "sft", "rl", "distill", "evaluate")
    assert list(names) != sorted(names)
    config = planned(*names)
    flat = to_config_dict(config)
    assert flat.plan == names and flat.rl.kind == "rl"
    assert list(build(flat).plan) == list(names) and build(flat) == config
    # As JSON with sorted keys, too.
    again = build(json.loads(json.dumps(to_dict(config), sort_keys=True)))
    assert list(again.plan) == list(names) and again == config


def test_a_config_with_a_setting_of_before_is_read() -> None:
    flat = to_dict(SMOKE)
    flat["student"]["quantise"] = "none"  # never anything else
    assert build(flat) == SMOKE
    flat["student"]["quantise"] = "int8"
    with pytest.raises(ConfigError, match="unknown setting student.quantise"):
        build(flat)


def test_two_stages_of_one_kind_are_overridden_apart() -> None:
    short = dataclasses.replace(SMOKE.plan["rl"], start="rl", steps=1)
    flat = to_config_dict(planned("pretrain", "sft", "rl", "rl_short", rl_short=short))
    flat.rl.steps = 7
    flat.rl_short.optimizer.learning_rate = 0.25
    built = build(flat)
    assert (built.plan["rl"].steps, built.plan["rl_short"].steps) == (7, 1)
    assert built.plan["rl_short"].optimizer.learning_rate == 0.25
    assert built.plan["rl"].optimizer == SMOKE.plan["rl"].optimizer
    assert isinstance(built.plan["rl_short"], RLSettings) and flat.rl_short.kind == "rl"


def test_replace_changes_one_stage() -> None:
    config = SMOKE.replace("rl", steps=9)
    assert config.plan["rl"].steps == 9 and list(config.plan) == list(SMOKE.plan)
    assert config.replace("rl", steps=SMOKE.plan["rl"].steps) == SMOKE


def flat_with(change: Any) -> dict[str, Any]:
    flat = to_dict(SMOKE)
    change(flat)
    return flat


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["rl"].update(kind="lr"), "rl.kind='lr'; wanted: one of .*sft"),
        (lambda f: f["rl"].pop("kind"), "rl.kind=None; wanted: one of"),
        (lambda f: f["rl"].update(stpes=3), "unknown setting rl.stpes; fix: did you mean rl.steps"),
        (lambda f: f["rl"].update(steps=0), "rl.steps=0; wanted: at least 1"),
        (lambda f: f.update(rl=3), "rl=3; wanted: a group of settings with a kind"),
        (lambda f: f["plan"].append("more"), "plan has 'more' without settings"),
        (lambda f: f.update(sead=1), "unknown setting sead; fix: did you mean seed"),
        # Settings of a stage that the plan does not have.
        (lambda f: f["plan"].remove("distill"), "unknown setting distill"),
    ],
)
def test_a_wrong_flat_form_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(flat_with(change))


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["base", "teacher", "student", "model", "tokenizer", "export", "compare_logits", "bought",
     "plan", "seed", "data", "two words", "1st", "a/b", "a.b", "", "class",
     # `--config.items.steps=3` would reach the method of ConfigDict.
     "items", "update",
     "rl_step_5"],  # a checkpoint's model
)  # fmt: skip
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    more = {name: SMOKE.plan["sft"]}
    with pytest.raises(ConfigError, match=f"a stage named {name!r}; wanted: a Python name"):
        planned("pretrain", "sft", name, **more)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), r"stages=\(\); wanted: some of pretrain, sft"),
        (("pretrain", "slf"), "stages has 'slf'; wanted: some of pretrain, sft"),
        (("pretrain", "sft", "sft"), "stages has sft twice; wanted: each stage once"),
    ],
)
def test_stages_are_some_of_the_plan_each_once(stages: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(stages=stages)


# --- order ----------------------------------------------------------------------------------------


def test_stages_may_permute_the_plan() -> None:
    assert list(SMOKE.plan) == ["pretrain", "sft", "distill", "rl", "evaluate"]
    swapped = ("pretrain", "sft", "rl", "distill", "evaluate")
    config = changed(SMOKE.replace("distill", start="base"), stages=swapped)
    assert config.order == swapped
    # With fewer stages the others keep their places.
    some = changed(stages=("rl", "distill"))
    assert some.order == ("pretrain", "sft", "rl", "distill", "evaluate")
    assert changed(stages=("rl",)).order == tuple(SMOKE.plan)


def test_a_stage_after_what_it_reads() -> None:
    config = changed(SMOKE.replace("rl", start="distill"), stages=("pretrain", "distill", "rl"))
    assert config.order.index("distill") < config.order.index("rl")
    message = "rl comes before distill, which it reads; wanted: distill before rl"
    with pytest.raises(ConfigError, match=message):
        changed(config, stages=("pretrain", "rl", "distill"))
    with pytest.raises(ConfigError, match="sft comes before pretrain, which it reads"):
        changed(stages=("sft", "pretrain"))


@pytest.mark.parametrize("stages", [("pretrain", "sft", "rl"), ("rl",), ("sft",)])
def test_a_circle_is_refused(stages: tuple[str, ...]) -> None:
    # rl starts from sft; also a stage that does not run may not close a circle.
    with pytest.raises(ConfigError, match="sft"):
        changed(
            plan={
                **SMOKE.plan,
                "sft": dataclasses.replace(SMOKE.plan["sft"], start="rl"),
                "rl": dataclasses.replace(SMOKE.plan["rl"], start="sft"),
            },
            stages=stages,
        )


def test_a_stage_does_not_read_itself() -> None:
    with pytest.raises(ConfigError, match="sft comes before sft"):
        SMOKE.replace("sft", start="sft")


def test_a_reference_is_to_a_stage_that_makes_such_a_thing() -> None:
    with pytest.raises(ConfigError, match="rl.start=pretrain, a stage that makes models; wanted"):
        SMOKE.replace("rl", start="pretrain")


def test_a_reference_to_nothing_known_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="rl.start='stf'; wanted: base, a stage.*sft.*path"):
        SMOKE.replace("rl", start="stf")
    said = "rl.start='.?/?'; wanted: base, .*; fix: set rl.start"
    for nothing in ("", ".", "./", "/"):  # directories that exist, but no model
        with pytest.raises(ConfigError, match=said):
            SMOKE.replace("rl", start=nothing)
    for place in ("some/adapter", str(tmp_path)):
        assert SMOKE.replace("rl", start=place).plan["rl"].start == place
    # A stage that does not run is not looked at.
    assert changed(stages=("pretrain", "sft")).replace("rl", start="stf").stages[-1] == "sft"


# --- what a stage reads ---------------------------------------------------------------------------


def with_models(config: RunConfig) -> RunConfig:
    teacher, student = (
        dataclasses.replace(model, path=f"some/{role}")
        for role, model in (("teacher", config.teacher), ("student", config.student))
    )
    return changed(config, teacher=teacher, student=student, stages=("sft", "rl", "evaluate"))


def test_upstream() -> None:
    assert SMOKE.models_stage == "pretrain" and upstream(SMOKE, "pretrain") == []
    rl = upstream(SMOKE, "rl")
    assert ("start", "student", "sft") in rl and ("student", "models", "pretrain") in rl
    assert ("teacher", "models", "pretrain") in rl
    assert upstream(SMOKE, "sft") == [("student", "models", "pretrain")]
    # A model with a path is read from there, and `base` is no stage.
    assert upstream(with_models(SMOKE), "rl") == [("start", "student", "sft")]
    assert upstream(with_models(SMOKE), "sft") == []


def test_concerned_are_the_stages_that_run_and_all_that_they_read() -> None:
    alone = changed(SMOKE, stages=("evaluate",))
    assert concerned(alone) == ["evaluate"]
    assert concerned(changed(SMOKE, stages=("rl",))) == ["pretrain", "sft", "rl"]
    # Through a stage that does not run itself, in the order of the plan.
    through = changed(SMOKE.replace("rl", start="distill").replace("distill", start="sft"),
                      stages=("rl", "evaluate"))  # fmt: skip
    assert concerned(through) == ["pretrain", "sft", "distill", "rl", "evaluate"]
    assert concerned(with_models(SMOKE)) == ["sft", "rl", "evaluate"]


def test_stage_keys_are_equal_for_equal_results() -> None:
    keys = {name: stage_key(SMOKE, name) for name in SMOKE.plan}
    assert len(set(keys.values())) == len(keys)
    # Of no effect on a result, or of one on the last bits alone.
    same = changed(
        SMOKE.replace("rl", max_skipped=3, eval_batch=7), stages=("pretrain",), preset="other"
    )
    assert {name: stage_key(same, name) for name in SMOKE.plan} == keys


def keys_that_change(config: RunConfig) -> set[str]:
    return {name for name in SMOKE.plan if stage_key(config, name) != stage_key(SMOKE, name)}


def test_a_stage_key_changes_with_the_settings_of_what_it_reads() -> None:
    assert SMOKE.plan["rl"].start == "sft" and SMOKE.plan["distill"].start == "base"
    assert {"sft", "rl"} <= keys_that_change(SMOKE.replace("sft", steps=9))
    assert not {"pretrain", "distill"} & keys_that_change(SMOKE.replace("sft", steps=9))
    assert "rl" in keys_that_change(SMOKE.replace("rl", steps=9))
    assert not {"pretrain", "sft", "distill"} & keys_that_change(SMOKE.replace("rl", steps=9))
    assert {"pretrain", "sft", "distill", "rl"} <= keys_that_change(changed(seed=1))


def test_a_stage_key_does_not_depend_on_the_names_of_others() -> None:
    other = changed(
        SMOKE,
        plan={**SMOKE.plan, "sft_long": dataclasses.replace(SMOKE.plan["sft"], steps=9)},
    )
    assert {stage_key(other, name) == stage_key(SMOKE, name) for name in ("sft", "rl")} == {True}
    assert stage_key(other, "sft_long") != stage_key(other, "sft")
