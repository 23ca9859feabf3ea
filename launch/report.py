"""Writes a run's report.html again: python -m launch.report --workdir=runs/tiny

    python -m launch.report --workdir=runs/tiny --config=configs/rl.py --problems=20

The page is made from the records of the work directory, complete or not; no model is loaded. With
--config, which must be the run's own with its overrides, the teacher first scores the tokens of the
chosen problems, unless it already did for these problems and models.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from distill_jax.core import settings
from distill_jax.core.errors import ConfigError, DataError, DistillError
from distill_jax.report import run_data, run_report
from distill_jax.stages.settings import RunConfig
from distill_jax.stages.stop import Interrupted
from launch import arguments
from launch.main import start_compilation_cache

EXAMPLE = "configs/rl.py"


def run(workdir: Path, config: RunConfig | None, problems: int | None) -> Path:
    """Writes workdir/report.html and returns its path.

    Args:
        workdir: of the run.
        config: the run's, to score tokens where they are missing; None loads no model.
        problems: shown with tokens; None takes config.report.problems.

    Raises:
        ConfigError: another config than the run's.
        DataError: no run in the directory, or damaged records.
        CheckpointError: a model, an adapter or a JSON file is missing, damaged or of another run.
        Interrupted: asked to stop.
    """
    run_data.read(workdir)  # fails before a directory or a model is made
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise DataError(f"cannot write in {workdir}", fix="copy it, and name the copy by --workdir")
    if config is None:
        return run_report.write_html(workdir)
    # Imported late: without a config no model is needed.
    from distill_jax.stages import pipeline, token_scores
    from distill_jax.stages.context import Context

    context = Context(dataclasses.replace(config, stages=("evaluate",)), workdir)
    with context.stop:
        try:
            pipeline.check(context)
            return token_scores.write_report(context, problems)
        except Interrupted as interrupted:
            interrupted.exit_code = context.stop.exit_code
            raise


def _config(argv: Sequence[str]) -> RunConfig:
    """The settings of --config and its overrides.

    Raises:
        ConfigError, absl.flags.Error: a wrong setting, or another argument.
    """
    arguments.check(argv, RunConfig, EXAMPLE)
    words = ["report", *argv]
    parsed = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=parsed, sys_argv=words)
    left = parsed(words)
    if len(left) > 1:
        raise ConfigError(f"stray argument {left[1]!r}", wanted="flags alone, e.g. --workdir=DIR")
    return settings.build(RunConfig, parsed.config)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, writes the page, prints where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", type=Path, required=True, help="of the run")
    parser.add_argument("--problems", type=int, help="shown with tokens; default report.problems")
    parser.add_argument("--config", help="the run's, file[:preset]; --config.a.b=value overrides")
    names, rest = parser.parse_known_args(argv)
    if names.config is not None:
        rest = [f"--config={names.config}", *rest]
    logging.set_verbosity(logging.WARNING)
    try:
        if names.problems is not None and (names.config is None or names.problems < 0):
            raise ConfigError(
                f"--problems={names.problems}",
                wanted="0 or more, with --config: the models answer those problems",
                fix=f"add --config={EXAMPLE}",
            )
        config = _config(rest) if rest else None
        if config is not None:
            start_compilation_cache(None)
        path = run(names.workdir, config, names.problems)
    except (DistillError, flags.Error) as error:
        arguments.fail(error)
    print(path)


if __name__ == "__main__":
    main()
