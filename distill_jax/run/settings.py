"""The settings that the stages of a run share, and the base classes of a stage's own settings."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import group, setting
from distill_jax.core.sharding import MeshSettings
from distill_jax.core.unread import Unread, off
from distill_jax.data.sources import DataSettings
from distill_jax.models.lora import LoraConfig
from distill_jax.models.quantised import QUANTISE
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.tasks import TASKS, ProgramSettings
from distill_jax.training.checkpoint import CheckpointSettings
from distill_jax.training.optimizer import OptimizerSettings
from distill_jax.training.records import RecordSettings

DTYPES = ("float32", "bfloat16")
# Names of what stages make, which references ask for.
MAKES = ("models", "student", "rows", "reward_model", "results")
# Shared settings that say how problems are put and judged.
TASK = ("task", "programs")
# The student without any adapter, as a reference.
BASE = "base"
# Settings of the data that a training stage reads: all but those of the test split.
TRAINING_DATA = tuple(f"data.{f.name}" for f in fields(DataSettings) if f.name != "test")


@dataclass(frozen=True)
class ModelSettings:
    """A model: a Hugging Face directory or hub id, or a geometry that stage pretrain trains."""

    UNREAD: ClassVar = (
        Unread(
            ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads",
             "steps", "level_shares", "operations", "answer_only"), ("path",), bool,
        ),
    )  # fmt: skip

    path: str = setting("", "Local Hugging Face directory or hub id; empty: made by pretrain.")
    hidden_size: int = setting(128, "Width, when path is empty.", low=8)
    intermediate_size: int = setting(384, "Feed-forward width, when path is empty.", low=8)
    num_layers: int = setting(3, "Layers, when path is empty.", low=1)
    num_heads: int = setting(4, "Query heads, when path is empty.", low=1)
    num_kv_heads: int = setting(2, "Key and value heads, when path is empty.", low=1)
    steps: int = setting(600, "Pretraining steps, when path is empty.", low=1)
    level_shares: tuple[float, ...] = setting(
        (),
        "Share of each level's rows that pretraining shows, level 1 first; (): all rows.",
        low=0.0,
        high=1.0,
    )
    operations: tuple[str, ...] = setting(
        (),
        "Pretraining shows only problems whose steps are of these kinds; (): all.",
        choices=("+", "-"),
    )
    answer_only: float = setting(
        0.0, "Fraction of pretraining rows that show only the final answer.", low=0.0, high=1.0
    )
    param_dtype: str = setting("float32", "Dtype of the weights in memory.", choices=DTYPES)
    compute_dtype: str = setting("float32", "Dtype of matrix products.", choices=DTYPES)
    unroll: bool | None = setting(
        True,
        "Unroll the layers instead of scanning them; None: on CPU, and on one GPU without remat.",
        affects="rounding",
    )
    remat: bool = setting(
        False, "Recompute each layer's activations in the backward pass.", affects="rounding"
    )
    attention: str | None = setting(
        None,
        "Attention: xla or cudnn asks for one; None picks, for 16-bit numbers, cuDNN on GPU where "
        "it compiles and nothing is packed, jax's kernel on TPU for rows from 1,024 tokens; else "
        "XLA.",
        choices=("xla", "cudnn"),
        affects="rounding",
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

    @property
    def int8(self) -> bool:
        """Whether projection kernels are held as int8."""
        return False


@dataclass(frozen=True)
class TeacherSettings(ModelSettings):
    """The teacher, as a model; it alone can be quantised: a student's adapter is merged."""

    quantise: str = setting(
        "none",
        "int8 holds the projection kernels as int8 with a scale per output channel (extra int8).",
        choices=QUANTISE,
    )

    @property
    def int8(self) -> bool:
        """Whether projection kernels are held as int8."""
        return self.quantise == "int8"


@dataclass(frozen=True)
class ReportSettings:
    """The HTML report."""

    problems: int = setting(
        9,
        "Problems shown with the reward of each token (loads the teacher); 0: none.",
        low=0,
        affects="nothing",
    )


@dataclass(frozen=True)
class ExperimentSettings:
    """Several runs: every arm with every seed, then their comparison."""

    UNREAD: ClassVar = (Unread(("name", "seeds", "references"), ("arms",), off),)

    name: str = setting("", "Name of the experiment: its directory is runs/PRESET_NAME.")
    arms: tuple[str, ...] = setting(
        (), "Arms, each 'name: setting=value; setting=value'; none: one ordinary run."
    )
    seeds: tuple[int, ...] = setting((0, 1, 2), "Seeds of each arm.", low=0, high=2**32 - 1)
    references: tuple[str, ...] = setting(
        (), "Arms that the others are compared with; none: the first."
    )

    def __post_init__(self) -> None:
        if self.arms and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ConfigError(f"seeds={self.seeds}", wanted="at least one, none twice")


@dataclass(frozen=True)
class Shared:
    """The settings of a run outside its plan."""

    # A stage may have a task of its own, see `run.given`.
    UNREAD: ClassVar = (
        Unread(("tokenizer_size",), ("student.path",), bool),
        Unread(("programs",), ("task",), lambda task: task != "program"),
    )

    preset: str = setting(
        "tiny", "Name of the preset that these settings began as.", affects="nothing"
    )
    stages: tuple[str, ...] = setting(
        (), "Stages of the plan to run, in this order.", affects="nothing"
    )
    seed: int = setting(
        0, "Seed of weights, data order, sampling and dropout.", low=0, high=2**32 - 1
    )
    tokenizer_size: int = setting(
        512, "Vocabulary of the tokenizer trained on embedded data.", low=262
    )
    task: str = setting(
        "text",
        "How problems are put to a model and answers judged: text, or program, which is run.",
        choices=tuple(TASKS),
    )
    programs: ProgramSettings = field(default_factory=ProgramSettings)
    # No stage names it in `shared`: one that is begun may resume with another mesh.
    mesh: MeshSettings = group(MeshSettings, affects="rounding")
    data: DataSettings = field(default_factory=DataSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: ModelSettings = field(default_factory=ModelSettings)
    lora: LoraConfig = field(default_factory=LoraConfig)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    report: ReportSettings = group(ReportSettings, affects="nothing")
    checkpoint: CheckpointSettings = group(CheckpointSettings, affects="nothing")
    records: RecordSettings = group(RecordSettings, affects="nothing")
    experiment: ExperimentSettings = group(ExperimentSettings, affects="nothing")


@dataclass(frozen=True)
class StageSettings:
    """Settings of one stage; the base class of each kind's.

    A subclass names its kind and what the stage makes: `class Mine(StageSettings, kind="mine",
    makes="student")`; `byproducts=("rows",)` names what else references can ask for. From then on
    a plan may hold it.
    """

    kind: ClassVar[str] = ""
    makes: ClassVar[str] = "results"
    byproducts: ClassVar[tuple[str, ...]] = ()
    # Kind -> class of its settings; filled by subclassing.
    kinds: ClassVar[dict[str, type["StageSettings"]]] = {}

    def __init_subclass__(
        cls, kind: str = "", makes: str = "", byproducts: tuple[str, ...] = (), **rest: Any
    ) -> None:
        super().__init_subclass__(**rest)
        if kind:
            if unknown := {makes, *byproducts} - set(MAKES):
                wanted = f"wanted: some of {', '.join(MAKES)}"
                raise TypeError(f"kind {kind} makes {', '.join(map(repr, unknown))}; {wanted}")
            cls.kind, cls.makes, cls.byproducts = kind, makes, byproducts
            StageSettings.kinds[kind] = cls

    def shared(self) -> tuple[str, ...]:
        """Dotted names of the shared settings and groups that the stage's result depends on."""
        return ("seed",)

    def roles(self) -> tuple[str, ...]:
        """The run's models, teacher and student, whose weights the stage loads."""
        return ()

    def further_models(self) -> dict[str, str]:
        """Directory or hub id of each model, besides the run's, whose weights the stage loads."""
        return {}

    def reads_teacher(self) -> bool:
        """Whether the stage needs the run's teacher."""
        return "teacher" in self.roles()

    def trained_roles(self, shared: Shared, name: str) -> tuple[str, ...]:
        """The run's models that a start of the stage, of this name, trains from scratch."""
        del shared, name
        return ()

    def splits(self) -> tuple[str, ...]:
        """The splits of the run's problems that the stage reads."""
        return ()

    def check_with(self, shared: Shared, name: str) -> None:
        """Raises ConfigError where this stage, of this name, cannot go with shared settings."""

    def summary(self, shared: Shared) -> dict[str, Any]:
        """Settings worth naming in `model_info.json`."""
        del shared
        return {}


@dataclass(frozen=True)
class TrainSettings(StageSettings):
    """What the training loop needs, in every stage that trains."""

    UNREAD: ClassVar[tuple[Unread, ...]] = (
        Unread(("eval_problems", "eval_batch"), ("eval_every",), off),
    )

    steps: int = setting(100, "Steps.", low=1)
    max_tokens: int = setting(
        0, "End after the step that reaches this many num_tokens; 0 is off.", low=0
    )
    accumulate: int = setting(1, "Microbatches in each update.", low=1)
    max_skipped: int = setting(
        10, "Stop after this many skipped updates in a row.", low=1, affects="nothing"
    )
    eval_every: int = setting(0, "Steps between evaluations on validation; 0 is off.", low=0)
    eval_problems: int = setting(64, "Validation problems of such an evaluation.", low=1)
    eval_batch: int = setting(
        256, "Answers decoded at a time in such an evaluation.", low=1, affects="rounding"
    )
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)

    def updates(self) -> int:
        """Optimiser updates of the whole stage."""
        return self.steps

    def splits(self) -> tuple[str, ...]:
        return ("train", "validation") if self.eval_every else ("train",)

    def check_best(self, shared: Shared, name: str) -> None:
        """Raises ConfigError where `checkpoint.keep_best` names a metric that is never logged."""
        best = shared.checkpoint.keep_best or ""
        if best.startswith("eval/") and not self.eval_every:
            raise ConfigError(
                f"checkpoint.keep_best={best} with {name}.eval_every=0",
                fix=f"set {name}.eval_every, or keep_best to a metric that is logged",
            )
