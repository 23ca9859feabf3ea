"""The views of runs that tests report on."""

from distill_jax.report.view import RunView, StageView

RUN = RunView(
    (
        StageView("pretrain", "pretrain", "pretrain", makes="models"),
        StageView("sft", "sft", "sft", "base", "student"),
        StageView("rl", "rl", "rl", "sft", "student"),
        StageView("evaluate", "evaluate", "evaluate", makes="results"),
    )
)
# Stages of one kind twice, a side branch, and a directory that is not the stage's name.
LONG = RunView(
    (
        *RUN.stages[:3],
        StageView("distill", "distill", "distill", "base", "student"),
        StageView("rl_short", "rl", "rl_short", "rl", "student"),
        StageView("scores", "evaluate", "results", makes="results"),
    )
)
