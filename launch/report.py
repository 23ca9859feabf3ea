"""Writes a run's HTML report again: python -m launch.report --workdir=runs/tiny

    python -m launch.report --workdir=runs/tiny --problems=20

The page is made from the records in the work directory, also while a run writes there; no model is
loaded. --problems=N shows N problems with their tokens: the models first score the missing ones, so
no other job may run in the directory.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.files import check_local
from distill_jax.report import run_data, run_report
from launch.arguments import OneLine, tool_parser
from launch.main import start_compilation_cache


def run(workdir: Path, problems: int | None) -> Path:
    """Writes workdir/report.html and returns its path.

    problems: shown with tokens, which are scored where they are missing; None loads no model.

    Raises:
        ConfigError: settings other than those of the run.
        DataError: no run there, or damaged records.
        CheckpointError: a model, an adapter or a JSON file is missing, damaged or another.
        BusyError: another process writes there.
        Interrupted: asked to stop.
    """
    run_data.read(workdir)  # before a directory or a model is made for nothing
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise DataError(f"cannot write in {workdir}", fix="copy it, and name the copy by --workdir")
    if problems is None:
        return run_report.write_html(workdir)
    # Imported late: without tokens to score no model is needed.
    import distill_jax.stages.runner  # noqa: F401 - registers the kinds
    from distill_jax.evaluation.held_out import evaluate_stage
    from distill_jax.run import lock
    from distill_jax.run.run import Run
    from distill_jax.run.workdir import config_here
    from distill_jax.stages import token_scores

    start_compilation_cache(None)
    with lock.held(workdir), Run(config_here(workdir), workdir) as opened:
        return token_scores.write_report(opened, evaluate_stage(opened), problems)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, writes the page, prints where it is."""
    parser = tool_parser("report", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="work directory of the run")
    parser.add_argument("--problems", type=int, help="number of problems shown with their tokens")
    names = parser.parse_args(argv)
    logging.set_verbosity(logging.WARNING)
    with OneLine() as guard:
        guard.directory = names.workdir
        if names.problems is not None and names.problems < 0:
            raise ConfigError(f"--problems={names.problems}", wanted="0 or more")
        check_local(names.workdir, "--workdir")
        print(run(names.workdir, names.problems))


if __name__ == "__main__":
    main()
