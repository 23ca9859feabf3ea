"""RunConfig: the settings of all parts, composed; checked as a whole before any work."""

from dataclasses import dataclass, field

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.core.sharding import MeshSettings
from distill_jax.curriculum.settings import CurriculumSettings
from distill_jax.data.sources import DataSettings
from distill_jax.evaluation.runner import EvaluateSettings
from distill_jax.models.lora import LoraConfig
from distill_jax.models.quantised import QUANTISE
from distill_jax.report.run_data import ReportSettings
from distill_jax.rewards.length_buckets import BucketSettings
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.teacher_cache import CacheSettings
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.training.algorithms import ALGORITHMS, GroupSettings, PPOSettings
from distill_jax.training.checkpoint import CheckpointSettings
from distill_jax.training.optimizer import OptimizerSettings
from distill_jax.training.records import RecordSettings

STAGES = ("pretrain", "sft", "distill", "rl", "evaluate")
# Distillation is a way of its own beside rl: it is run when asked for.
MAIN_STAGES = ("pretrain", "sft", "rl", "evaluate")
DTYPES = ("float32", "bfloat16")
# What stage rl tells its curriculum of a group. With an intrinsic reward the samples of every
# group differ, and GRPO's advantages are alike for hopeless, useful and mastered arms.
ARM_SIGNALS = ("advantage", "correctness")


@dataclass(frozen=True)
class ModelSettings:
    """A model: a Hugging Face directory or hub id, or a geometry that stage pretrain trains."""

    path: str = setting("", "Local Hugging Face directory or hub id; empty: made by pretrain.")
    hidden_size: int = setting(128, "Width, when path is empty.", low=8)
    intermediate_size: int = setting(384, "Feed-forward width, when path is empty.", low=8)
    num_layers: int = setting(3, "Layers, when path is empty.", low=1)
    num_heads: int = setting(4, "Query heads, when path is empty.", low=1)
    num_kv_heads: int = setting(2, "Key and value heads, when path is empty.", low=1)
    steps: int = setting(600, "Pretraining steps, when path is empty.", low=1)
    param_dtype: str = setting("float32", "Dtype that weights are held in.", choices=DTYPES)
    compute_dtype: str = setting("float32", "Dtype of matrix products.", choices=DTYPES)
    unroll: bool = setting(True, "Unroll the layers (CPU, GPU) instead of scanning them (TPU).")
    remat: bool = setting(False, "Recompute each layer's activations in the backward pass.")
    quantise: str = setting(
        "none",
        "int8 holds the teacher's projection kernels as int8 with a scale an output channel (extra "
        "int8); the student's cannot be.",
        choices=QUANTISE,
    )
    attention: str | None = setting(
        None, "Attention: None picks; xla or cudnn asks for one.", choices=("xla", "cudnn")
    )

    def __post_init__(self) -> None:
        if self.path:
            return
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size={self.hidden_size} with num_heads={self.num_heads}",
                wanted="a multiple",
            )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_heads={self.num_heads} with num_kv_heads={self.num_kv_heads}",
                wanted="a multiple",
            )


@dataclass(frozen=True)
class PretrainSettings:
    """Training of the tiny models from scratch, on worked solutions."""

    batch_size: int = setting(32, "Rows a step.", low=1)
    accumulate: int = setting(1, "Microbatches a step.", low=1)
    max_skipped: int = setting(10, "Stop after this many skipped updates in a row.", low=1)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)


@dataclass(frozen=True)
class SFTSettings:
    """Supervised fine-tuning of the student's LoRA parameters."""

    steps: int = setting(100, "Steps.", low=1)
    batch_size: int = setting(32, "Rows a step.", low=1)
    accumulate: int = setting(1, "Microbatches a step.", low=1)
    answer_only: float = setting(
        0.0, "Fraction of rows that show only the final answer.", low=0.0, high=1.0
    )
    max_skipped: int = setting(10, "Stop after this many skipped updates in a row.", low=1)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)


@dataclass(frozen=True)
class RLSettings:
    """Reinforcement learning of the student's LoRA parameters."""

    algorithm: str = setting("grpo", "Entry of ALGORITHMS.", choices=tuple(ALGORITHMS))
    steps: int = setting(50, "Rollouts, each followed by its updates.", low=1)
    max_tokens: int = setting(
        0, "End after the step that reaches this many num_tokens; 0 is off.", low=0
    )
    prompts_per_step: int = setting(16, "Prompts a step (P).", low=1)
    samples_per_prompt: int = setting(8, "Completions of each prompt (G).", low=1)
    num_iterations: int = setting(1, "Passes over a rollout's batch.", low=1)
    minibatches: int = setting(1, "Updates in each pass.", low=1)
    accumulate: int = setting(1, "Microbatches in each update.", low=1)
    dynamic_sampling: int = setting(
        0, "Extra rounds of prompts in place of groups all right or all wrong (DAPO).", low=0
    )
    arm_signal: str = setting(
        "advantage",
        "An arm's signal: mean |advantage|, or 2√(p(1−p)) of right answers alone.",
        choices=ARM_SIGNALS,
    )
    mask_truncated: bool = setting(
        False, "Leave completions without EOS out of the loss (not out of the group's mean)."
    )
    batch_multiple: int = setting(64, "Batch lengths are multiples of this.", low=1)
    max_skipped: int = setting(10, "Stop after this many skipped updates in a row.", low=1)
    eval_every: int = setting(0, "Steps between evaluations on validation; 0 is off.", low=0)
    eval_problems: int = setting(64, "Validation problems of such an evaluation.", low=1)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    buckets: BucketSettings = field(default_factory=BucketSettings)
    group: GroupSettings = field(default_factory=GroupSettings)
    ppo: PPOSettings = field(default_factory=PPOSettings)

    def __post_init__(self) -> None:
        rows = self.prompts_per_step * self.samples_per_prompt
        if rows % (self.minibatches * self.accumulate):
            raise ConfigError(
                f"prompts_per_step×samples_per_prompt={rows} rows in "
                f"minibatches×accumulate={self.minibatches * self.accumulate} parts",
                wanted="a multiple",
            )
        if self.algorithm != "ppo" and self.samples_per_prompt < 2:
            raise ConfigError(
                f"samples_per_prompt=1 with algorithm={self.algorithm}",
                wanted="at least 2: the group's mean is the baseline",
            )


@dataclass(frozen=True)
class ExperimentSettings:
    """Several runs beside each other: every arm with every seed, then their comparison."""

    name: str = setting("", "Of the experiment: its directory is runs/PRESET_NAME.")
    arms: tuple[str, ...] = setting(
        (), "Arms, each 'name: setting=value; setting=value'; none is one ordinary run."
    )
    seeds: tuple[int, ...] = setting((0, 1, 2), "Seeds of each arm.", low=0, high=2**32 - 1)
    references: tuple[str, ...] = setting(
        (), "Arms that the others are compared with; none: the first."
    )

    def __post_init__(self) -> None:
        if self.arms and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ConfigError(f"seeds={self.seeds}", wanted="at least one, none twice")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is."""

    preset: str = setting("tiny", "Name of the preset that these settings began as.")
    stages: tuple[str, ...] = setting(MAIN_STAGES, "Stages to run, in this order.", choices=STAGES)
    seed: int = setting(
        0, "Seed of weights, data order, sampling and dropout.", low=0, high=2**32 - 1
    )
    tokenizer_size: int = setting(
        512, "Vocabulary of the tokenizer trained on embedded data.", low=262
    )
    mesh: MeshSettings = field(default_factory=MeshSettings)
    data: DataSettings = field(default_factory=DataSettings)
    teacher: ModelSettings = field(default_factory=ModelSettings)
    student: ModelSettings = field(default_factory=ModelSettings)
    lora: LoraConfig = field(default_factory=LoraConfig)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    sft: SFTSettings = field(default_factory=SFTSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    rl: RLSettings = field(default_factory=RLSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    records: RecordSettings = field(default_factory=RecordSettings)
    experiment: ExperimentSettings = field(default_factory=ExperimentSettings)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("stages=()", wanted=f"some of {', '.join(STAGES)}")
        if list(self.stages) != [s for s in STAGES if s in self.stages]:
            raise ConfigError(f"stages={self.stages}", wanted=f"the order {', '.join(STAGES)}")
        if self.sampling.temperature == 0.0 and "rl" in self.stages:
            raise ConfigError(
                "sampling.temperature=0 in stage rl",
                wanted="more than 0: greedy completions of a prompt are all alike",
            )
        if self.sampling.temperature == 0.0 and "distill" in self.stages and self.distill.draws:
            raise ConfigError(
                "sampling.temperature=0 in stage distill, which learns on the student's samples",
                wanted="more than 0: greedy completions show only what the student does anyway",
            )
        buffer, longest = self.rl.rewards.overlong_buffer, self.sampling.max_new_tokens
        if buffer > longest and "rl" in self.stages:
            raise ConfigError(
                f"rl.rewards.overlong_buffer={buffer} with sampling.max_new_tokens={longest}",
                wanted="a part of the longest completion",
            )
        best = self.checkpoint.keep_best or ""
        for name, every in (("distill", self.distill.eval_every), ("rl", self.rl.eval_every)):
            if best.startswith("eval/") and name in self.stages and not every:
                raise ConfigError(
                    f"checkpoint.keep_best={best} with {name}.eval_every=0",
                    fix=f"set {name}.eval_every, or keep_best to a metric that is logged",
                )
        if self.student.quantise != "none":
            raise ConfigError(
                f"student.quantise={self.student.quantise}",
                wanted="none: its adapter is merged into its kernels, and exported beside them",
                fix="set teacher.quantise, the teacher is what takes the memory",
            )
        embedded = self.data.source == "embedded"
        for name, model in (("teacher", self.teacher), ("student", self.student)):
            if not model.path and not embedded:
                raise ConfigError(
                    f"{name}.path is empty with data.source={self.data.source}",
                    fix=f"set {name}.path to a Hugging Face directory or hub id, e.g. to "
                    f"runs/tiny/pretrain/{name}/model, which preset tiny makes",
                )
        if bool(self.teacher.path) != bool(self.student.path):
            raise ConfigError(
                f"teacher.path={self.teacher.path!r} with student.path={self.student.path!r}",
                wanted="both paths or neither: they must share a tokenizer",
            )
