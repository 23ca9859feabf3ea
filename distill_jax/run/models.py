"""A run's models: where their weights are, how they are built and loaded onto the mesh."""

import functools
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import jax
from jax.sharding import Mesh

from distill_jax.core import rng, sharding
from distill_jax.core.errors import CheckpointError, ConfigError, MeshError
from distill_jax.core.sharding import AnyMesh
from distill_jax.data import tokenizer as tokenizers
from distill_jax.models import hf_io, peft_io, quantised
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.rollout.sampler import Sampler
from distill_jax.run.data import Data
from distill_jax.run.settings import ModelSettings, Shared
from distill_jax.training.state import param_shardings

ROLES = ("teacher", "student")


@dataclass(frozen=True)
class Loaded:
    """A model with its weights on the mesh: params is {"base", "lora"}."""

    model: QwenModel
    params: dict[str, Any]


@functools.partial(jax.jit, static_argnums=0)
def _fresh_adapter(model: QwenModel, key: jax.Array) -> Any:
    return model.init(key)["lora"]


@functools.lru_cache(maxsize=8)
def initialiser(model: QwenModel, mesh: Any) -> Any:
    """(key) -> parameters on the mesh; one program for equal models."""
    return jax.jit(model.init, out_shardings=param_shardings(model.shapes(), mesh))


def unrolled(settings: ModelSettings, mesh: AnyMesh, platform: str | None = None) -> bool:
    """Whether a model's layers come one after another in its programs, instead of in a scan.

    TPUs, and collectives of weights in loops, make a scan compile several times faster and take a
    third of the temporaries. On one GPU an update with `remat` takes less in a scan, because
    unrolled layers' kernels are cut out of their stack and kept until the backward pass; without
    `remat` it takes more, because what a block keeps is stacked. `platform` is the mesh's where
    it is None; an abstract mesh counts as one of GPUs.
    """
    if settings.unroll is not None:
        return settings.unroll
    where = platform or sharding.platform(mesh) or "gpu"
    return where == "cpu" or (where == "gpu" and mesh.shape["fsdp"] == 1 and not settings.remat)


def build(
    settings: ModelSettings, geometry: QwenConfig, *, lora: LoraConfig | None, mesh: Mesh
) -> QwenModel:
    """The model object of a role's settings on a mesh, whose devices need not be here.

    Raises:
        MeshError: the tensor axis would split kv heads inside, which costs a gather of the cache at
            every decode step.
    """
    heads, tensor = geometry.num_kv_heads, mesh.shape["tensor"]
    if heads % tensor:
        raise MeshError(
            f"mesh.tensor={tensor} with a model of {heads} kv heads",
            wanted=f"a divisor of {heads}",
            fix="lower mesh.tensor and raise mesh.fsdp",
        )
    return QwenModel(
        geometry,
        lora,
        compute_dtype=settings.compute_dtype,
        param_dtype=settings.param_dtype,
        unroll=unrolled(settings, mesh),
        remat=settings.remat,
        attention_impl=cast(Any, settings.attention),  # `choices` makes it of that Literal
        fuse=mesh.shape["tensor"] == 1,
        rows=sharding.batch_sharding(mesh),
    )


class Models:
    """The teacher and the student.

    Args:
        config, mesh, data: of the run.
        made: directory of the stage that trains the models without a path; None without one.
        fix: what a user should do where that stage has not run.
    """

    def __init__(self, config: Shared, mesh: Mesh, data: Data, made: Path | None, fix: str):
        self.config, self.mesh, self.data = config, mesh, data
        self.made, self._fix = made, fix

    def settings_of(self, role: str) -> ModelSettings:
        """Settings of "teacher" or "student"."""
        return self.config.teacher if role == "teacher" else self.config.student

    def path(self, role: str) -> Path:
        """Directory of a role's weights: its own path, or what the run has trained.

        Raises:
            CheckpointError: the run has not trained them yet.
        """
        path = self.settings_of(role).path
        if path:
            return hf_io.model_dir(path)
        if not self.made_here(role):
            raise CheckpointError(f"no {role} model in {self.made}", fix=self._fix)
        return self._made(role)

    def name(self, role: str) -> str:
        """A role's path or hub id as given, else where the run trains it."""
        return self.settings_of(role).path or str(self._made(role))

    def made_here(self, role: str) -> bool:
        """Whether this run has trained the role's model."""
        return not self.settings_of(role).path and (self._made(role) / "config.json").is_file()

    def _made(self, role: str) -> Path:
        return (self.made or Path()) / role / "model"

    def build(self, role: str, geometry: QwenConfig, *, lora: LoraConfig | None) -> QwenModel:
        """The model object of a role."""
        return build(self.settings_of(role), geometry, lora=lora, mesh=self.mesh)

    def lora_of(self, role: str) -> LoraConfig | None:
        """The student's adapter; the teacher has none."""
        return self.config.lora if role == "student" else None

    def base_shardings(self, geometry: QwenConfig) -> Any:
        """NamedShardings of a model's base tree on this mesh."""
        return param_shardings({"base": QwenModel(geometry).shapes()["base"]}, self.mesh)["base"]

    def check_rows(self, name: str, geometry: QwenConfig, tokenizer: Any = None) -> None:
        """Raises ConfigError when a model has fewer embedding rows than there are tokens.

        name: the setting that names the model, e.g. "teacher.path"; tokenizer: None is the run's.
        """
        tokens = len(tokenizer or self.data.tokenizer)
        if tokens > geometry.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokens} tokens, the model of {name} {geometry.vocab_size} "
                "embedding rows",
                wanted="a row for every token",
                fix=f"set {name} to a model of this tokenizer",
            )

    def load(self, role: str, *, adapter: Path | None = None, base: Path | None = None) -> Loaded:
        """A role's weights, split over the mesh.

        Args:
            role: "teacher" (never with LoRA) or "student".
            adapter: PEFT directory for the student; None: a fresh adapter, which changes nothing.
            base: directory of a whole model instead of the role's own.

        Raises:
            CheckpointError: missing or damaged files, or an adapter of other settings.
            MissingExtraError: quantise=int8 without qwix.
        """
        geometry, weights = self._load_base(role, base or self.path(role), f"{role}.path")
        model = self.build(role, geometry, lora=self.lora_of(role))
        lora: dict[str, Any] = {}
        if role == "student":
            lora = self._fresh(model) if adapter is None else self.read_adapter(adapter, geometry)
            lora = self.place_lora(lora)
        return Loaded(model, {"base": weights, "lora": lora})

    def _load_base(
        self, role: str, directory: Path, name: str, tokenizer: Any = None
    ) -> tuple[QwenConfig, Any]:
        settings = self.settings_of(role)

        def held(path: tuple[str, ...], leaf: jax.Array) -> Any:
            if not settings.int8 or not quantised.is_quantised(path):
                return leaf
            return quantised.quantise(leaf, settings.compute_dtype)

        geometry, weights = hf_io.load_hf(
            directory,
            param_dtype=settings.param_dtype,
            shardings=self.base_shardings,
            convert=held,
        )
        self.check_rows(name, geometry, tokenizer)
        return geometry, weights

    @cached_property
    def teacher(self) -> Loaded:
        """The teacher, loaded once and kept."""
        return self.load("teacher")

    def place_lora(self, lora: Any) -> Any:
        """An adapter tree on the mesh."""
        return sharding.place(lora, param_shardings({"lora": lora}, self.mesh)["lora"])

    def _fresh(self, model: QwenModel) -> Any:
        key = rng.stream_key(rng.run_key(self.config.seed), "lora")
        return jax.device_get(_fresh_adapter(model, key))

    def read_adapter(self, directory: Path, geometry: QwenConfig) -> Any:
        """An adapter of the student in host memory.

        Raises:
            CheckpointError: missing or damaged files, or an adapter of other settings.
        """
        lora, found = peft_io.load_adapter(directory, geometry)
        wanted = self.config.lora
        # An rsLoRA adapter is that of another alpha without: what counts is the scale.
        same = found.rank == wanted.rank and math.isclose(found.scale, wanted.scale)
        if not same or set(found.targets) != set(wanted.targets):
            raise CheckpointError(
                f"adapter {directory} has {found}",
                wanted=f"{wanted}",
                fix="set lora.rank, lora.alpha, lora.use_rslora and lora.targets to the adapter's",
            )
        return jax.device_get(lora)

    def load_adapter(self, directory: Path) -> Loaded:
        """The student with any adapter of it, of whatever rank and targets."""
        geometry, base = self._load_base("student", self.path("student"), "student.path")
        lora, settings = peft_io.load_adapter(directory, geometry)
        params = {"base": base, "lora": self.place_lora(jax.device_get(lora))}
        return Loaded(self.build("student", geometry, lora=settings), params)

    def load_whole(self, directory: Path, tokenizer: Any = None) -> Loaded:
        """A model of Hugging Face files, in the student's dtypes; tokenizer: None is the run's."""
        geometry, base = self._load_base("student", directory, str(directory), tokenizer)
        return Loaded(self.build("student", geometry, lora=None), {"base": base, "lora": {}})

    def sampler(self, model: QwenModel, tokenizer: Any = None) -> Sampler:
        """A sampler on this mesh, with the run's tokens or those of another tokenizer."""
        tok = tokenizer or self.data.tokenizer
        eos, pad = tokenizers.eos_id(tok), tokenizers.pad_id(tok)
        return Sampler(model, self.mesh, eos_id=eos, pad_id=pad, vocab=len(tok))

    def save_adapter(
        self, geometry: QwenConfig, lora: Any, target: Path, base: Path | None = None
    ) -> None:
        """Writes an adapter of the student in PEFT's form, with tokenizer and base model's name.

        base: whole model below the adapter; None is the student's own path or hub id.
        """
        given = self.config.student.path
        if base is None and (not given or Path(given).exists()):
            base = self.path("student")
        name = str(base or given)  # a hub id as given, so that it is found on other machines
        peft_io.save_adapter(
            target, geometry, self.config.lora, lora, name, tokenizer=self.data.tokenizer
        )
