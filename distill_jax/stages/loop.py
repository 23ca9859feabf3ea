"""The one loop: step, log, evaluate, save, stop. Every training stage runs through it."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core import sharding
from distill_jax.core.errors import NonFiniteError
from distill_jax.run.run import Run
from distill_jax.run.settings import TrainSettings
from distill_jax.run.stop import GO_ON, Interrupted
from distill_jax.training.checkpoint import Checkpointer
from distill_jax.training.compilations import Compilations
from distill_jax.training.progress import Progress
from distill_jax.training.records import Recorder
from distill_jax.training.state import TrainState

# One loop step: (state, step) -> (state, metrics, completions to write down).
StepFn = Callable[[TrainState, int], tuple[TrainState, Mapping[str, Any], list[dict[str, Any]]]]
SaveFn = Callable[[int, TrainState, Mapping[str, Any]], None]
EvalFn = Callable[[TrainState], Mapping[str, float]]


def train(
    run: Run,
    name: str,
    directory: Path,
    settings: TrainSettings,
    state: TrainState,
    step_fn: StepFn,
    *,
    evaluate: EvalFn | None = None,
    on_save: SaveFn | None = None,
) -> TrainState:
    """Runs `step_fn` from the newest checkpoint in `directory` to the last step; the last state.

    Args:
        run: settings of checkpoints and records, console, the request to stop.
        name: of the stage, for the progress bar and the records.
        directory: of the stage; checkpoints go to `checkpoints/`.
        settings: steps, max_tokens, max_skipped and eval_every are read.
        state: fresh state; replaced by the checkpoint's if there is one.
        step_fn: step counts from 0; metrics hold the host integer `step_tokens`, and may hold more
            of the name `step_…`: see `_Totals`; and `ended`, whether training ends with this step.
            A function of its arguments: a resumed run equals an uninterrupted one.
        evaluate: figures of a state, logged under their own names; also called before step 0.
        on_save: called with (step, state, figures) when a checkpoint is made, for other files.

    Raises:
        Interrupted: after saving, when SIGTERM or SIGINT was received.
        NonFiniteError: too many skipped updates in a row.
    """
    total, max_tokens, eval_every = settings.steps, settings.max_tokens, settings.eval_every
    with Checkpointer(directory / "checkpoints", run.config.checkpoint) as checkpoints:
        restored = checkpoints.restore_latest(state)
        skips = _Skips(settings.max_skipped, checkpoints)
        start, totals, ended = 0, _Totals(), False
        if restored is not None:
            state, start, ended = restored.state, restored.step, restored.meta.get("ended", False)
            totals, skips.good = _Totals(restored.meta), restored.meta["good_step"]
            run.say(f"{name}: resuming after step {start} of {total}")
        recorder, compiled = _recorder(run, name, directory, start), Compilations()
        clock = _StepTime(compiled)
        progress = Progress(name, total, start=start, console=run.console)
        with recorder, compiled, progress:
            if start == 0 and eval_every and evaluate is not None:
                recorder.metrics(0, dict(evaluate(state)))
            for step in range(start, total):
                if ended or 0 < max_tokens <= totals.tokens:  # resumed after the last step
                    break
                clock.start()
                state, metrics, completions = step_fn(state, step)
                metrics = dict(metrics)
                totals.add(metrics)
                ended = bool(metrics.pop("ended", False))
                done = step + 1
                last = ended or done == total or 0 < max_tokens <= totals.tokens
                skips.note(state, now=last)
                figures: dict[str, Any] = {}
                if recorder.settings.metrics_due(done) or last:
                    figures = {**sharding.fetch(metrics), **totals.sums}
                clock.stop(figures)
                if eval_every and evaluate is not None and (done % eval_every == 0 or last):
                    figures.update(evaluate(state))
                if figures:
                    recorder.metrics(done, figures)
                if completions and recorder.settings.completions_due(done):
                    recorder.completions(done, completions)
                progress.update(done, _headline(figures))
                asked = run.stop.due(done)
                if last or asked or skips.may_save(done, state):
                    meta = {**totals.sums, "good_step": skips.good_after(done, state)}
                    meta["ended"] = ended  # a resumed run ends here, too
                    checkpoints.save(done, state, meta, {k: float(x) for k, x in figures.items()})
                    if on_save is not None:
                        on_save(done, state, figures)
                if asked and not last:
                    checkpoints.wait()
                    said = f"{name} was asked to stop and is saved at step {done} of {total}"
                    raise Interrupted(f"{said}; {GO_ON}")
        _tell_unscored(run, name, checkpoints)
    return state


def _tell_unscored(run: Run, name: str, checkpoints: Checkpointer) -> None:
    best = checkpoints.settings.keep_best
    if best and not checkpoints.scored:
        run.say(f"{name}: no checkpoint was saved with {best}, so the newest alone are kept")


def _recorder(run: Run, name: str, directory: Path, start: int) -> Recorder:
    return Recorder(
        directory,
        run.config.records,
        resume_step=start,
        name=name,
        config=run.config_dict,
        console=run.console,
    )


class _Totals:
    """Counts of steps summed up since step 0: metrics `step_NAME` become `num_NAME`.

    A step gives the same names each time. A run that goes on from a checkpoint of an earlier
    version does not sum up what that did not: such a sum would not be of all steps.

    Args:
        meta: of the checkpoint that a run goes on from; None: there is none.
    """

    def __init__(self, meta: Mapping[str, Any] | None = None):
        self.sums = {n: int(x) for n, x in (meta or {}).items() if n.startswith("num_")}
        self._fresh = meta is None

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return self.sums.get("num_tokens", 0)

    def add(self, metrics: dict[str, Any]) -> None:
        """Takes the counts of a step out of its metrics."""
        for name in [name for name in metrics if name.startswith("step_")]:
            count, total = int(metrics.pop(name)), f"num_{name.removeprefix('step_')}"
            if self._fresh or total in self.sums:
                self.sums[total] = self.sums.get(total, 0) + count


class _Skips:
    """Ends the run after too many non-finite updates in a row, naming the last good checkpoint.

    The count is read one step late, so that the host can prepare a batch while devices work.
    """

    def __init__(self, most: int, checkpoints: Checkpointer):
        self.most, self.checkpoints = most, checkpoints
        self.good: int | None = None
        self._before: jax.Array | None = None

    def in_row(self, state: TrainState) -> int:
        """Skipped updates up to this state, without a good one between."""
        return int(sharding.fetch(state.skipped_in_row))

    def may_save(self, step: int, state: TrainState) -> bool:
        """Whether this step is one to save by the settings.

        Not after a skipped update: such checkpoints would push out the last good one.
        """
        return step % self.checkpoints.settings.every == 0 and self.in_row(state) == 0

    def good_after(self, step: int, state: TrainState) -> int | None:
        """The last good checkpoint once this step is saved: itself, if its update was taken."""
        self.good = step if self.in_row(state) == 0 else self.good
        return self.good

    def note(self, state: TrainState, *, now: bool) -> None:
        """Looks at the state before this one, and with `now` at this one.

        Raises:
            NonFiniteError: too many.
        """
        # A copy: the next update takes the state's own buffer away.
        newest = jnp.copy(state.skipped_in_row)
        for count in (self._before, newest if now else None):
            if count is not None and int(sharding.fetch(count)) >= self.most:
                self._fail(int(sharding.fetch(newest)))
        self._before = newest

    def _fail(self, count: int) -> None:
        self.checkpoints.wait()
        good = "no checkpoint was written before them"
        if self.good is not None:
            good = f"the last good checkpoint is step {self.good} in {self.checkpoints.directory}"
        raise NonFiniteError(
            f"{max(count, self.most)} updates in a row had a loss or gradient that was not finite",
            wanted=f"fewer than {self.most}",
            fix=f"lower the learning rate in another --workdir; {good}",
        )


class _StepTime:
    """Mean seconds of a step since the last logged figure, without evaluation and saving.

    A mean: a single step's time would include the devices' remaining work for earlier steps. Steps
    that compiled a program are counted by their programs instead.
    """

    def __init__(self, compiled: Compilations) -> None:
        self._compiled, self._begun = compiled, 0.0
        self._clear()

    def _clear(self) -> None:
        self._seconds, self._steps, self._programs, self._compiling = 0.0, 0, 0, 0.0

    def start(self) -> None:
        self._compiled.take()
        self._begun = time.perf_counter()

    def stop(self, figures: dict[str, Any]) -> None:
        """Adds the figures of time to others, where there are any, and begins new ones.

        step_time where a step compiled nothing; perf/compiled_programs and perf/compile_time where
        one did.
        """
        seconds, (programs, compiling) = time.perf_counter() - self._begun, self._compiled.take()
        if programs:
            self._programs, self._compiling = self._programs + programs, self._compiling + compiling
        else:
            self._seconds, self._steps = self._seconds + seconds, self._steps + 1
        if not figures:
            return
        if self._steps:
            figures["step_time"] = self._seconds / self._steps
        if self._programs:
            figures["perf/compiled_programs"] = self._programs
            figures["perf/compile_time"] = self._compiling
        self._clear()


def _headline(figures: Mapping[str, Any]) -> dict[str, Any]:
    # A group method's loss is near 0 whatever happens: with a reward it says nothing.
    first = "reward" if "reward" in figures else "loss"
    names = (first, "rewards/correctness/mean", "eval/accuracy")
    return {name: figures[name] for name in names if name in figures}
