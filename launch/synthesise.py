"""Buys, draws or reads worked solutions of the training problems, and keeps the verified ones.

    python -m launch.synthesise --workdir=runs/tiny
    python -m launch.synthesise --workdir=runs/tiny --base_url=http://localhost:8000/v1 \\
        --model=Qwen/Qwen2.5-72B-Instruct --samples=8
    python -m launch.synthesise --workdir=runs/tiny --answers=answers.jsonl
    python -m launch.synthesise --workdir=runs/tiny --questions=problems.jsonl --model=NAME

Settings are those of the plan's last stage of kind synthesis, else the defaults; flags replace
them. The solutions come from an endpoint with --model, from a file with --answers, else from the
run's teacher or from what the stage names. Files are in --out, default WORKDIR/synthesis:
`teacher_verified.jsonl`, `rows.jsonl`, and the answers. The same command resumes and buys nothing
twice; with more samples or problems it buys the missing ones. The endpoint's key is read only from
the environment (OPENAI_API_KEY).
"""

import json
from pathlib import Path
from typing import Any

from absl import flags
from rich.table import Table

from distill_jax.core.errors import ConfigError
from distill_jax.core.files import check_local
from distill_jax.run.config import RunConfig, build
from distill_jax.stages import synthesis_settings
from distill_jax.stages.synthesis_settings import SynthesisSettings
from launch import arguments
from launch import main as main_job

flags.adopt_module_key_flags(main_job)
_OUT = flags.DEFINE_string("out", None, "Directory of the files; default WORKDIR/synthesis.")
_MODEL = flags.DEFINE_string("model", None, "Model at the endpoint that writes the solutions.")
_BASE_URL = flags.DEFINE_string("base_url", None, "The endpoint's address.")
_ANSWERS = flags.DEFINE_string("answers", None, "File of answers that exist.")
_QUESTIONS = flags.DEFINE_string("questions", None, "File of problems.")
_PROBLEMS = flags.DEFINE_integer("problems", None, "The first problems only.", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("samples", None, "Answers of each problem.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print the figures as one JSON object.")
# Name of the stage that runs here, and of its directory.
_NAME = SynthesisSettings.kind


def _settings(config: RunConfig) -> SynthesisSettings:
    """The settings of the plan's last stage of the kind, else the defaults, changed by flags."""
    plan = [config.plan[name] for name in config.order]
    found = [one for one in plan if isinstance(one, SynthesisSettings)]
    return synthesis_settings.changed(
        found[-1] if found else SynthesisSettings(),
        model=_MODEL.value,
        base_url=_BASE_URL.value,
        answers=_ANSWERS.value,
        questions=_QUESTIONS.value,
        problems=_PROBLEMS.value,
        samples=_SAMPLES.value,
    )


def _table(figures: dict[str, Any]) -> Table:
    table = Table("", "", title=_NAME, show_header=False)
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count}" for key, count in value.items())
        table.add_row(name.replace("_", " "), "unknown" if value is None else f"{value}")
    return table


def _job(guard: arguments.OneLine) -> None:
    main_job.refuse_flags_of_stages()
    config = build(main_job.CONFIG.value)
    workdir = main_job.workdir_of(config)
    out = Path(_OUT.value) if _OUT.value else workdir / _NAME
    check_local(out, "--out")
    guard.directory = out
    how = _settings(config)
    config = main_job.start_reading(config)
    from distill_jax.run import lock
    from distill_jax.run.run import Run, Stage
    from distill_jax.stages import checks, forecasts
    from distill_jax.stages import synthesis as kind

    stage = Stage(_NAME, how)
    if (out / "done.json").is_file():
        fix = "name another --out, or start the stage again with launch.main"
        raise ConfigError(f"{out} holds a complete stage of the run", fix=fix)
    with Run(config, workdir) as run:
        for role in how.roles():
            checks.check_role(run, role, ())
        kind.KIND.check(run, stage)
        pool = kind.KIND.prepare(run, stage)
        forecasts.refuse(run, [stage])
        out.mkdir(parents=True, exist_ok=True)
        with lock.held(out):
            figures = kind.KIND.run(run, stage, out, pool)
        if _JSON.value:
            print(json.dumps(figures, allow_nan=False))
        else:
            run.console.print(_table(figures))
        run.say(f"verified solutions: {out / kind.VERIFIED_FILE}")


if __name__ == "__main__":
    arguments.run_app(_job, "configs/rl.py or configs/rl.py:smoke")
