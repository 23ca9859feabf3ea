"""Answers of a model to the problems of a split, as JSONL, a row a problem.

    python -m launch.export_answers --workdir=runs/tiny --model=student
    python -m launch.export_answers --workdir=runs/tiny --model=teacher

--model is teacher, base, a stage that makes a student, STAGE_step_N (a checkpoint of it), student
(the last such stage), or a directory with a PEFT adapter or a Hugging Face model. Rows are in the
order of the problems; a problem that cannot be answered has a row with `error`. After an
interruption the same command goes on and ends with the same bytes; a file made with other settings
is refused. launch/README.md lists the columns.
"""

from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.table import Table

from distill_jax.core.errors import ConfigError
from distill_jax.core.files import check_local
from distill_jax.report import view as views
from distill_jax.run.config import build
from launch import arguments
from launch import main as main_job

flags.adopt_module_key_flags(main_job)
_MODEL = flags.DEFINE_string(
    "model", "student", "teacher, base, a stage, STAGE_step_N, student (the last), or a directory."
)
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["test", "train", "validation"], "Split of the problems."
)
_OUT = flags.DEFINE_string("out", None, "File; default WORKDIR/export/MODEL_SPLIT.jsonl.")
_LIMIT = flags.DEFINE_integer("limit", None, "The first problems only.", lower_bound=1)
_TOP_K = flags.DEFINE_integer(
    "top_k", 5, "Most probable next tokens at each position; 0: none.", lower_bound=0
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 0.0, "Divides the logits; 0 answers greedily.", lower_bound=0.0
)


def _out(name: str, view: views.RunView, workdir: Path) -> Path:
    if _OUT.value:
        return Path(_OUT.value)
    known = [name for name in view.subjects if name != views.GIVEN]
    if name not in known and view.checkpoint(name) is None:
        fix = "for a directory, name the file with --out=FILE.jsonl"
        wanted = f"one of {', '.join(known)}, or STAGE_step_N"
        raise ConfigError(f"--model={name} without --out", wanted=wanted, fix=fix)
    return workdir / "export" / f"{name}_{_SPLIT.value}.jsonl"


def _table(summary: dict[str, Any]) -> Table:
    table = Table("", "", title=f"answers of {summary['model']}", show_header=False)
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), str(value))
    return table


def _job(guard: arguments.OneLine) -> None:
    main_job.refuse_flags_of_stages()
    config = build(main_job.CONFIG.value)
    workdir = main_job.workdir_of(config)
    view = views.load(workdir)
    name = views.canonical(_MODEL.value, view)
    out = _out(name, view, workdir)
    check_local(out, "--out")
    guard.directory = out.parent
    config = main_job.start_reading(config)
    from distill_jax.evaluation import export, subjects
    from distill_jax.run.run import Run

    request = export.Request(_SPLIT.value, _LIMIT.value, _TOP_K.value, _TEMPERATURE.value)
    with Run(config, workdir) as run:
        summary = export.export(run, subjects.named(run, name), request, out)
    if jax.process_index() == 0:
        run.console.print(_table(summary))
        run.say(f"answers: {out}")


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py or configs/rl.py:smoke")
