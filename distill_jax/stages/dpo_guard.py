"""What keeps preference training from harm: drift of the chosen completions, accuracy lost.

A loss on pairs can rise while both completions become less likely, and shorter answers can be worse
ones: neither is seen in the loss.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core import sharding
from distill_jax.evaluation import held_out, intervals, paired
from distill_jax.inference.generate import Answers
from distill_jax.rollout.sampler import Sampler
from distill_jax.run.models import Loaded
from distill_jax.run.run import Run
from distill_jax.stages.dpo_rows import PairRows
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.loop import StepFn
from distill_jax.training.records import METRICS_FILE, read_rows
from distill_jax.training.state import TrainState

DRIFT = "logps/chosen_drift"


def with_drift(step: StepFn, rows: PairRows, size: int, most: float) -> StepFn:
    """The step with metric logps/chosen_drift: Σ (log π − log π_ref) of the chosen / their tokens.

    Both are of the policy before the step's update, on the same batch. Training ends with the step
    whose drift is below −most; 0: with none.
    """

    def drifting(state: TrainState, number: int) -> Any:
        state, metrics, completions = step(state, number)
        drift = metrics["logps/chosen_per_token"] - rows.reference_per_token(number, size)
        metrics = {**metrics, DRIFT: drift}
        if most:
            metrics["ended"] = float(sharding.fetch(drift)) < -most
        return state, metrics, completions

    return drifting


def last_drift(directory: Path, most: float) -> dict[str, Any]:
    """The drift of the last step, and whether it ended training."""
    rows = read_rows(directory / METRICS_FILE)
    drift = rows[-1].get(DRIFT) if rows else None
    ended = drift is not None and bool(most) and drift < -most
    return {"chosen_drift": drift, "ended_by_drift": ended}


class Start:
    """The student before training and its answers to validation problems.

    Args:
        run, sampler, student, s: of the stage.
    """

    def __init__(self, run: Run, sampler: Sampler, student: Loaded, s: DPOSettings):
        self.run, self.sampler, self.s = run, sampler, s
        # On the host: training takes the buffers of the state away.
        self.lora = jax.device_get(student.params["lora"])
        self.answers, self.right_B = self._answers(student.params)

    def guarded(self, state: TrainState, params: Any) -> tuple[TrainState, dict[str, Any]]:
        """(the state to export, figures): the start's adapter where accuracy fell too far.

        params: of the trained student.
        """
        after, right_B = self._answers(params)
        assert self.s.guard_margin is not None
        found = compared(self.answers, self.right_B, after, right_B, self.s.guard_margin)
        regressed = found["regressed"]
        verb = "regressed: the student is the one that it started from" if regressed else "kept"
        was, now = (found["accuracy"][name]["mean"] for name in ("before", "after"))
        self.run.say(
            f"accuracy on {found['problems']} validation problems {100 * was:.1f} → "
            f"{100 * now:.1f}: {verb}"
        )
        if regressed:
            lora = self.run.models.place_lora(self.lora)
            state = dataclasses.replace(state, trainable={"lora": lora})
        return state, {"regressed": regressed, "guard": found}

    def _answers(self, params: Any) -> tuple[Answers, np.ndarray]:
        weights = self.sampler.weights(params, self.run.config.sampling)
        drawn, right_B = held_out.validation_answers(self.run, self.sampler, weights, self.s)
        return drawn, sharding.of_first_process(right_B)


def compared(
    before: Answers,
    right_before_B: np.ndarray,
    after: Answers,
    right_after_B: np.ndarray,
    margin: float,
) -> dict[str, Any]:
    """JSON-able: what two students answered to the same problems.

    tokens: mean on problems that both have right; None where there is none. regressed: whether
    accuracy fell by more than `margin` points.
    """
    count = len(right_before_B)
    both_B = right_before_B & right_after_B
    answers, rights = {"before": before, "after": after}, (right_before_B, right_after_B)
    difference = paired.compare(right_before_B.tolist(), right_after_B.tolist()).difference
    # Whole problems are compared: 100 · (0.3 − 0.2) is not 10.
    lost = int(right_before_B.sum()) - int(right_after_B.sum())
    return {
        "problems": count,
        "margin": margin,
        "regressed": lost * 100 > margin * count,
        "accuracy": {
            name: intervals.wilson(int(right_B.sum()), count)._asdict()
            for name, right_B in zip(answers, rights, strict=True)
        },
        "difference": difference._asdict(),
        "right_in_both": int(both_B.sum()),
        "tokens": {
            name: float(np.mean(one.length_B[both_B])) if both_B.any() else None
            for name, one in answers.items()
        },
        "terminated": {name: float(np.mean(one.ended_B)) for name, one in answers.items()},
    }
