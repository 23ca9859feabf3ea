"""Problems for tests: as many of each level (and subject) as asked for."""

from distill_jax.data.problem import Problem


def problem(name: str, level: int | None, subject: str | None = None, length: int = 1) -> Problem:
    return Problem(name, f"{name}?", "x" * length, "1", level, subject)


def levels(*counts: int, without: int = 0) -> list[Problem]:
    """counts[i] problems of level i + 1, mixed as a data set mixes them, then some without one."""
    rows = [
        (k / count, problem(f"{level}.{k}", level, length=1 + k))
        for level, count in enumerate(counts, 1)
        for k in range(count)
    ]
    mixed = [row for _, row in sorted(rows, key=lambda row: (row[0], row[1].id))]
    return mixed + [problem(f"none.{k}", None) for k in range(without)]
