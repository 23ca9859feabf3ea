"""Stage kind prm: a process reward model on labelled steps."""

from pathlib import Path
from typing import Any

import jax

from distill_jax.core import rng, sharding
from distill_jax.evaluation import step_metrics
from distill_jax.forecast.memory import Job
from distill_jax.inference import process_scorer
from distill_jax.models import lora, process_head, reward_model_io
from distill_jax.models.qwen import QwenModel
from distill_jax.models.reward_model_io import IMPLICIT
from distill_jax.reasoning import steps
from distill_jax.report.panels import Panel
from distill_jax.run.run import REWARD_MODEL, Run, Stage
from distill_jax.stages import checks, distill, loop, prm_implicit, prm_rows, supervised
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.prm_outcomes import OutcomeRows
from distill_jax.stages.prm_rows import LabelledRows
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.training import optimizer
from distill_jax.training import state as states
from distill_jax.training.process_losses import HEAD, step_labels
from distill_jax.training.state import TrainState
from distill_jax.training.step import make_update

_HELD_OUT = "held out"
PANELS = (
    Panel(
        "loss minus the labels' entropy",
        {"loss_minus_floor": "train", "eval/loss_minus_floor": _HELD_OUT},
    ),
    Panel(
        "accuracy of steps, mean over both classes",
        {"balanced_accuracy": "train", "eval/balanced_accuracy": _HELD_OUT},
        share=True,
    ),
    Panel(
        "wrong steps, held out",
        {"eval/auc": "AUC", "eval/recall": "recall", "eval/precision": "precision"},
        share=True,
    ),
    Panel(
        "first wrong step, held out",
        {"eval/f1": "F1", "eval/first_error_accuracy": "exact, wrong solutions"},
        share=True,
    ),
    Panel(
        "head=implicit: solutions, held out",
        {"eval/outcome_auc": "AUC", "eval/outcome_accuracy": "accuracy"},
        share=True,
    ),
    Panel("calibration, held out", {"eval/ece": "ECE", "eval/brier": "Brier"}),
    # Near 1 the model judges the outcome only.
    Panel("lowest score at the last step", {"eval/share_min_at_last": _HELD_OUT}, share=True),
)


def _check(run: Run, stage: Stage[PRMSettings]) -> None:
    checks.check_batch(run, stage)
    checks.check_training(stage)
    checks.check_length(run, stage, stage.settings.max_length)
    # Refuses a step token that the tokenizer does not have.
    steps.step_token_id(run.data.tokenizer, stage.settings.step_format.token)


def _prepare(run: Run, stage: Stage[PRMSettings]) -> LabelledRows | None:
    """The rows; None where a stage of this run has to make them first."""
    kind = OutcomeRows if stage.settings.head == IMPLICIT else LabelledRows
    there = all(run.is_there(source) for source in stage.settings.sources)
    return kind(run, stage) if there else None


def _run(run: Run, stage: Stage[PRMSettings], directory: Path, given: Any | None) -> dict[str, Any]:
    implicit = stage.settings.head == IMPLICIT
    train = prm_implicit.run_stage if implicit else _with_head
    state, rows, final = train(run, stage, directory, given)
    counts = sharding.fetch({"steps": state.step, "skipped_updates": state.skipped})
    return {**{name: int(x) for name, x in counts.items()}, **rows.figures, **final}


def _with_head(
    run: Run, stage: Stage[PRMSettings], directory: Path, given: LabelledRows | None
) -> tuple[TrainState, LabelledRows, dict[str, float]]:
    """(last state, rows, last figures of the held-out rows); the reward model is written."""
    s, rows = stage.settings, given or LabelledRows(run, stage)
    # --- model: the student without its language-model head ---
    student, trainable, frozen = distill.starting_student(run, s)
    model, trainable, frozen = _headless(student, trainable, frozen)
    key = rng.stream_key(run.key(stage), HEAD)
    head = process_head.init(s.head, model.config.hidden_size, key)
    # --- state, update ---
    tx = optimizer.make_with_head(s.optimizer, s.updates(), HEAD, s.head_rate)
    state, shardings = states.create({**trainable, HEAD: head}, tx, run.key(stage), run.mesh)
    loss, totals = step_labels(model)
    update = make_update(loss, totals, tx, run.mesh, shardings, accumulate=s.accumulate)
    size, of = s.batch_size, len(rows.train)
    step = supervised.step_fn(run, rows.batch, update, frozen, size=size, of=of)

    def evaluate(state: TrainState) -> dict[str, float]:
        encoded, labels = prm_rows.figures_for(rows.held_out[: s.eval_problems])
        params = states.join(state.trainable, frozen)
        scores = process_scorer.probabilities(
            model, params, state.trainable[HEAD], encoded, mesh=run.mesh, batch=s.eval_batch
        )
        return {f"eval/{n}": x for n, x in step_metrics.figures(scores, labels).items()}

    # --- loop ---
    state = loop.train(run, stage.name, directory, s, state, step, evaluate=evaluate)
    # --- export ---
    _export(run, stage, directory / REWARD_MODEL, model, state, frozen, rows)
    return state, rows, evaluate(state) if rows.held_out else {}


def _headless(
    model: QwenModel, trainable: dict[str, Any], frozen: dict[str, Any]
) -> tuple[QwenModel, dict[str, Any], dict[str, Any]]:
    """(model, trainable, frozen) without an untied language-model head, which nothing reads."""
    held = trainable if "base" in trainable else frozen
    geometry, base = reward_model_io.trunk(model.config, held["base"])
    model = model.replace(config=geometry)
    if held is trainable:
        return model, {"base": base}, frozen
    return model, trainable, {"base": base}


def _export(
    run: Run,
    stage: Stage[PRMSettings],
    target: Path,
    model: QwenModel,
    state: TrainState,
    frozen: dict[str, Any],
    rows: LabelledRows,
) -> None:
    """Writes the reward model, the adapter merged."""
    s, params = stage.settings, states.join(state.trainable, frozen)
    base = params["base"]
    if s.trainable == "lora":
        scale, where = run.config.lora.scale, run.models.base_shardings(model.config)
        merge = jax.jit(lambda p: lora.merge(p["base"], p["lora"], scale), out_shardings=where)
        base = merge(params)
    about = prm_rows.about(run, stage, rows, labels=s.labels if rows.counted else "given")
    reward_model_io.save(
        target, model.config, base, state.trainable[HEAD], about, tokenizer=run.data.tokenizer
    )


KIND = register(
    Kind(
        PRMSettings,
        _run,
        check=_check,
        prepare=_prepare,
        forecast=Job.step_rewards,
        panels=PANELS,
    )
)
