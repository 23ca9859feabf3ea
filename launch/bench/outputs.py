"""Compares the files of two runs of one command: same names, same bits, except timing fields."""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

from distill_jax.core.errors import DataError
from distill_jax.training.records import is_timing

# Files that describe the run instead of its result: settings, machine, date, pictures.
RECORDS = (
    "*/settings.json", "*/done.json", "*/run.json", "*/record.json", "*/made_from.json",
    "*/training_config.json", "*/complete.json", "config.json", "*/seed_*/config.json", "*.lock",
    "*digests.json",
    "*log.txt", "*.md", "*.html", "*.png", "*/checkpoints/*", "*/tensorboard/*",
)  # fmt: skip
# Fields that differ between two runs of one command, or only name the code and the machine.
_RUN_FIELDS = frozenset({
    "seconds", "time", "training_date", "evaluation_time", "versions", "python", "platform",
    "devices", "git", "command", "starts", "made_from",
})  # fmt: skip
SAME, DIFFERS, ONLY_OLD, ONLY_NEW = "same", "differs", "only in OLD", "only in NEW"


class Compared(NamedTuple):
    """One file of both runs: its path in NEW, SAME or how it differs, and where."""

    path: str
    status: str
    detail: str = ""


class Rules(NamedTuple):
    """Which files are compared with which.

    Attributes:
        ignored: patterns of relative paths that are not looked at, in the style of a shell.
        renamed: (path in OLD, path in NEW) of files or directories.
    """

    ignored: Sequence[str] = RECORDS
    renamed: Sequence[tuple[str, str]] = ()

    def files(self, root: Path, renamed: Sequence[tuple[str, str]] = ()) -> dict[str, Path]:
        """Files below `root` by the relative path that they have in NEW."""
        found = {}
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not any(fnmatch.fnmatch(name, x) for x in self.ignored):
                found[_new_name(name, renamed)] = path
        return found


def compare(old: Path, new: Path, rules: Rules) -> list[Compared]:
    """Each file of two finished work directories, in the order of paths.

    Raises:
        DataError: a file that should hold JSON does not; nothing to compare.
    """
    olds, news = rules.files(old, rules.renamed), rules.files(new)
    if not olds or not news:
        raise DataError(f"no results in {new if olds else old}", wanted="a finished run")
    out = [Compared(name, ONLY_OLD) for name in olds.keys() - news]
    out += [Compared(name, ONLY_NEW) for name in news.keys() - olds]
    for name in sorted(olds.keys() & news):
        detail = _difference(olds[name], news[name], old, new)
        out.append(Compared(name, DIFFERS if detail else SAME, detail))
    return sorted(out)


def _new_name(name: str, renamed: Sequence[tuple[str, str]]) -> str:
    for before, after in renamed:
        # A directory, a file, or a file's stem: evaluate/student.json, .checkpoint.jsonl.
        if name == before or name.startswith((f"{before}/", f"{before}.")):
            return after + name.removeprefix(before)
    return name


def _difference(old: Path, new: Path, old_root: Path, new_root: Path) -> str:
    """The first difference of two files, "" where there is none that counts."""
    before, after = old.read_bytes(), new.read_bytes()
    if before == after:
        return ""
    if old.suffix not in (".json", ".jsonl"):
        return _of_tensors(old, new) if old.suffix == ".safetensors" else "other bytes"
    return first_difference(_values(old, before, old_root), _values(new, after, new_root))


def _values(path: Path, text: bytes, root: Path) -> Any:
    quoted = json.dumps(str(root.absolute()), ensure_ascii=False)[1:-1].encode()
    text = text.replace(quoted, b"WORKDIR")
    try:
        if path.suffix == ".json":
            return json.loads(text)
        return [json.loads(line) for line in text.splitlines()]
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", fix="let its run finish") from error


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """Where two JSON values differ, with both values; "" where they do not.

    Fields that name the machine, the date or a time are skipped at any depth. 1, 1.0 and true
    are three different values.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*_fields(old), *_fields(new)}):
            name = f"{where}.{key}".lstrip(".")
            if key not in old or key not in new:
                return f"{name} only in {'NEW' if key in new else 'OLD'}"
            if inner := first_difference(old[key], new[key], name):
                return inner
        return ""
    if isinstance(old, list) and isinstance(new, list):
        for index, (a, b) in enumerate(zip(old, new, strict=False)):
            if inner := first_difference(a, b, f"{where}[{index}]"):
                return inner
        return "" if len(old) == len(new) else f"{where}: {len(old)} rows, now {len(new)}"
    if type(old) is type(new) and old == new:
        return ""
    before, after = (json.dumps(value, ensure_ascii=False) for value in (old, new))
    return f"{where}: {_short(before)}, now {_short(after)}"


def _fields(value: Mapping[str, Any]) -> list[str]:
    return [key for key in value if key not in _RUN_FIELDS and not is_timing(key)]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _of_tensors(old: Path, new: Path) -> str:
    with safe_open(old, "np") as a, safe_open(new, "np") as b:
        names = [set(file.keys()) for file in (a, b)]
        if names[0] != names[1]:
            return f"tensor {min(names[0] ^ names[1])} only in one"
        for name in sorted(names[0]):
            x, y = a.get_tensor(name), b.get_tensor(name)
            if (x.shape, x.dtype) != (y.shape, y.dtype):
                return f"{name}: {x.dtype}{list(x.shape)}, now {y.dtype}{list(y.shape)}"
            if x.tobytes() != y.tobytes():
                far = np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)))
                return f"{name}: differs by at most {far:.3g}"
    return "the same tensors, another header"
