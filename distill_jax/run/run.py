"""Run: what the stages of a run have in common, made when first asked for."""

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from distill_jax.core import digest, rng, sharding
from distill_jax.core.errors import CheckpointError, DataError
from distill_jax.core.files import read_json
from distill_jax.models import hf_io, peft_io
from distill_jax.run import console, trained_rows
from distill_jax.run.config import RunConfig, to_dict
from distill_jax.run.data import Data
from distill_jax.run.models import Loaded, Models
from distill_jax.run.settings import BASE, StageSettings
from distill_jax.run.stop import StopSignal

SETTINGS_FILE, DONE_FILE = "settings.json", "done.json"
# What a stage makes besides students: rows of data, a reward model in Hugging Face's form.
ROWS_FILE, REWARD_MODEL = "rows.jsonl", "reward_model"
# Digests of models' weights, kept in the work directory.
_DIGESTS_FILE = "digests.json"
_HEX = 32


S = TypeVar("S", bound=StageSettings, covariant=True)


@dataclass(frozen=True)
class Stage(Generic[S]):
    """A stage of the plan: its name and settings."""

    name: str
    settings: S

    @property
    def kind(self) -> str:
        """What kind of stage it is, a key of KINDS."""
        return self.settings.kind


class Student(NamedTuple):
    """A student that a reference names: `name` is that of the stage that made it, "base", or the
    directory as given; `adapter` a PEFT directory or None; `base` the directory of the whole model
    below the adapter, None for the run's own student.
    """

    name: str
    adapter: Path | None = None
    base: Path | None = None


class Run:
    """A work directory with its config, data, models and mesh."""

    def __init__(self, config: RunConfig, workdir: Path):
        self.config, self.workdir = config, Path(workdir).absolute()
        self.console = console.make_console()
        self.mesh = sharding.make_mesh(config.mesh)
        self.stop = StopSignal()
        self.data = Data(
            config,
            self.workdir,
            self.say,
            lambda: trained_rows.of_run(config, self.workdir, ROWS_FILE),
        )
        maker = config.models_stage
        self.models = Models(
            config,
            self.mesh,
            self.data,
            None if maker is None else self.workdir / maker,
            self.run_first(maker) if maker else "set teacher.path and student.path",
        )

    @cached_property
    def config_dict(self) -> dict[str, object]:
        """The flat config as plain values, fit for JSON."""
        return to_dict(self.config)

    def say(self, text: str) -> None:
        """Prints a line on the console of process 0."""
        if jax.process_index() == 0:
            self.console.print(text, highlight=False, markup=False)

    def directory(self, *parts: str) -> Path:
        """workdir/parts..., made when missing."""
        path = self.workdir.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def run_first(self, stage: str) -> str:
        """An error's fix where the work directory lacks what a stage makes."""
        return (
            f"run stage {stage} first: the same command with --config.stages={stage}, "
            f"--workdir={self.workdir}"
        )

    def stage(self, name: str) -> Stage[Any]:
        """The stage of a name."""
        return Stage(name, self.config.plan[name])

    # --- randomness ---------------------------------------------------------------------------

    def seed(self, stage: Stage[Any]) -> int:
        """Seed of a stage's numpy randomness: the run's for a stage named as its kind, else
        CRC-32(name) << 32 | seed, so that two stages of one kind draw other numbers."""
        if stage.name == stage.kind:
            return self.config.seed
        return zlib.crc32(stage.name.encode()) << 32 | self.config.seed

    def key(self, stage: Stage[Any]) -> jax.Array:
        """Key of a stage's jax randomness, as `seed`."""
        key = rng.run_key(self.config.seed)
        return key if stage.name == stage.kind else rng.stream_key(key, stage.name)

    # --- references ---------------------------------------------------------------------------

    def is_done(self, name: str) -> bool:
        """Whether a stage is complete in this work directory."""
        return (self.workdir / name / DONE_FILE).is_file()

    def is_there(self, reference: str) -> bool:
        """Whether what a reference names needs no stage to run first; it may be missing, too."""
        return reference not in self.config.plan or self.is_done(reference)

    def student(self, reference: str) -> Student:
        """The student that a reference names: `base`, a stage, or a directory.

        Raises:
            CheckpointError: the stage has not made it, or the directory holds no model.
        """
        if reference == BASE:
            return Student(BASE)
        if reference in self.config.plan:
            made = self.made_student(reference)
            if made is None:
                raise CheckpointError(
                    f"no student in {self.workdir / reference}", fix=self.run_first(reference)
                )
            return made
        if not Path(reference).expanduser().is_dir() and not hf_io.is_hub_id(reference):
            raise CheckpointError(
                f"no stage of {self.workdir} and no directory {reference}",
                wanted=f"a student of the run ({', '.join([BASE, *self.students()])}), "
                "STAGE_step_N, or a directory or hub id",
                fix="name one of them",
            )
        path = hf_io.model_dir(reference).absolute()
        for adapter in (path, path / "adapter"):
            if (adapter / peft_io.CONFIG).is_file():
                return Student(reference, adapter=adapter)
        for model in (path, path / "model"):
            if (model / "config.json").is_file():
                return Student(reference, base=model)
        raise CheckpointError(
            f"{reference} holds no model",
            wanted=f"{BASE}, a stage of the plan ({', '.join(self.config.plan)}), or a directory "
            f"with {peft_io.CONFIG} or config.json",
        )

    def rows(self, reference: str) -> Path:
        """The file of rows that a reference names: a stage, a file, or a directory with rows.jsonl.

        Raises:
            DataError: there is none.
        """
        return self._product(reference, ROWS_FILE, "a file of rows")

    def reward_model(self, reference: str) -> Path:
        """The directory of the reward model that a reference names: a stage or a directory.

        Raises:
            DataError: there is none.
        """
        return self._product(reference, REWARD_MODEL, "a reward model")

    def _product(self, reference: str, part: str, what: str) -> Path:
        place = self.workdir / reference if reference in self.config.plan else Path(reference)
        found = place / part if (place / part).exists() or reference in self.config.plan else place
        if not found.exists():
            known = reference in self.config.plan
            fix = self.run_first(reference) if known else f"give {what}"
            raise DataError(f"no {what.removeprefix('a ')} at {found}", fix=fix)
        return found

    def made_student(self, stage: str) -> Student | None:
        """What a stage that makes a student has made here: an adapter or a whole model; or None."""
        adapter, model = (self.workdir / stage / name for name in ("adapter", "model"))
        if (model / "config.json").is_file():
            return Student(stage, base=model)
        if not (adapter / peft_io.CONFIG).is_file():
            return None
        return Student(stage, adapter=adapter, base=self.base_of(stage))

    def base_of(self, stage: str) -> Path | None:
        """The whole model below a stage's adapter: as recorded when it began, else of its start."""
        begun = read_json(self.workdir / stage / SETTINGS_FILE) or {}
        if "base" in begun:
            return self.workdir / begun["base"] if begun["base"] else None
        return self.student(self.start_of(stage)).base

    def start_of(self, stage: str) -> str:
        """What a stage started from: as recorded when it was begun here, else as configured."""
        begun = read_json(self.workdir / stage / SETTINGS_FILE) or {}
        configured = getattr(self.config.plan[stage], "start", BASE)
        return str(begun.get("own", {}).get("start", configured))

    def students(self) -> list[str]:
        """The stages, in order, that have made a student here."""
        makers = [n for n in self.config.order if self.config.plan[n].makes == "student"]
        return [name for name in makers if self.made_student(name) is not None]

    def load_student(self, reference: str) -> Loaded:
        """The student that a reference names, on the mesh; a bare one with a fresh adapter."""
        found = self.student(reference)
        return self.models.load("student", adapter=found.adapter, base=found.base)

    # --- digests ------------------------------------------------------------------------------

    @cached_property
    def remembered(self) -> digest.Remembered:
        """Digests of models' files; for process 0."""
        return digest.Remembered(self.workdir / _DIGESTS_FILE)

    def digest(self, directory: Path) -> str:
        """Digest of a model's files, or of one file; process 0 reads them, once while they stay."""
        found = self.remembered.of_model(directory) if jax.process_index() == 0 else "0" * _HEX
        if jax.process_count() > 1:
            raw = np.frombuffer(bytes.fromhex(found), np.uint8)
            found = np.asarray(multihost_utils.broadcast_one_to_all(raw)).tobytes().hex()
        return found

    def student_digests(self, student: Student) -> dict[str, str]:
        """Digests of the parts of a student: its base model and, if it has one, its adapter."""
        found = {"student": self.digest(student.base or self.models.path("student"))}
        return found | ({"adapter": self.digest(student.adapter)} if student.adapter else {})

    def made(self, stage: str) -> dict[str, str]:
        """Digests of what a complete stage has made, by name; {} where it is not complete."""
        done = read_json(self.workdir / stage / DONE_FILE)
        return {} if done is None else dict(done["made"])

    # --- a block ------------------------------------------------------------------------------

    def __enter__(self) -> "Run":
        self.stop.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.stop.__exit__(*raised)
        self.data.close()
