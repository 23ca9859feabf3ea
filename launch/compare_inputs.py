"""Reads results of stage evaluate and of export_answers, and pairs them by problem."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax import answers
from distill_jax.core.errors import DataError
from distill_jax.core.files import read_json, store_path
from distill_jax.data.rows import read_rows
from distill_jax.report import view as views

_FLAG = bool, "true or false"
_WANTED = "a result of stage evaluate (.json) or of launch.export_answers (.jsonl)"


class Row(NamedTuple):
    """One problem: `right` None where an error took the answer's place, `sampled` the verdicts on
    its samples, `tokens` the answer's, None where they were not recorded."""

    question: str
    level: int | None
    gold: str
    right: bool | None
    text: str
    sampled: tuple[bool, ...] = ()
    tokens: int | None = None

    @property
    def said(self) -> str:
        """The final answer of the text."""
        found = answers.extract(self.text)
        return found.text if found else "no answer"


class Result(NamedTuple):
    """A model's answers by problem id; temperature None where it was not recorded."""

    name: str
    path: Path
    rows: dict[str, Row]
    temperature: float | None


class Pair(NamedTuple):
    """Two results on the same problems, in a's order; `failed` were skipped for an error."""

    a: Result
    b: Result
    ids: list[str]
    failed: int


def find(name: str, workdir: Path | None) -> Path:
    """The file of a name or alias inside a work directory, or of a path.

    Raises:
        DataError: there is none; names the results that exist.
    """
    places = [Path(name)]
    if workdir is not None:
        view, exported = views.load(workdir), workdir / "export" / f"{name}.jsonl"
        known_as = f"{views.canonical(name, view)}.json"
        evaluated = [one / known_as for one in view.results_directories(workdir)]
        places = [*evaluated, exported, *places]
    for place in places:
        if place.is_file():
            return place
    for place in places:
        if store_path(place).is_file():
            raise DataError(f"{place} is not complete", fix="run its export again, it goes on")
    if Path(name).is_dir():
        raise DataError(f"{name} is a directory", wanted=_WANTED, fix=_results_named(Path(name)))
    there = f"; {workdir} has {', '.join(known(workdir)) or 'none'}" if workdir else ""
    raise DataError(f"no result {name}{there}", wanted=_WANTED)


def known(workdir: Path) -> list[str]:
    """Names that `find` knows in a work directory."""
    found = _results(workdir)
    made = sorted({path.stem for path in found if path.suffix == ".json"})
    return made + [path.stem for path in found if path.suffix == ".jsonl"]


def _results(workdir: Path) -> list[Path]:
    """The results in a work directory: of stages that make them, then exports."""
    view = views.load(workdir)
    made = [one for d in view.results_directories(workdir) for one in sorted(d.glob("*.json"))]
    made = [one for one in made if one.stem in view.subjects or view.checkpoint(one.stem)]
    return [*made, *sorted((workdir / "export").glob("*.jsonl"))]


def _results_named(workdir: Path) -> str:
    """The fix where something else in a work directory, or itself, was taken for a result."""
    found = ", ".join(map(str, _results(workdir)))
    return f"name one of {found}" if found else "name the file of a result"


def default_pairs(workdir: Path) -> list[tuple[str, str]]:
    """The teacher with the last student, and each change of training, where both were evaluated.

    Raises:
        DataError: no pair was.
    """
    view = views.load(workdir)
    wanted = [(views.TEACHER, view.last), *((a, b) for b, a in views.changes(view))]
    found = [p for p in wanted if all(view.result_file(workdir, n).is_file() for n in p)]
    if not found:
        has = ", ".join(known(workdir)) or "none"
        got = f"no two results of stage evaluate to compare in {workdir}, it has {has}"
        raise DataError(got, fix="run stage evaluate, or name two results")
    return found


def read(path: Path, name: str) -> Result:
    """A result.

    Raises:
        DataError, CheckpointError: the file is neither kind of result, or damaged.
    """
    if path.suffix not in (".json", ".jsonl"):
        raise DataError(f"{path} is no result", wanted=_WANTED, fix=_results_named(path.parent))
    if path.suffix == ".jsonl":
        rows = [_exported(row, where) for where, row in read_rows(path)]
        temperature = _exported_temperature(path)
    else:
        found = read_json(path)
        if not isinstance(found, dict):
            raise DataError(f"{path} is a {type(found).__name__}", wanted=_WANTED)
        if not isinstance(problems := found.get("problems"), list):
            raise DataError(f"{path} has no list of problems", wanted=_WANTED)
        rows = [_evaluated(row, f"{path}, problem {i}") for i, row in enumerate(problems, 1)]
        temperature = 0.0
    out: dict[str, Row] = {}
    for key, row in rows:
        if key in out:
            raise DataError(f"{path} has problem {key} twice")
        out[key] = row
    if not out:
        raise DataError(f"{path} has no problems", wanted=_WANTED)
    return Result(name, path, out, temperature)


def _exported(row: Mapping[str, Any], where: str) -> tuple[str, Row]:
    right = None if row.get("error") is not None else _cell(row, "right", where, *_FLAG)
    gold, text = str(row.get("ground_truth_text", "")), str(row.get("response") or "")
    ids = row.get("response_ids")
    return _row(row, where, gold, right, text, (), len(ids) if isinstance(ids, list) else None)


def _exported_temperature(path: Path) -> float | None:
    try:
        with store_path(path).open(encoding="ascii") as lines:
            return float(json.loads(lines.readline())["made_from"]["sampling"]["temperature"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # an export that was moved without its store


def _evaluated(row: Any, where: str) -> tuple[str, Row]:
    if not isinstance(row, dict):
        raise DataError(f"{where} is a {type(row).__name__}", wanted=_WANTED)
    sampled = row.get("sampled_right", [])
    if not isinstance(sampled, list) or any(x not in (0, 1) for x in sampled):
        raise DataError(f"{where}: sampled_right is {sampled!r}", wanted="a list of true and false")
    gold, right = str(row.get("answer", "")), _cell(row, "greedy_right", where, *_FLAG)
    tokens, text = row.get("greedy_tokens"), str(row.get("greedy", ""))
    tokens = tokens if isinstance(tokens, int) else None
    return _row(row, where, gold, right, text, tuple(map(bool, sampled)), tokens)


def _row(row: Mapping[str, Any], where: str, *answer: Any) -> tuple[str, Row]:
    """(id, row) from the columns that both kinds of result have; answer: gold, right, …"""
    question = _cell(row, "question", where, str, "a text")
    level = _cell(row, "level", where, int | None, "a whole number, or null")
    return _cell(row, "id", where, str, "a text"), Row(question, level, *answer)


def _cell(row: Mapping[str, Any], name: str, where: str, kind: Any, wanted: str) -> Any:
    if not isinstance(row.get(name), kind):
        raise DataError(f"{where}: {name} is {row.get(name)!r}", wanted=wanted)
    return row.get(name)


def pair(a: Result, b: Result, *, shared: bool = False) -> Pair:
    """The problems of both; shared: skip problems that only one side has.

    Raises:
        DataError: the problems are not the same, or every one has an error.
    """
    both = [key for key in a.rows if key in b.rows]
    if len(both) < max(len(a.rows), len(b.rows)) and not (shared and both):
        counts = f"{a.name} has {len(a.rows)} problems, {b.name} {len(b.rows)}"
        fix = "make both with the same data, split and number (evaluate.problems, --limit)"
        if both:
            fix += f", or add --shared to compare the {len(both)}"
        raise DataError(f"{counts}: {len(both)} are in both", wanted="the same problems", fix=fix)
    other = [key for key in both if a.rows[key].question != b.rows[key].question]
    if other:
        got = f"{len(other)} of {len(both)} problems ask something else in {b.name}"
        fix = "make both with the same data and seed"
        raise DataError(f"{got} than in {a.name}, first {other[0]}", fix=fix)
    answered = [k for k in both if a.rows[k].right is not None and b.rows[k].right is not None]
    if not answered:
        raise DataError(f"no problem was answered in both {a.name} and {b.name}")
    return Pair(a, b, answered, len(both) - len(answered))
