"""What a stage is made from beside its settings: problems, models and adapters, by content.

Settings name files; what stands in them can change between a start and the next. A stage resumed
on other data, or held to another reference, would be neither run.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from distill_jax.core.errors import ConfigError
from distill_jax.rewards.cached_teacher import fingerprint
from distill_jax.stages.context import Context

_SPLITS = {
    "pretrain": ("train",),
    "sft": ("train",),
    "distill": ("train", "validation"),
    "rl": ("train", "validation"),
    "evaluate": ("test",),
}
# Of a weight file: its size and its beginning, where a safetensors file lists its tensors.
_BEGINNING = 2**20


def of(context: Context, stage: str) -> dict[str, str]:
    """Names of a stage's inputs with digests of their contents; models made here are not told.

    Raises:
        DistillError: an input is missing or cannot be read.
    """
    found = of_complete(context, stage)
    for role in ("teacher", "student"):
        if f"{role} model" in found:  # its beginning alone may be that of other weights, too
            found[f"{role} weights"] = whole_digest(context, context.model_path(role))
    if stage == "rl":
        found["starting adapter"] = adapter_digest(context.start_adapter())
    if stage == "distill":
        found["starting adapter"] = adapter_digest(context.distill_adapter())
    for split in _SPLITS[stage]:
        if split != "validation" or getattr(context.config, stage).eval_every:
            problems = context.problems(split).problems
            parts = (f"{p.question}\0{p.solution}\0{p.answer}\0" for p in problems)
            found[f"{split} problems"] = _digest(part.encode() for part in parts)
    return found


def of_complete(context: Context, stage: str) -> dict[str, str]:
    """Those that are quick to look at: for a complete stage, whose inputs may be gone by now."""
    found = {}
    for role in ("teacher", "student"):
        if context.settings_of(role).path:
            found[f"{role} model"] = model_digest(context.model_path(role))
    wants = stage == "rl" or (stage == "distill" and context.config.distill.start == "sft")
    if wants and context.adapter("sft") is not None:
        found["starting adapter"] = adapter_digest(context.adapter("sft"))
    return found


def model_digest(directory: Path) -> str:
    """Of a model's configuration and the beginnings of its weight files."""
    return _digest(_model_parts(directory))


def whole_digest(context: Context, directory: Path) -> str:
    """Of all of a model's weights, read once a run.

    Weights of one size that begin alike may differ: a merged adapter leaves the embedding, which
    stands first in the file, as it was.
    """
    return context.once(("whole digest", directory), lambda: fingerprint(directory))


def adapter_digest(adapter: Path | None) -> str:
    """Of an adapter's weights, or those of a whole model in its place; "none" for the bare one."""
    if adapter is None:
        return "none"
    if (adapter / "config.json").is_file():
        return fingerprint(adapter)
    return _digest([(adapter / "adapter_model.safetensors").read_bytes()])


def check_same(directory: Path, before: dict[str, str], now: dict[str, str]) -> None:
    """Nothing that both tell of differs.

    Raises:
        ConfigError: naming the inputs that do.
    """
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    if changed:
        raise ConfigError(
            f"{directory} was begun with another {' and another '.join(changed)} than there is now",
            wanted="what it was begun with",
            fix="use another --workdir, or delete that directory",
        )


def _model_parts(directory: Path) -> Iterable[bytes]:
    yield (directory / "config.json").read_bytes()
    for file in sorted(directory.glob("*.safetensors")):
        yield f"{file.name}\0{file.stat().st_size}\0".encode()
        with file.open("rb") as handle:
            yield handle.read(_BEGINNING)


def _digest(parts: Iterable[bytes]) -> str:
    out = hashlib.blake2b(digest_size=16)
    for part in parts:
        out.update(part)
    return out.hexdigest()
