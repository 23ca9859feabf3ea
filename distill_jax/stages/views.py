"""The plan as the report sees it."""

from distill_jax.report.view import RunView, StageView
from distill_jax.run.run import SETTINGS_FILE, Run
from distill_jax.stages.kinds import kind_of


def of_run(run: Run) -> RunView:
    """The stages that this start runs or that were begun here, in order."""
    names = [
        name
        for name in run.config.order
        if name in run.config.stages or (run.workdir / name / SETTINGS_FILE).is_file()
    ]
    return RunView(tuple(_stage(run, name) for name in names))


def _stage(run: Run, name: str) -> StageView:
    stage = run.stage(name)
    return StageView(
        name=name,
        kind=stage.kind,
        directory=name,
        start=run.start_of(name) if stage.settings.makes == "student" else "",
        makes=stage.settings.makes,
        panels=kind_of(stage).panels,
    )
