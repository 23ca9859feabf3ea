"""python -m launch.main --config=configs/pot.py

Program of thought: the model writes a Python program, and what that prints is the answer.

pretrain  tiny models learn embedded programs, some of them wrong or hard-coded
synthesis the teacher writes programs; those that run and print the right answer are verified
sft       the student learns the verified ones
rl        GRPO on verified answers
traces    programs of that student, right and wrong
labels    how often each step of them is completed to a right program
executed  the step at which each of them fails when it is run
wrong     training problems' programs with one number made wrong
prm       a reward model of a program's steps, trained on labels and wrong of half of the problems
prm_other the same of the other half: each judges programs of problems that it has not seen
errors    test problems' programs with one number made wrong
bench     does the reward model find the wrong step of errors?
evolve    rounds in which a student learns on its own right programs that score high; `rl` writes
          the first ones
concise   pairs of a short over a longer right program, both run again
dpo       the evolved student learns to prefer the short one; kept unless accuracy falls
brief     GRPO with a bonus for short programs among the right ones
repair    verify, then revise: programs with evidence against them, against new samples
evaluate  pass@1, failures by class, share of right programs that are hard-coded

Presets: --config=configs/pot.py:smoke: in seconds; learns almost nothing.
--config=configs/pot.py:evidence: each stage with its control, over three seeds
(docs/experiments.md).
Any setting: --config.rl.steps=100. All of them with their meaning: docs/config.md.
"""

import ml_collections

from configs import presets
from configs.presets import changed
from distill_jax.data.synthetic import ProblemSettings
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.reasoning.steps import StepSettings
from distill_jax.rewards.length import LengthSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.run.config import RunConfig, to_config_dict
from distill_jax.run.settings import ExperimentSettings, StageSettings
from distill_jax.stages.concise import ConciseSettings
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.evolve_settings import EvolveSettings
from distill_jax.stages.executed import ExecutedSettings
from distill_jax.stages.injected import InjectedSettings
from distill_jax.stages.step_bench import StepBenchSettings
from distill_jax.stages.step_labels import StepLabelSettings
from distill_jax.stages.synthesis_settings import SynthesisSettings
from distill_jax.stages.traces import TraceSettings
from distill_jax.tasks import ProgramSettings
from distill_jax.training.optimizer import OptimizerSettings

# What a program prints is the reward alone.
_REWARDS = RewardSettings(intrinsic_weight=0.0)
_BRIEF = changed(_REWARDS, length_weight=0.5, length=LengthSettings(form="kimi"))


def _judges() -> dict[str, StageSettings]:
    """Reward models of the steps of a program, and what they learn from."""
    prm = changed(
        presets.TINY_PRM,
        start="rl",
        data="labels",
        also="wrong",
        step_format=StepSettings(split="program"),
        # The student's programs are mostly right: 92% of their labelled steps.
        balanced=True,
        max_length=192,
        half=1,
    )
    return {
        "traces": TraceSettings(model="rl", problems=400, samples=4),
        "labels": StepLabelSettings(data="traces", model="rl", step_split="program", n=4),
        "executed": ExecutedSettings(data="traces"),
        "wrong": InjectedSettings(step_split="program", problems=2000),
        "prm": prm,
        "prm_other": changed(prm, half=2),
        "errors": InjectedSettings(split="test", step_split="program", problems=400),
        "bench": StepBenchSettings(reward_model="prm", data="errors"),
    }


def _refinement(rl: StageSettings) -> dict[str, StageSettings]:
    """Self-evolution, preference and length; rl: settings of that stage to begin with."""
    return {
        "evolve": EvolveSettings(
            start="sft",
            model="rl",
            reward_model="prm",
            reward_model_other="prm_other",
            rounds=2,
            problems=300,
            samples=4,
            steps=30,
            eval_problems=60,
            optimizer=OptimizerSettings(learning_rate=5e-4, warmup_steps=5),
        ),
        "concise": ConciseSettings(data="evolve", most=400),
        "dpo": DPOSettings(
            start="evolve",
            data="concise",
            loss="sigmoid_norm",
            beta=5.0,
            sft_weight=0.2,
            steps=30,
            max_length=160,
            guard_margin=2.0,
            eval_problems=200,
            optimizer=OptimizerSettings(learning_rate=2e-4, warmup_steps=5),
        ),
        "brief": changed(
            rl,
            start="dpo",
            # Its loss averages over tokens: a mean of each program's mean favours long wrong ones.
            algorithm="dapo",
            steps=20,
            eval_every=0,
            rewards=_BRIEF,
            optimizer=OptimizerSettings(learning_rate=5e-4, warmup_steps=5, b2=0.99),
        ),
    }


def _tiny() -> RunConfig:
    base = presets.tiny()
    plan = {
        "pretrain": base.plan["pretrain"],
        "synthesis": SynthesisSettings(problems=1000, samples=4),
        "sft": changed(base.plan["sft"], data="synthesis", steps=40),
        "rl": changed(
            presets.TINY_GRPO,
            steps=20,
            eval_every=0,
            rewards=_REWARDS,
            optimizer=OptimizerSettings(learning_rate=5e-4, warmup_steps=5, b2=0.99),
        ),
        **_judges(),
        **_refinement(presets.TINY_GRPO),
        "repair": SolveSettings(model="brief", problems=100, attempts=4, rounds=2),
        "evaluate": changed(base.plan["evaluate"], problems=200, distribution=False),
    }
    return changed(
        base,
        preset="pot",
        task="program",
        # The prompts of tiny have no room for an instruction, and its models need none.
        programs=ProgramSettings(instruction=""),
        data=changed(
            base.data,
            problems=ProblemSettings(
                levels=3, max_value=50, max_operand=9, style="program", train_size=20_000
            ),
        ),
        teacher=changed(base.teacher, steps=600),
        student=changed(base.student, steps=300, level_shares=()),
        # The longest embedded program of three steps has 85 tokens.
        sampling=SamplingSettings(max_new_tokens=88, segment=22, prompt_multiple=48),
        stages=tuple(plan),
        plan=plan,
    )


def _smoke() -> RunConfig:
    small, tiny = presets.smoke(), _tiny()
    wide = tiny.plan
    prm = changed(
        wide["prm"],
        steps=2,
        batch_size=8,
        eval_every=2,
        optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=1),
    )
    plan = {
        "pretrain": small.plan["pretrain"],
        # The teacher of smoke solves nothing: its student learns given programs.
        "sft": changed(small.plan["sft"], answer_only=0.0),
        "rl": changed(small.plan["rl"], rewards=_REWARDS),
        "traces": changed(wide["traces"], problems=8, batch=32),
        "labels": changed(wide["labels"], n=2, truncated_as="wrong", batch=32),
        # These models solve nothing, so prm learns from injected errors.
        "wrong": changed(wide["wrong"], problems=64),
        "prm": prm,
        "prm_other": changed(prm, half=2),
        "errors": changed(wide["errors"], problems=16),
        "bench": wide["bench"],
        # These models solve nothing: evolve learns on given programs, concise would find no pair.
        "evolve": changed(
            wide["evolve"],
            rounds=1,
            problems=4,
            samples=2,
            steps=2,
            batch_size=8,
            k=2,
            eval_problems=4,
            optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=1),
        ),
        "brief": changed(small.plan["rl"], start="evolve", algorithm="dapo", rewards=_BRIEF),
        "repair": SolveSettings(model="brief", problems=4, attempts=2, rounds=2, batch=16),
        "evaluate": changed(small.plan["evaluate"], distribution=False),
    }
    return changed(
        small,
        preset="pot_smoke",
        task="program",
        programs=tiny.programs,
        data=changed(small.data, problems=changed(small.data.problems, style="program")),
        sampling=changed(small.sampling, max_new_tokens=32),
        stages=tuple(plan),
        plan=plan,
    )


def _evidence() -> RunConfig:
    base = _tiny()
    plan = dict(base.plan)
    last = {name: plan.pop(name) for name in ("repair", "evaluate")}
    evolve = {"reward_model": "", "reward_model_other": ""}
    plan |= {
        "sft_unverified": changed(plan["sft"], only_right=False),
        "evolve_unscored": changed(plan["evolve"], **evolve),
        # Both sides of a pair are right: the sum of log-probabilities pays for length itself.
        "dpo_sum": changed(plan["dpo"], loss="sigmoid", beta=0.1),
        "unbrief": changed(plan["brief"], rewards=_REWARDS),
        **last,
    }
    experiment = ExperimentSettings(name="evidence", arms=("all:",))
    return changed(base, stages=tuple(plan), plan=plan, experiment=experiment)


PRESETS = {"tiny": _tiny, "smoke": _smoke, "evidence": _evidence}


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """The pipeline of a preset."""
    return to_config_dict(PRESETS[preset]())
