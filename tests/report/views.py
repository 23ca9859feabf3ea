"""The views of runs that tests report on."""

from distill_jax.report.panels import DISTILLATION, REINFORCEMENT, SUPERVISED
from distill_jax.report.view import RunView, StageView

RUN = RunView(
    (
        StageView("pretrain", "pretrain", "pretrain", makes="models", panels=SUPERVISED),
        StageView("sft", "sft", "sft", "base", "student", SUPERVISED),
        StageView("rl", "rl", "rl", "sft", "student", REINFORCEMENT),
        StageView("evaluate", "evaluate", "evaluate", makes="results"),
    )
)
# Stages of one kind twice, a side branch, and a directory that is not the stage's name.
LONG = RunView(
    (
        *RUN.stages[:3],
        StageView("distill", "distill", "distill", "base", "student", DISTILLATION),
        StageView("rl_short", "rl", "rl_short", "rl", "student", REINFORCEMENT),
        StageView("scores", "evaluate", "results", makes="results"),
    )
)
