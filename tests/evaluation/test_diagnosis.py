"""Each trouble on made-up curves, in both directions; a healthy run raises nothing."""

import json

import numpy as np
import pytest

from configs import presets
from distill_jax.core.settings import check_name
from distill_jax.evaluation.diagnosis import diagnose, on_own_samples
from distill_jax.evaluation.findings import BAD, LOOK, NOT_RECORDED, OK, TOO_FEW
from distill_jax.run.config import to_config_dict

STEPS = 40
RISING = np.linspace(0.0, 1.0, STEPS)
RNG = np.random.default_rng(0)


def line(first, last, noise=0.02):
    """From first to last with noise of a fraction of their size."""
    size = max(abs(first), abs(last))
    return first + (last - first) * RISING + noise * size * RNG.standard_normal(STEPS)


HEALTHY = {
    "accuracy": line(0.3, 0.7),
    "reward": line(0.2, 0.6),
    "rewards/intrinsic/mean": line(-0.8, -0.5),
    "kl": line(0.0, 0.02),
    "entropy": line(0.9, 0.6),
    "clip_ratio/region_mean": line(0.02, 0.03),
    "completions/mean_length": line(100, 120),
    "completions/clipped_ratio": line(0.1, 0.05),
    "frac_reward_zero_std": line(0.1, 0.3),
    "frac_groups_all_wrong": line(0.2, 0.05),
    "skipped": np.zeros(STEPS),
    "teacher/mass": line(0.6, 0.8),
    "loss/value_avg": line(0.5, 0.1),
    "critic/vf_explained_var": line(-0.5, 0.6),
}
PPO = ("loss/value_avg", "critic/vf_explained_var")
TEXTS = [
    {"step": 1, "completion": "so " * (i % 7) + f"the answer is {i}", "reward": float(i % 2)}
    for i in range(64)
]


def run(count=STEPS, without=(), texts=TEXTS, **changed):
    curves = {**HEALTHY, **{name.replace("__", "/"): x for name, x in changed.items()}}
    rows = [{"step": 0, "eval/accuracy": 0.0}]
    for i in range(count):
        row = {name: float(x[i]) for name, x in curves.items() if name not in without}
        rows.append({"step": 10 * (i + 1), **row})
    return {finding.what: finding for finding in diagnose(rows, texts, start="sft")}


def statuses(found):
    return {what: finding.status for what, finding in found.items()}


def test_a_healthy_run_raises_nothing():
    found = run()
    assert set(statuses(found).values()) == {OK}
    assert len(found) == 13
    assert not any(finding.suggestions for finding in found.values())


FLAT = line(0.3, 0.3)
CASES = {
    "accuracy falls": ("reward", BAD, {"accuracy": line(0.7, 0.3)}),
    "no trend": ("reward", LOOK, {"accuracy": FLAT, "rewards__intrinsic__mean": line(-1, -1)}),
    "intrinsic alone": ("reward", OK, {"accuracy": FLAT}),
    "intrinsic falls": ("reward", LOOK,
                        {"accuracy": FLAT, "rewards__intrinsic__mean": line(-0.5, -1)}),
    "nothing right": ("reward", BAD, {"accuracy": 0 * RISING,
                                      "rewards__intrinsic__mean": line(-1, -1)}),
    "solved": ("reward", OK, {"accuracy": 1 + 0 * RISING,
                              "rewards__intrinsic__mean": line(-1, -1)}),
    "teacher mass low": ("teacher mass", LOOK, {"teacher__mass": line(0.2, 0.2)}),
    "teacher mass gone": ("teacher mass", BAD, {"teacher__mass": line(0.5, 0.05)}),
    "kl": ("KL to the reference", LOOK, {"kl": line(0.0, 0.2)}),
    "kl far": ("KL to the reference", BAD, {"kl": line(0.0, 2.0)}),
    "kl falls": ("KL to the reference", OK, {"kl": line(2.0, 0.2)}),
    "entropy halves": ("entropy", LOOK, {"entropy": line(0.9, 0.3), "accuracy": FLAT}),
    "entropy gone": ("entropy", BAD, {"entropy": line(0.9, 0.01), "accuracy": FLAT}),
    "sure and right": ("entropy", LOOK, {"entropy": line(0.9, 0.01)}),
    "entropy grows": ("entropy", LOOK, {"entropy": line(0.9, 3.0)}),
    "clip": ("clip fraction", LOOK, {"clip_ratio__region_mean": line(0.1, 0.2)}),
    "clip much": ("clip fraction", BAD, {"clip_ratio__region_mean": line(0.1, 0.5)}),
    "longer": ("length", LOOK, {"completions__mean_length": line(100, 190), "accuracy": FLAT}),
    "far longer": ("length", BAD, {"completions__mean_length": line(100, 400), "accuracy": FLAT}),
    "longer and right": ("length", LOOK, {"completions__mean_length": line(100, 400)}),
    "shorter": ("length", LOOK, {"completions__mean_length": line(100, 55), "accuracy": FLAT}),
    "far shorter": ("length", BAD, {"completions__mean_length": line(100, 20), "accuracy": FLAT}),
    "explains nothing": ("value function", BAD, {"critic__vf_explained_var": line(-2.0, -0.4)}),
    "value loss": ("value function", LOOK, {"loss__value_avg": line(0.1, 0.5)}),
    "alike": ("groups without variance", LOOK, {"frac_reward_zero_std": line(0.2, 0.7)}),
    "all alike": ("groups without variance", BAD, {"frac_reward_zero_std": line(0.5, 1.0)}),
    "all wrong": ("groups without variance", LOOK, {"frac_groups_all_wrong": line(0.95, 0.95)}),
    "cut": ("truncated", LOOK, {"completions__clipped_ratio": line(0.1, 0.4)}),
    "mostly cut": ("truncated", BAD, {"completions__clipped_ratio": line(0.1, 0.9)}),
    "skipped": ("skipped updates", LOOK, {"skipped": 1.0 * (np.arange(STEPS) == 5)}),
    "skipped often": ("skipped updates", BAD, {"skipped": 1.0 * (np.arange(STEPS) % 3 == 0)}),
    "gamed": ("accuracy and intrinsic reward", BAD, {"accuracy": line(0.7, 0.3)}),
    "unloved": ("accuracy and intrinsic reward", LOOK,
                {"rewards__intrinsic__mean": line(-0.5, -0.9)}),
    "both fall": ("accuracy and intrinsic reward", OK,
                  {"accuracy": line(0.7, 0.3), "rewards__intrinsic__mean": line(-0.5, -0.9)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_trouble_and_what_to_try(name):
    what, status, changed = CASES[name]
    finding = run(**changed)[what]
    assert finding.status == status, finding
    assert bool(finding.suggestions) == (status != OK)
    assert bool(finding.said) or status == OK
    assert finding.trend is not None


def test_every_setting_that_is_named_exists():
    named = set()
    for algorithm in ((), PPO):  # ppo and the group methods have different settings
        for _, _, changed in CASES.values():
            for finding in run(without=algorithm, **changed).values():
                named |= set(finding.suggestions)
    for texts in (LONG_PAYS, HEDGED):
        for finding in run(texts=texts).values():
            named |= set(finding.suggestions)
    assert {"rl.ppo.kl_coef", "rl.group.beta", "rl.rewards.sequence", "rl.ppo.value_clip"} <= named
    config = to_config_dict(presets.tiny())
    for name in named:
        check_name(config, name)


def test_the_exact_kl_stands_for_the_intrinsic_reward():
    gone = ("rewards/intrinsic/mean", "frac_reward_zero_std", "frac_groups_all_wrong")
    falls = run(without=gone, accuracy=FLAT, teacher__kl=line(0.4, 0.1))["reward"]
    assert falls.status == OK and "teacher/kl falls" in falls.said
    stays = run(without=gone, accuracy=FLAT, teacher__kl=line(0.4, 0.4))["reward"]
    assert stays.status == LOOK
    # Weight 0 would leave nothing, and no group compares samples.
    assert not {"rl.rewards.intrinsic_weight", "rl.samples_per_prompt"} & set(stays.suggestions)


def test_on_policy_distillation_has_the_troubles_that_need_no_reward():
    curves = {
        "student/mass": line(0.5, 0.6),
        "teacher/mass": line(0.05, 0.05),
        "completions/clipped_ratio": line(0.9, 0.9),
        "skipped": np.zeros(STEPS),
    }
    rows = [{name: float(x[i]) for name, x in curves.items()} for i in range(STEPS)]
    rows = [{"step": i + 1, **row} for i, row in enumerate(rows)]
    found = {f.what: f for f in diagnose(rows, TEXTS, stage="distill", start="sft")}
    assert statuses(found) == {"teacher mass": BAD, "truncated": BAD, "skipped updates": OK}
    config = to_config_dict(presets.tiny())
    for finding in found.values():
        for name in finding.suggestions:
            check_name(config, name)
    assert {"distill.start", "sft.steps"} <= found["teacher mass"].suggestions.keys()
    assert not on_own_samples([{"step": 1, "loss": 2.0, "kl": 0.1}])


@pytest.mark.parametrize(
    ("cut", "other", "mass", "status", "tries"),
    [
        (0.1, 0.0, 0.8, OK, set()),
        (0.1, 0.0, None, OK, set()),
        (0.3, 0.0, 0.8, LOOK, {"sampling.max_new_tokens", "rl_2.start"}),
        (0.9, 0.9, None, BAD, {"sampling.max_new_tokens", "rl_2.start"}),
        (0.0, 0.0, 0.02, LOOK, {"teacher.path"}),
    ],
)
def test_the_first_rollout(cut, other, mass, status, tries):
    first = {
        "completions": 32,
        "completions/clipped_ratio": cut,
        "completions/other_end_ratio": other,
    }
    if mass is not None:
        first["teacher/mass_at_end"] = mass
    found = diagnose([{"step": 1, "reward": 0.0}], stage="rl_2", first=first)[0]
    assert (found.what, found.status, set(found.suggestions)) == ("first rollout", status, tries)
    assert f"{100 * cut:.0f}% of 32 completions cut off" in found.said
    assert ("another end token" in found.said) == (other > 0)


def test_a_first_rollout_without_answers():
    first = {"completions": 32, "completions/clipped_ratio": 0.0}
    some = {**first, "completions/no_answer_ratio": 0.3}
    assert diagnose([{"step": 1}], stage="rl", first=some)[0].status == OK
    many = {**first, "completions/no_answer_ratio": 0.59}
    found = diagnose([{"step": 1}], stage="rl", first=many)[0]
    assert "59% state no answer" in found.said and found.status != OK
    assert set(found.suggestions) == {"data.chat.instruction"}


def test_settings_are_those_of_the_algorithm():
    entropy = {"entropy": line(0.9, 0.1), "kl": line(0, 1)}
    ppo, group = run(**entropy), run(without=PPO, **entropy)
    assert "rl.ppo.entropy_coef" in ppo["entropy"].suggestions
    assert "rl.group.entropy_coef" in group["entropy"].suggestions
    assert "rl.ppo.kl_coef" in ppo["KL to the reference"].suggestions
    assert "rl.group.beta" in group["KL to the reference"].suggestions


def test_a_short_run_is_not_guessed_at():
    # All troubles at once, in seven rows.
    bad = {"accuracy": line(0.9, 0), "entropy": line(1, 0), "completions__clipped_ratio": 1 + FLAT}
    found = statuses(run(count=7, texts=TEXTS[:8], **bad))
    assert found.pop("skipped updates") == OK
    assert set(found.values()) == {TOO_FEW}
    assert statuses(run(count=7, skipped=np.ones(STEPS)))["skipped updates"] == BAD


def test_what_is_not_recorded_is_said():
    found = statuses(run(without=[*HEALTHY], texts=[]))
    assert set(found.values()) == {NOT_RECORDED}
    found = statuses(run(without=[*PPO, "kl"]))
    assert [w for w, s in found.items() if s == NOT_RECORDED] == [
        "KL to the reference",
        "value function",
    ]


def test_ppos_kl_of_a_completion_is_told_a_token():
    # 40 nats over 100 tokens are 0.4 a token.
    found = run(without=["kl"], **{"objective/kl": line(0, 40),
                                   "completions/mean_length": 100 + 0 * RISING})  # fmt: skip
    finding = found["KL to the reference"]
    assert finding.status == LOOK
    assert finding.trend.last == pytest.approx(0.36, abs=0.03)


def test_nulls_of_a_broken_step_do_not_stop_it():
    rows = [{"step": i, "accuracy": None if i % 2 else i / 40, "entropy": None} for i in range(40)]
    found = {f.what: f for f in diagnose(rows)}
    assert found["reward"].status == OK and found["entropy"].status == NOT_RECORDED


LONG_PAYS = [
    {"step": 1, "completion": "so " * i + "the answer is 4", "reward": i / 64} for i in range(64)
]
HEDGED = [{**row, "completion": f"the answer is {i}. The answer is 7."}
          for i, row in enumerate(TEXTS)]  # fmt: skip


def test_completions():
    found = run(texts=LONG_PAYS)
    assert found["reward pays for length"].status == LOOK
    assert found["several answers"].status == OK
    found = run(texts=HEDGED)
    assert found["several answers"].status == BAD
    # Only the later half counts.
    found = run(texts=[*HEDGED[:32], *TEXTS[:32]])
    assert found["several answers"].status == OK


def test_as_json():
    text = json.dumps([f.as_dict() for f in run(kl=line(0, 1)).values()], allow_nan=False)
    first = json.loads(text)[1]
    assert first["what"] == "KL to the reference" and first["trend"]["name"] == "kl"
    assert "rl.ppo.kl_coef" in first["suggestions"]


@pytest.mark.parametrize("ppo, setting", [(False, "rl.group.beta"), (True, "rl.ppo.kl_coef")])
def test_a_missing_reference_names_the_algorithms_own_weight(ppo: bool, setting: str) -> None:
    """With grpo rl.ppo.kl_coef is not 0 by default: nothing must be said of it."""
    rows = [
        {"step": i, "accuracy": 0.5, **({"loss/value_avg": 1.0} if ppo else {})} for i in (1, 2)
    ]
    found = {f.what: f for f in diagnose(rows)}
    assert found["KL to the reference"].said == f"no reference: {setting} is 0"


def test_suggestions_name_the_stage_and_its_start():
    rows = [{"step": i, "accuracy": 0.0, "completions/clipped_ratio": 0.9} for i in range(1, 41)]

    def named(**names):
        found = {f.what: f.suggestions for f in diagnose(rows, TEXTS, **names)}
        return {*found["reward"], *found["truncated"]}

    assert {"rl.steps", "rl.mask_truncated", "dpo.steps"} <= named(start="dpo")
    short = named(stage="rl_short", start="rl")
    assert {"rl_short.steps", "rl_short.mask_truncated", "rl.steps"} <= short
    assert "sampling.max_new_tokens" in short and "rl.mask_truncated" not in short
    for start in ("", "base"):
        assert not any(name.startswith(("start.", "base.", ".")) for name in named(start=start))
