"""Diagnoses a run on the student's own samples from its records: python -m launch.diagnose WORKDIR

WORKDIR is a work directory (its last stage of rl, or of distill on the student's samples, that
logged a step) or the directory of one stage.
Prints a table of known troubles: status ok, look or bad, means over the first and last fifth of the
rows with Spearman's rho, and which settings to try. It can be run while the stage is running.
--json FILE writes the same.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill_jax.core.errors import DataError
from distill_jax.core.files import check_local, read_json
from distill_jax.evaluation import diagnosis
from distill_jax.evaluation.findings import BAD, LOOK, OK, Finding
from distill_jax.report import view as views
from distill_jax.training.records import (
    COMPLETIONS_FILE,
    FIRST_ROLLOUT_FILE,
    METRICS_FILE,
    read_rows,
)
from launch.arguments import OneLine, tool_parser, write_json

STYLES = {OK: "green", LOOK: "yellow", BAD: "bold red"}


def read(workdir: Path) -> tuple[Path, list[Finding]]:
    """The directory of the stage and its findings; workdir: of a run or of one of its stages.

    Raises:
        DataError: no records, damaged ones, or none with a reward.
    """
    workdir = workdir.absolute()
    if (workdir / METRICS_FILE).is_file():
        view, directories = views.load(workdir.parent), [workdir]
    else:
        view = views.load(workdir)
        directories = [workdir / stage.directory for stage in reversed(view.students)]
    rows = {d: read_rows(d / METRICS_FILE) for d in directories if (d / METRICS_FILE).is_file()}
    if not rows:
        got = f"no {METRICS_FILE} in {workdir} or its stages"
        raise DataError(
            got, wanted="the work directory of a run of reinforcement learning or distillation"
        )
    directory = next((d for d, found in rows.items() if diagnosis.on_own_samples(found)), None)
    if directory is None:
        got = f"{next(iter(rows)) / METRICS_FILE} has no row with a reward"
        raise DataError(
            got,
            wanted="records of stage rl, or of distill with data=student_samples",
            fix="wait for its first logged step",
        )
    stage, completions = directory.name, read_rows(directory / COMPLETIONS_FILE)
    start, first = view.started_from(stage), read_json(directory / FIRST_ROLLOUT_FILE)
    found = diagnosis.diagnose(rows[directory], completions, stage=stage, start=start, first=first)
    return directory, found


def table(directory: Path, findings: Sequence[Finding]) -> Table:
    """The table of the findings, narrow enough for 80 columns."""
    out = Table(title=f"diagnosis of {escape(str(directory))}", show_lines=True)
    out.add_column("what", width=19)
    out.add_column("status", width=8)
    out.add_column("first fifth → last, Spearman's rho (p); what to try", overflow="fold")
    for finding in findings:
        style = STYLES.get(finding.status, "dim")
        trend = finding.trend.describe() if finding.trend is not None else ""
        lines = [line for line in (finding.said, trend) if line]
        lines += [f"[cyan]{name}[/cyan]: {how}" for name, how in finding.suggestions.items()]
        out.add_row(finding.what, f"[{style}]{finding.status}[/{style}]", "\n".join(lines))
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, diagnoses, prints."""
    parser = tool_parser("diagnose", __doc__)
    parser.add_argument("workdir", type=Path, help="of a run, or one of its stages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings here")
    flags = parser.parse_args(argv)
    with OneLine():
        check_local(flags.workdir, "workdir")
        directory, findings = read(flags.workdir)
        Console().print(table(directory, findings))
        if flags.json:
            content = {"directory": str(directory), "findings": [f.as_dict() for f in findings]}
            write_json(flags.json, content)


if __name__ == "__main__":
    main()
