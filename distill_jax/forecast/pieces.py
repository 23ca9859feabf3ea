"""Pieces that the memory of several stages is made of: weights, what is trained, activations.

Weights and optimiser are exact: shapes by `jax.eval_shape`, split by the rules of the real load
over a mesh that need not exist. Activations are estimated (`activations.py`).
"""

from collections.abc import Mapping
from typing import Any

import jax

from distill_jax.core import sharding
from distill_jax.core.sharding import AnyMesh
from distill_jax.forecast import activations
from distill_jax.forecast.activations import Program, Rows
from distill_jax.forecast.parts import Part
from distill_jax.forecast.weights import decode_bytes, device_bytes, weights_bytes
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run.models import unrolled
from distill_jax.run.settings import ModelSettings, Shared
from distill_jax.training import optimizer
from distill_jax.training import state as states


class Pieces:
    """What a run's models hold on one device.

    The mesh is real or abstract; platform: see `activations.Program`, None: the mesh's, "gpu" where
    it is abstract; further: geometries of further teachers by name.
    """

    def __init__(
        self,
        config: Shared,
        teacher: QwenConfig,
        student: QwenConfig,
        mesh: AnyMesh,
        *,
        platform: str | None = None,
        further: Mapping[str, QwenConfig] | None = None,
    ):
        self.further = further or {}
        self.config, self.mesh = config, mesh
        self.platform = platform or sharding.platform(mesh) or "gpu"
        self.geometries = {"teacher": teacher, "student": student}
        self.shards = int(mesh.shape["data"] * mesh.shape["fsdp"])

    def settings(self, role: str) -> ModelSettings:
        """Of the teacher or the student."""
        return self.config.teacher if role == "teacher" else self.config.student

    def program(self, role: str, *, dropout: bool = False) -> Program:
        """What decides the activations of a role's model."""
        settings, adapted = self.settings(role), role == "student"
        return Program(
            self.geometries[role],
            settings.compute_dtype,
            fsdp=self.mesh.shape["fsdp"],
            tensor=self.mesh.shape["tensor"],
            unroll=unrolled(settings, self.mesh, self.platform),
            remat=settings.remat,
            rank=self.config.lora.rank if adapted else 0,
            dropout=dropout and self.config.lora.dropout > 0,
            platform=self.platform,
            attention=settings.attention,
        )

    def rows(self, count: int, T: int, R: int) -> Rows:
        """One device's part of so many rows."""
        return Rows(-(-count // self.shards), T, R)

    def groups(self, count: int, samples: int, S: int, R: int, ends: int = 0) -> Rows:
        """One device's part of so many rows, each of a prompt and its samples.

        count: a multiple of the devices. ends: states of each response that are scored besides
        those of its tokens.
        """
        T, scored = S + samples * R, samples * (R + ends)
        return Rows(count // self.shards, T, scored, most_keys=S + R)

    def base_part(self, role: str) -> Part:
        """The weights of a role's model as they are loaded."""
        settings = self.settings(role)
        size = weights_bytes(self.geometries[role], settings, self.mesh)
        held = "int8" if settings.int8 else settings.param_dtype
        return Part(f"{role} weights ({held})", size, True)

    def decode_weights(self, role: str) -> int:
        """Bytes of the copy of the weights that decoding reads."""
        return decode_bytes(self.geometries[role], self.settings(role), self.mesh)

    def trained_parts(
        self, how: Any, *, values: bool, kept: str = "", full: bool = False
    ) -> list[Part]:
        """Adapter, value head, the start where it is `kept` as something; optimiser state."""
        model = QwenModel(self.geometries["student"], self.config.lora)
        name = "base" if full else "lora"
        trained, head = {name: model.shapes()[name]}, dict[str, Any]()
        if values:
            head = jax.eval_shape(lambda: states.with_value_head({}, model.config.hidden_size))
        tx, trainable = optimizer.make(how, 10**6), trained | head
        opt = jax.eval_shape(tx.init, trainable)
        where = states.opt_shardings(opt, trainable, tx, self.mesh)
        # With `full` the weights themselves are counted already.
        labels = [] if full else ["adapter"]
        held = [head] if full else [trainable]
        if kept:
            labels, held = [*labels, kept if full else f"its {kept}"], [*held, trained]
        labels += ["value head"] * values
        copies = sum(device_bytes(x, states.param_shardings(x, self.mesh)) for x in held)
        parts = [Part(", ".join(labels), copies, True)] if labels else []
        return [*parts, Part("optimiser state", device_bytes(opt, where), True)]

    def scoring(self, program: Program, rows: Rows) -> int:
        """Activations of scoring these rows in a call."""
        return activations.scoring_in_parts(program, rows, shards=self.shards)
