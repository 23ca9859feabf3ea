r"""Presets of real models, which presets.py lists: SmolLM2 and Qwen2.5 on GSM8K.

They ask for the final answer in \boxed{}, in training and evaluation: see ASKED.
"""

from typing import Any

from distill_jax.core.sharding import MeshSettings
from distill_jax.data.chat import ChatSettings
from distill_jax.data.sources import DataSettings
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.models.lora import LoraConfig
from distill_jax.rewards.length_buckets import BucketSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.run.config import RunConfig
from distill_jax.run.settings import ModelSettings, TeacherSettings
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.settings import SFTSettings
from distill_jax.stages.teacher_settings import StageTeacherSettings
from distill_jax.training.checkpoint import CheckpointSettings
from distill_jax.training.distillation import DistillLossSettings
from distill_jax.training.optimizer import OptimizerSettings
from distill_jax.training.records import RecordSettings

# The field's instruction, by family of models: where each family's model card puts it. Without it
# 59% of 32 answers of SmolLM2 to GSM8K ended in prose, in which no final answer is found; with it
# 56% did: the smallest models learn the form in stage sft.
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
ASKED = {
    "qwen": ChatSettings(system_prompt=BOXED, boxed=True),
    "smollm2": ChatSettings(instruction=BOXED, boxed=True),
}


def _qwen(preset: str, teacher: str, student: str, accumulate: int) -> RunConfig:
    big: dict[str, Any] = {
        "param_dtype": "bfloat16", "compute_dtype": "bfloat16", "remat": True, "unroll": None,
    }  # fmt: skip
    # Rank, learning rates and lengths of the intrinsic-reward system's published code. The 32 rows
    # share a few of 1,024 tokens, the fewest that hold the longest prompt and completion: 15% of
    # padding on GSM8K (8 devices 19%), 92% without. In one microbatch: each has rows of all
    # devices, and more of them would leave nothing to share.
    supervised: dict[str, Any] = {
        "start": "base",
        "steps": 700,
        "batch_size": 32,
        "packing": 1024,
        "accumulate": 1,
        "optimizer": OptimizerSettings(learning_rate=2e-5, warmup_steps=100),
    }
    common: dict[str, Any] = {"eval_every": 100, "eval_problems": 128, "eval_batch": 128}
    return RunConfig(
        preset=preset,
        stages=("sft", "rl", "evaluate"),
        mesh=MeshSettings(data=1, fsdp=-1, tensor=1),
        data=DataSettings(source="gsm8k", chat=ASKED["qwen"], max_prompt_tokens=512),
        teacher=TeacherSettings(path=teacher, **big),
        student=ModelSettings(path=student, **big),
        lora=LoraConfig(rank=8, alpha=16.0, dropout=0.1),
        # One width of prompts, two numbers of rows: few programs, which take long to compile.
        sampling=SamplingSettings(
            temperature=0.7, max_new_tokens=480, prompt_multiple=256, row_counts=2
        ),
        checkpoint=CheckpointSettings(every=50, keep=2, keep_best="eval/accuracy"),
        plan={
            "sft": SFTSettings(**supervised, **common),
            "distill": DistillSettings(**supervised, **common),
            "rl": RLSettings(
                start="sft",
                algorithm="ppo",
                steps=1000,
                drawn_lengths=6,
                prompts_per_step=32,
                samples_per_prompt=4,
                num_iterations=2,
                minibatches=2,
                accumulate=accumulate,
                **common,
                buckets=BucketSettings(lengths=6, packed=True),
                optimizer=OptimizerSettings(learning_rate=3e-5, warmup_steps=20),
                rewards=RewardSettings(
                    correctness_weight=0.3, intrinsic_weight=0.7, right=1.0, wrong=-0.5
                ),
            ),
            "evaluate": EvaluateSettings(problems=1319, samples=4, temperature=0.7, batch=128),
        },
    )


def smollm2() -> RunConfig:
    """One GPU of any size; a laptop for a few steps (docs/experiments.md)."""
    # The same weights, which also read the worked solution.
    privileged = StageTeacherSettings(
        source="start",
        prompt="{question}\n\nHere is a correct solution:\n{solution}\n\n"
        "Solve the problem in your own words.",
        max_prompt_tokens=768,
    )
    return RunConfig(
        preset="smollm2",
        # Of 32 answers of the released model none is right and 47% do not end: form comes first.
        stages=("sft", "rl", "evaluate"),
        # The template's own system message and the instruction take 45.
        data=DataSettings(source="gsm8k", chat=ASKED["smollm2"], max_prompt_tokens=320),
        # Scanned: on a CPU the first update of 30 unrolled layers took 409 s, mostly compilation.
        student=ModelSettings(path="./models/smollm2", unroll=False),
        lora=LoraConfig(rank=16, alpha=32.0),
        sampling=SamplingSettings(max_new_tokens=256),
        checkpoint=CheckpointSettings(every=25, keep=2),
        records=RecordSettings(every=1, completions_every=25),
        plan={
            "sft": SFTSettings(
                start="base",
                steps=200,
                batch_size=32,
                packing=1024,
                accumulate=8,
                eval_every=50,
                optimizer=OptimizerSettings(learning_rate=3e-4, warmup_steps=10),
            ),
            "distill": DistillSettings(
                start="base",
                data="student_samples",
                steps=100,
                batch_size=64,
                accumulate=16,
                eval_every=25,
                teacher=privileged,
                loss=DistillLossSettings(
                    divergence="reverse", temperature=1.0, kd_weight=1.0, ce_weight=0.0
                ),
                optimizer=OptimizerSettings(learning_rate=3e-4, warmup_steps=5),
            ),
            # The teacher's distribution at each token of the student's own answers.
            "rl": RLSettings(
                start="sft",
                algorithm="bnpo",
                steps=100,
                prompts_per_step=64,
                samples_per_prompt=1,
                accumulate=16,
                eval_every=25,
                optimizer=OptimizerSettings(learning_rate=3e-4, warmup_steps=5),
                rewards=RewardSettings(
                    correctness_weight=0.0,
                    intrinsic_weight=1.0,
                    credit="exact",
                    student_weight=1.0,
                ),
                teacher=privileged,
            ),
            "evaluate": EvaluateSettings(
                problems=1319, samples=4, batch=128, teacher=False, distribution=False
            ),
        },
    )


def qwen_0_5b() -> RunConfig:
    """One GPU of 24 GB."""
    return _qwen("qwen_0_5b", "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-0.5B", 4)


def qwen_1_5b() -> RunConfig:
    """One GPU of 80 GB or more."""
    return _qwen("qwen_1_5b", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-Math-1.5B", 4)


def qwen_7b() -> RunConfig:
    """Eight GPUs of 80 GB, or a TPU slice of as much memory."""
    return _qwen("qwen_7b", "Qwen/Qwen2.5-32B-Instruct", "Qwen/Qwen2.5-Math-7B", 1)
