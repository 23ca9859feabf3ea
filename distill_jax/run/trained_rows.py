"""Questions of the files of rows that stages of a run learn on: a benchmark must not hold them."""

from collections.abc import Mapping
from pathlib import Path

from distill_jax.core.settings import references
from distill_jax.data import pair_rows, step_rows
from distill_jax.data.problem import content_hash
from distill_jax.data.rows import read_rows
from distill_jax.run.config import RunConfig

LEARNS = ("student", "reward_model")
# A row with these columns is a pair, or a trace; others are labelled steps.
_PAIRS = ({"chosen", "rejected"}, {"completion", "right"})


def of_run(config: RunConfig, workdir: Path, rows_file: str) -> Mapping[str, frozenset[str]]:
    """{file: hashes of its questions} of the files that stages to run, or begun, learn on.

    Rows that a stage of the run makes come from its train split. A file that is not there is left
    to the stage that reads it.

    Raises:
        DataError: a file holds no rows of a known form.
    """
    begun = [name for name in config.plan if (workdir / name).is_dir()]
    todo = [name for name in {*config.stages, *begun} if config.plan[name].makes in LEARNS]
    found: dict[str, frozenset[str]] = {}
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        seen.add(name)
        for _, ref, value in references(config.plan[name]):
            if ref != "rows" or not value:
                continue
            if value in config.plan:
                todo += [value] if value not in seen else []
                continue
            place = Path(value)
            place = place / rows_file if (place / rows_file).is_file() else place
            if place.is_file():
                found[value] = questions(place)
    return dict(sorted(found.items()))


def questions(path: Path) -> frozenset[str]:
    """Hashes of the questions of a file of pairs, traces or labelled steps."""
    _, first = next(iter(read_rows(path)))
    if any(columns <= first.keys() for columns in _PAIRS):
        return frozenset(content_hash(row.question) for row in pair_rows.read(path))
    rows = step_rows.read(path, neutral="positive", derive=lambda *_: [])
    return frozenset(content_hash(row.question) for row in rows)
