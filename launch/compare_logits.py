"""Next-token distributions of the last student, its start and the teacher, in pairs.

    python -m launch.compare_logits --workdir=runs/tiny

Needs a work directory in which stage evaluate is complete; its settings are those of that run. The
prefixes are the greedy answers of --answers, one of the three, token for token as they were drawn.
Writes WORKDIR/compare_logits/ANSWERS.json and prints a table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import distill_jax.stages.runner  # noqa: F401 - registers the kinds
from distill_jax.core.files import check_local, write_json
from distill_jax.evaluation import distribution
from distill_jax.report import view as views
from distill_jax.report.tables import DISTRIBUTION, number_cell
from distill_jax.report.view import RunView
from distill_jax.run import lock
from distill_jax.run.run import Run
from distill_jax.run.workdir import config_here
from launch import main as main_job
from launch.arguments import OneLine, tool_parser

# P and Q of a pair instead of teacher and student.
TITLES = {**DISTRIBUTION, "forward_kl": "KL(P‖Q)", "reverse_kl": "KL(Q‖P)"}


def table(result: Mapping[str, Any], view: RunView) -> Table:
    """A row for each pair; means over tokens, 95% intervals over answers."""
    title = f"on {result['problems']} greedy answers of {view.label(result['answers_of'])}"
    caption = "nats; means over tokens [95% intervals over answers]"
    out = Table("P", "Q", title=title, caption=caption)
    for name in TITLES.values():
        out.add_column(name, justify="right")
    for pair in result["pairs"]:
        cells = [number_cell(pair[name]).replace(" [", "\n\\[") for name in TITLES]
        out.add_row(view.label(pair["p"]), view.label(pair["q"]), *cells)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, compares, prints."""
    parser = tool_parser("compare_logits", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="work directory of a run")
    whose = "whose answers: teacher, student (the last one) or its start"
    parser.add_argument("--answers", default="student", help=whose)
    flags = parser.parse_args(argv)
    main_job.start_compilation_cache(None)
    with OneLine():
        check_local(flags.workdir, "--workdir")
        config, view = config_here(flags.workdir), views.load(flags.workdir)
        start = views.canonical("student_before", view)
        answers_of = views.canonical(flags.answers, view)
        models = (views.TEACHER, start, view.last)
        with lock.held(flags.workdir), Run(config, flags.workdir) as run:
            result = distribution.compare_all(run, models, answers_of)
            path = run.workdir / "compare_logits" / f"{answers_of}.json"
            write_json(path, result)
    Console().print(table(result, view))
    run.say(f"written: {path}")


if __name__ == "__main__":
    main()
