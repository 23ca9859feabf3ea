"""Looks at the records of a reinforcement run: python -m launch.diagnose WORKDIR

WORKDIR is a work directory or its rl stage. Prints a table: what was looked at, ok, look or bad,
the figure's means over the first and last fifth of the rows with Spearman's rho, and which settings
to try. It can be run while the stage is running. --json FILE writes the same.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill_jax.core.errors import DataError, DistillError
from distill_jax.core.files import check_local
from distill_jax.evaluation import diagnosis
from distill_jax.evaluation.findings import BAD, LOOK, OK, Finding
from distill_jax.training.records import COMPLETIONS_FILE, METRICS_FILE, read_rows
from launch.arguments import fail
from launch.output import write_json

STYLES = {OK: "green", LOOK: "yellow", BAD: "bold red"}


def stage_directory(workdir: Path) -> Path:
    """Where the records are: WORKDIR/rl, or WORKDIR where that is the stage itself.

    Raises:
        DataError: neither has metrics.
    """
    for directory in (workdir / "rl", workdir):
        if (directory / METRICS_FILE).is_file():
            return directory
    raise DataError(
        f"no {METRICS_FILE} in {workdir} or {workdir / 'rl'}",
        wanted="the work directory of a run of stage rl",
    )


def read(workdir: Path) -> tuple[Path, list[Finding]]:
    """The stage's directory and its findings.

    Raises:
        DataError: no records, damaged ones, or those of another stage.
    """
    directory = stage_directory(workdir)
    metrics = read_rows(directory / METRICS_FILE)
    if not any("reward" in row or "accuracy" in row for row in metrics):
        got = f"{directory / METRICS_FILE} has no row with a reward"
        raise DataError(got, wanted="records of stage rl", fix="wait for its first logged step")
    return directory, diagnosis.diagnose(metrics, read_rows(directory / COMPLETIONS_FILE))


def table(directory: Path, findings: Sequence[Finding]) -> Table:
    """The table of the findings, narrow enough for 80 columns."""
    out = Table(title=f"diagnosis of {escape(str(directory))}", show_lines=True)
    out.add_column("what", width=19)
    out.add_column("status", width=8)
    out.add_column("first fifth → last, Spearman's rho (p); what to try", overflow="fold")
    for finding in findings:
        style = STYLES.get(finding.status, "dim")
        lines = [finding.said] if finding.said else []
        if finding.trend is not None:
            lines.append(finding.trend.told())
        lines += [f"[cyan]{name}[/cyan]: {how}" for name, how in finding.suggestions.items()]
        out.add_row(finding.what, f"[{style}]{finding.status}[/{style}]", "\n".join(lines))
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, diagnoses, prints."""
    parser = argparse.ArgumentParser(prog="python -m launch.diagnose", description=__doc__)
    parser.add_argument("workdir", type=Path, help="of a run, or its rl stage")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings here")
    flags = parser.parse_args(argv)
    try:
        check_local(flags.workdir, "workdir")
        directory, findings = read(flags.workdir)
    except DistillError as error:
        fail(error)
    Console().print(table(directory, findings))
    if flags.json:
        content = {"directory": str(directory), "findings": [f.as_dict() for f in findings]}
        try:
            write_json(flags.json, content)
        except DistillError as error:
            fail(error)


if __name__ == "__main__":
    main()
