"""Next-token distributions of RL student, SFT student and teacher on the same prefixes, in pairs.

    python -m launch.compare_logits --workdir=runs/tiny

Needs a work directory in which stage evaluate is complete; its settings are those of that run. The
prefixes are the greedy answers of --answers (student_after, student_before or teacher), token for
token as they were drawn. Writes WORKDIR/compare_logits/ANSWERS.json and prints a table.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_jax.stages.pipeline import check_workdir
from rich.console import Console
from rich.table import Table

from distill_jax.core import settings
from distill_jax.core.errors import DataError, DistillError
from distill_jax.core.files import check_local, write_json
from distill_jax.evaluation.report_measures import DISTRIBUTION, label, number_cell
from distill_jax.run.config import RunConfig
from distill_jax.stages import pairs
from distill_jax.training.manifest import RUN_FILE, read_manifest
from launch import main as main_job
from launch.arguments import fail

# P and Q of a pair in place of teacher and student.
TITLES = {**DISTRIBUTION, "forward_kl": "KL(P‖Q)", "reverse_kl": "KL(Q‖P)"}


def config_of(workdir: Path) -> RunConfig:
    """The settings that stage evaluate was last run with.

    Raises:
        DataError: it was not.
        ConfigError: settings that this version does not know.
    """
    found = read_manifest(workdir / "evaluate")
    if "config" not in found:
        raise DataError(
            f"no {RUN_FILE} in {workdir / 'evaluate'}",
            wanted="a work directory that stage evaluate was run in",
            fix="give it by --workdir",
        )
    return settings.build(RunConfig, found["config"])


def table(result: Mapping[str, Any]) -> Table:
    """A row a pair; means over tokens, 95% intervals over answers."""
    title = f"on {result['problems']} greedy answers of {label(result['answers_of'])}"
    out = Table(title=title, caption="nats; means over tokens [95% intervals over answers]")
    for name in ("P", "Q"):
        out.add_column(name)
    for name in TITLES.values():
        out.add_column(name, justify="right")
    for pair in result["pairs"]:
        cells = [number_cell(pair[name]).replace(" [", "\n\\[") for name in TITLES]
        out.add_row(label(pair["p"]), label(pair["q"]), *cells)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, compares, prints."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.compare_logits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=Path, required=True, help="of a run")
    parser.add_argument(
        "--answers", choices=pairs.MODELS, default="student_after", help="whose the prefixes are"
    )
    flags = parser.parse_args(argv)
    main_job.start_compilation_cache(None)
    try:
        check_local(flags.workdir, "--workdir")
        context = Context(config_of(flags.workdir), flags.workdir)
        check_workdir(context.workdir)  # told before the models are loaded
        result = pairs.compare_all(context, flags.answers, say=context.say)
    except DistillError as error:
        fail(error)
    path = context.workdir / "compare_logits" / f"{flags.answers}.json"
    write_json(path, result)
    Console().print(table(result))
    context.say(f"written: {path}")


if __name__ == "__main__":
    main()
