"""python -m launch.main --config=configs/reason.py

Distillation, a process reward model, GRPO, preferences and many candidates, in one command.

distill       the student learns the teacher's solutions: 0.5 KD + 0.5 cross-entropy
traces        solutions of that student, right and wrong
labels        how often each step of them is completed to a right answer
prm           a reward model of steps, trained on labels
errors        test problems' solutions with one number made wrong
other_errors  the same of validation problems
bench         does the reward model find the wrong step of errors? (threshold from other_errors)
rl            GRPO on verified answers
dpo           right against wrong solutions of one problem
solve         many candidates of each test problem; first, majority, best, weighted, at equal tokens

rl and dpo start from the same student, and traces, labels and solve use it: their effects do not
add up. In qwen_1_5b rl comes first, and all later stages use its student.

Presets: --config=configs/reason.py:smoke: in seconds; learns almost nothing.
--config=configs/reason.py:qwen_1_5b: released models, or your own, on GSM8K (docs/usage.md).
--config=configs/reason.py:qwen_trial: do your own directories pass every stage? (docs/usage.md)
--config=configs/reason.py:evidence: which of these help, over three seeds (docs/experiments.md).
One problem: python -m launch.solve --workdir=runs/reason "What is 2+3?"
Any setting: --config.prm.steps=100. All of them with their meaning: docs/config.md.
"""

import dataclasses
from typing import Any

import ml_collections

from configs import presets
from configs.presets import changed
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.models.lora import LoraConfig
from distill_jax.rewards.process import ProcessSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.run.config import RunConfig, to_config_dict
from distill_jax.run.settings import ExperimentSettings, ModelSettings, TeacherSettings
from distill_jax.stages.distill_settings import TeacherSampleSettings
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.injected import InjectedSettings
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.step_bench import StepBenchSettings
from distill_jax.stages.step_labels import StepLabelSettings
from distill_jax.stages.traces import TraceSettings
from distill_jax.training.checkpoint import CheckpointSettings
from distill_jax.training.distillation import DistillLossSettings
from distill_jax.training.optimizer import OptimizerSettings


def _tiny() -> RunConfig:
    base = presets.tiny()
    plan = {
        "pretrain": base.plan["pretrain"],
        "distill": changed(
            base.plan["distill"],
            data="teacher_samples",
            steps=300,
            eval_every=0,
            teacher_samples=TeacherSampleSettings(problems=1600),
            loss=DistillLossSettings(temperature=2.0, kd_weight=0.5, ce_weight=0.5),
        ),
        "traces": TraceSettings(model="distill", problems=400, samples=4),
        "labels": StepLabelSettings(data="traces", model="distill", n=4),
        "prm": changed(presets.TINY_PRM, start="distill", data="labels", labels="soft"),
        "errors": InjectedSettings(split="test", problems=400),
        "other_errors": InjectedSettings(split="validation", problems=400),
        "bench": StepBenchSettings(
            reward_model="prm", data="errors", threshold_data="other_errors"
        ),
        "rl": changed(
            presets.TINY_GRPO,
            start="distill",
            steps=30,
            eval_every=0,
            rewards=RewardSettings(intrinsic_weight=0.0),
            optimizer=OptimizerSettings(learning_rate=5e-4, warmup_steps=5, b2=0.99),
        ),
        "dpo": DPOSettings(
            start="distill",
            data="traces",
            steps=60,
            sft_weight=0.2,
            optimizer=OptimizerSettings(learning_rate=2e-5, warmup_steps=5),
        ),
        "solve": SolveSettings(
            model="distill", reward_model="prm", problems=200, attempts=8, selector="weighted"
        ),
        "evaluate": changed(base.plan["evaluate"], problems=200, distribution=False),
    }
    return dataclasses.replace(
        base,
        preset="reason",
        # Few steps: a student near 100% leaves nothing to improve.
        teacher=dataclasses.replace(base.teacher, steps=800),
        student=dataclasses.replace(base.student, steps=420, level_shares=()),
        stages=tuple(plan),
        plan=plan,
    )


def _evidence() -> RunConfig:
    """The plan, two more reward models, the bonus and agents, over three seeds."""
    base = _tiny()
    plan = dict(base.plan)
    # Few steps: a student that solves nearly all problems leaves nothing to improve.
    plan["distill"] = changed(plan["distill"], steps=60)
    last = plan.pop("evaluate")
    plan |= {
        # Errors whose place is known, next to the student's own, whose labels are counts.
        "wrong": InjectedSettings(problems=16_000, share=0.8),
        "prm_both": changed(plan["prm"], also="wrong", steps=300),
        "bench_both": changed(plan["bench"], reward_model="prm_both"),
        # One learnt from right and wrong solutions alone, without labels of steps.
        "outcomes": TraceSettings(model="distill", problems=1600, samples=4),
        "prm_implicit": PRMSettings(
            start="distill",
            data="outcomes",
            head="implicit",
            steps=300,
            batch_size=64,
            max_length=128,
            eval_every=100,
            eval_problems=256,
            optimizer=OptimizerSettings(learning_rate=2e-3, warmup_steps=10),
        ),
        "bench_implicit": changed(plan["bench"], reward_model="prm_implicit"),
        "bonus": changed(plan["rl"], process=ProcessSettings(reward_model="prm")),
        "solve_both": changed(plan["solve"], reward_model="prm_both", plain=False),
        "solve_implicit": changed(plan["solve"], reward_model="prm_implicit", plain=False),
        # Four agents of two candidates each: 8, as in stage solve.
        "agents": changed(plan["solve"], attempts=2, agents="configs/agents.jsonl"),
        "evaluate": last,
    }
    experiment = ExperimentSettings(name="evidence", arms=("all:",))
    return dataclasses.replace(base, stages=tuple(plan), plan=plan, experiment=experiment)


def _smoke() -> RunConfig:
    small, wide = presets.smoke(), _tiny().plan
    short = OptimizerSettings(learning_rate=1e-3, warmup_steps=1)
    plan = {
        "pretrain": small.plan["pretrain"],
        "distill": changed(small.plan["distill"], data="teacher_samples", eval_every=0),
        "rl": changed(small.plan["rl"], start="distill", eval_every=0),
        "traces": changed(wide["traces"], problems=8, samples=4, batch=32),
        "labels": changed(wide["labels"], n=2, truncated_as="wrong", batch=32),
        # These models solve nothing, so prm and dpo learn from injected errors.
        "wrong": InjectedSettings(problems=64),
        "pairs": InjectedSettings(problems=64, form="pairs"),
        "prm": changed(
            wide["prm"], also="wrong", steps=3, batch_size=8, eval_every=2, optimizer=short
        ),
        "errors": changed(wide["errors"], problems=16),
        "other_errors": changed(wide["other_errors"], problems=16),
        "bench": wide["bench"],
        "dpo": changed(wide["dpo"], data="pairs", steps=3, batch_size=4, optimizer=short),
        "solve": changed(wide["solve"], problems=4, attempts=4, batch=16),
        "evaluate": changed(small.plan["evaluate"], distribution=False),
    }
    return dataclasses.replace(small, preset="reason_smoke", stages=tuple(plan), plan=plan)


def _qwen_1_5b() -> RunConfig:
    """Released models, or directories of one tokenizer; learning rates of the published system."""
    base, wide = presets.qwen_1_5b(), _tiny().plan
    slow = OptimizerSettings(learning_rate=5e-6, warmup_steps=20)
    plan = {
        "distill": changed(
            base.plan["distill"],
            data="teacher_samples",
            loss=DistillLossSettings(temperature=2.0, kd_weight=0.5, ce_weight=0.5),
            optimizer=slow,
        ),
        "rl": RLSettings(
            start="distill",
            steps=500,
            prompts_per_step=32,
            samples_per_prompt=8,
            accumulate=8,
            optimizer=slow,
        ),
        "traces": changed(
            wide["traces"],
            model="rl",
            problems=2000,
            samples=8,
            temperature=0.8,
            balance=True,
            per_problem=4,
        ),
        "labels": changed(wide["labels"], model="rl", n=8),
        "prm": PRMSettings(
            start="rl",
            data="labels",
            labels="soft",
            steps=300,
            accumulate=4,
            eval_every=50,
            optimizer=OptimizerSettings(learning_rate=1e-5, warmup_steps=20),
        ),
        "errors": wide["errors"],
        "other_errors": wide["other_errors"],
        "bench": wide["bench"],
        "dpo": changed(
            wide["dpo"],
            start="rl",
            steps=100,
            accumulate=4,
            optimizer=OptimizerSettings(learning_rate=5e-6, warmup_steps=10),
        ),
        "solve": changed(wide["solve"], model="rl", problems=1319, temperature=0.8),
        "evaluate": changed(base.plan["evaluate"], distribution=False),
    }
    return dataclasses.replace(
        base,
        preset="reason_qwen_1_5b",
        stages=tuple(plan),
        plan=plan,
        lora=LoraConfig(rank=16, alpha=32.0, dropout=0.05),
        # Not all stages measure eval/accuracy, so each keeps its last weights, not its best.
        checkpoint=CheckpointSettings(every=50, keep=2),
    )


def _qwen_trial() -> RunConfig:
    """The stages of smoke on GSM8K and any Qwen directories: a check of them, not a training."""
    base, small = presets.qwen_1_5b(), _smoke()
    # Float32 and scanned layers: what a CPU computes and compiles fastest.
    model: dict[str, Any] = {
        "path": "Qwen/Qwen2.5-0.5B-Instruct",
        "param_dtype": "float32",
        "compute_dtype": "float32",
        "unroll": False,
    }
    plan = {name: stage for name, stage in small.plan.items() if name != "pretrain"}
    plan |= {
        "distill": changed(plan["distill"], data="solutions", steps=2, batch_size=4),
        "rl": changed(plan["rl"], steps=2, prompts_per_step=2),
        "traces": changed(plan["traces"], problems=4),
        "pairs": changed(plan["pairs"], problems=16),
        # Prompts and solutions of GSM8K are longer than generated ones.
        "prm": changed(plan["prm"], batch_size=4, max_length=512),
        "dpo": changed(plan["dpo"], max_length=512),
        "errors": changed(plan["errors"], problems=8),
        "other_errors": changed(plan["other_errors"], problems=8),
        "solve": changed(plan["solve"], problems=2),
        "evaluate": changed(plan["evaluate"], problems=4),
    }
    return dataclasses.replace(
        base,
        preset="reason_qwen_trial",
        stages=tuple(plan),
        plan=plan,
        teacher=TeacherSettings(**model),
        student=ModelSettings(**model),
        lora=small.lora,
        sampling=SamplingSettings(max_new_tokens=64),
        checkpoint=small.checkpoint,
        records=small.records,
    )


PRESETS = {
    "tiny": _tiny,
    "smoke": _smoke,
    "qwen_1_5b": _qwen_1_5b,
    "qwen_trial": _qwen_trial,
    "evidence": _evidence,
}


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """The pipeline of a preset."""
    return to_config_dict(PRESETS[preset]())
