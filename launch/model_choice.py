"""Which model a command means by a word: teacher, base, sft, rl, student, or a directory."""

from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import CheckpointError, TokenizerMismatchError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.models import hf_io
from distill_jax.report import view as views
from distill_jax.rewards.cached_teacher import fingerprint
from distill_jax.run.run import Loaded
from distill_jax.stages import inputs

NAMES = {
    "teacher": "the teacher",
    "base": "the student as it was before stage sft",
    "sft": "the student that stage sft made",
    "rl": "the student that stage rl made",
    "student": "the last of rl, sft, base that is there",
}
_ADAPTER, _MODEL = "adapter_config.json", "config.json"


class Choice(NamedTuple):
    """A model before it is loaded.

    Attributes:
        name: as it was asked for; "student" told as rl, sft or base.
        role: whose dtypes and base weights, "teacher" or "student".
        adapter: PEFT directory over the student, or None.
        model: Hugging Face directory of a model of its own, or None.
    """

    name: str
    role: str
    adapter: Path | None = None
    model: Path | None = None

    def load(self, context: Context) -> Loaded:
        """The weights on the mesh.

        Raises:
            CheckpointError: missing or damaged files, or an adapter of other settings.
            TokenizerMismatchError: the directory's own tokenizer is not that of the run.
        """
        if self.model is None:
            return context.load(self.role, self.adapter)
        _check_tokenizer(context, self.model)
        dtype = context.settings_of(self.role).param_dtype
        geometry, base = hf_io.load_hf(
            self.model, param_dtype=dtype, shardings=context.base_shardings
        )
        context.check_rows(self.role, geometry)
        model = context.build(self.role, geometry, lora=None)
        return Loaded(model, {"base": base, "lora": {}})

    def digests(self, context: Context) -> dict[str, Any]:
        """Of the weights: the same for the same model, whatever its name or folder.

        Raises:
            CheckpointError: the model is not there.
        """
        directory = self.model or context.model_path(self.role)
        return {"model": fingerprint(directory), "adapter": inputs.adapter_digest(self.adapter)}


def choose(context: Context, asked: str) -> Choice:
    """The model of a name or directory; a name goes before a directory called like it.

    Raises:
        CheckpointError: it is not there.
    """
    if asked == "teacher":
        context.model_path("teacher")
        return Choice("teacher", "teacher")
    view = views.load(context.workdir)
    if asked not in NAMES:  # an alias, or a stage that this run names otherwise
        asked = views.canonical(asked, view)
    if asked not in (*NAMES, *(stage.name for stage in view.students)):
        return _directory(asked)
    context.model_path("student")
    if asked == "student":
        asked = next((name for name in ("rl", "sft") if context.adapter(name)), "base")
    if asked == "base":
        return Choice("base", "student")
    adapter = context.adapter(asked)
    if adapter is None:
        raise CheckpointError(
            f"no adapter in {context.workdir / asked / 'adapter'}", fix=context.run_first(asked)
        )
    return Choice(asked, "student", adapter=adapter)


def _directory(asked: str) -> Choice:
    path = Path(asked).expanduser()
    if (path / _ADAPTER).is_file():
        return Choice(asked, "student", adapter=path.absolute())
    if (path / "adapter" / _ADAPTER).is_file():
        return Choice(asked, "student", adapter=(path / "adapter").absolute())
    wanted = f"one of {', '.join(NAMES)}, or a directory with {_ADAPTER} or {_MODEL}"
    if path.is_dir() and not (path / _MODEL).is_file():
        raise CheckpointError(f"{asked} holds no model", wanted=wanted)
    try:
        return Choice(asked, "student", model=hf_io.model_dir(asked))
    except CheckpointError as error:
        got = f"no model {asked}: {error.message}"
        raise CheckpointError(got, wanted=wanted, fix=error.fix) from error


def _check_tokenizer(context: Context, directory: Path) -> None:
    if not (directory / "tokenizer.json").is_file():
        return
    try:
        own = tokenizers.load_tokenizer(directory)
        tokenizers.check_same_tokenizer(own, context.tokenizer)
    except TokenizerMismatchError as error:
        raise TokenizerMismatchError(
            f"{directory} has a tokenizer other than the run's: {error.message}",
            wanted=error.wanted,
            fix="set student.path and teacher.path to models of that tokenizer",
        ) from error
