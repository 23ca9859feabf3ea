"""What a run has spent by each step: floating-point operations by formula, and seconds.

Operations are those of `forecast.flops` on real tokens, from the counts in metrics.jsonl; a row
counts as one of the mean length. Not counted: evaluation, padding, completions that are decoded on
after their end, what `forecast.flops` leaves out, and the models' pretraining.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.errors import CheckpointError, ConfigError, DistillError
from distill_jax.core.files import CONFIG_FILE, read_json
from distill_jax.forecast import flops
from distill_jax.models import hf_io
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run.config import RunConfig, build
from distill_jax.stages.distill_rows import SAMPLES_FILE
from distill_jax.stages.distill_settings import DistillSettings
from distill_jax.stages.rl_settings import RLSettings
from distill_jax.stages.settings import SFTSettings

SAMPLING, UPDATE, TEACHER, OTHER = "sampling", "update", "teacher", "other"
# The student draws; its updates; the teacher scores, or writes answers; further forward passes of
# the student, for old log-probabilities and the reference.
PARTS = (SAMPLING, UPDATE, TEACHER, OTHER)
Rows = Sequence[Mapping[str, Any]]
Settings = SFTSettings | DistillSettings | RLSettings


class Unknown(DistillError):
    """What a run has spent does not follow from its files."""


class Counts(NamedTuple):
    """Cumulative counts of a stage at step 0 and each logged step, float64 [K].

    Attributes:
        step_K: updates done.
        rows_K, tokens_K, response_K: trained on: rows, their tokens, those of responses.
        prefilled_K, sampled_K: of drawing: tokens of prompts, each once for all its samples; tokens
            drawn; 0 where nothing is drawn.
        estimated: whether the responses follow from the mean length at the logged steps alone.
    """

    step_K: np.ndarray
    rows_K: np.ndarray
    tokens_K: np.ndarray
    response_K: np.ndarray
    prefilled_K: np.ndarray
    sampled_K: np.ndarray
    estimated: bool


class Spent(NamedTuple):
    """What the stages of a run have spent, the last of them by step.

    Attributes:
        parts: operations of all stages by PARTS, and "all"; None where unknown.
        step_K, total_K: steps of the last stage, and operations by then, those before included.
        estimated: see Counts.
        missing: why it is unknown; "".
    """

    parts: dict[str, float] | None
    step_K: np.ndarray
    total_K: np.ndarray
    estimated: bool = False
    missing: str = ""

    def at(self, step: int) -> float | None:
        """Operations by a step, between two logged steps on a straight line."""
        return None if self.parts is None else float(np.interp(step, self.step_K, self.total_K))


def operations(workdir: Path, stages: Mapping[str, Rows]) -> Spent:
    """What a run's stages have spent.

    Args:
        workdir: of the run.
        stages: those that led to its student, in order, with the rows of their metrics.
    """
    none = np.zeros(1)
    parts, total_K, step_K, estimated = dict.fromkeys(PARTS, 0.0), none, none, False
    try:
        config = _config(workdir) if stages else None
        for name, rows in stages.items():
            assert config is not None
            settings, figures = _counted(config, name), _figures(workdir / name)
            found = counts(settings, rows, rounds=config.sampling.rounds)
            student, teacher = (
                _geometry(workdir, config, role) for role in ("student", _teacher(settings))
            )
            by_part = spent(settings, found, student, teacher, figures)
            step_K, total_K = found.step_K, sum(parts.values()) + sum(by_part.values(), none)
            parts = {part: parts[part] + float(by_part[part][-1]) for part in PARTS}
            estimated |= found.estimated
    except (Unknown, CheckpointError) as error:
        return Spent(None, none, none, missing=str(error))
    return Spent({**parts, "all": sum(parts.values())}, step_K, total_K, estimated)


def _config(workdir: Path) -> RunConfig:
    values = read_json(workdir / CONFIG_FILE)
    try:
        return build(values or {})
    except ConfigError as error:
        raise Unknown(f"{CONFIG_FILE} is not one of this version: {error}") from error


def _figures(directory: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (read_json(directory / "done.json") or {}).get("figures", {})
    return found


def _counted(config: RunConfig, name: str) -> Settings:
    """The settings of a stage whose operations follow from its counts.

    Raises:
        Unknown: what some model reads in it is not recorded.
    """
    s = config.plan.get(name)
    if not isinstance(s, Settings):
        kind = "an unknown kind" if s is None else f"kind {s.kind}"
        raise Unknown(f"stage {name} is of {kind}, which is not counted")
    if isinstance(s, RLSettings) and s.process.reward_model:
        raise Unknown(f"what the reward model of stage {name} reads is not recorded")
    if not isinstance(s, SFTSettings) and _reads_teacher(s):
        odd = s.teacher.prompt or s.teacher.models or s.teacher.is_remote or s.cache.megabytes
        if odd:
            raise Unknown(
                f"what the teacher of stage {name} reads is not recorded: it has prompts of its "
                "own, a cache or an endpoint, or there are several"
            )
    return s


def _reads_teacher(s: RLSettings | DistillSettings) -> bool:
    """Whether a teacher scores the tokens of each batch."""
    weight = s.rewards.intrinsic_weight if isinstance(s, RLSettings) else s.loss.kd_weight
    return weight > 0


def _teacher(s: Settings) -> str:
    """The role whose geometry the stage's teacher has: the student's where it has none, too."""
    if isinstance(s, SFTSettings) or not s.teacher.is_model:
        return "student"
    writes = isinstance(s, DistillSettings) and s.data == "teacher_samples"
    return "teacher" if writes or _reads_teacher(s) else "student"


def _geometry(workdir: Path, config: RunConfig, role: str) -> QwenConfig:
    path = (config.student if role == "student" else config.teacher).path
    made = workdir / (config.models_stage or "") / role / "model"
    return hf_io.load_config(hf_io.model_dir(path) if path else made)


def counts(s: Settings, rows: Rows, *, rounds: int = 1) -> Counts:
    """The counts of a stage.

    Rows of an earlier version have `num_tokens` alone. Where each step trains on what it has drawn,
    the responses since the row before are then taken to have the mean length of this row's step.

    Args:
        s: settings of the stage.
        rows: of its metrics.
        rounds: turns of a completion.

    Raises:
        Unknown: the rows do not say.
    """
    draws = isinstance(s, RLSettings) or (isinstance(s, DistillSettings) and s.draws)
    names = ["num_tokens", "num_response_tokens"]
    names += ["num_prefilled_tokens", "num_sampled_tokens"] if draws else []
    logged = [row for row in rows if "num_tokens" in row]
    step_K = np.array([0, *(row["step"] for row in logged)], float)
    each, samples = _rows_of_step(s)
    known = [n for n in names if logged and all(n in row for row in logged)]
    columns = {n: np.array([0, *(row[n] for row in logged)], float) for n in known}
    estimated = known != names
    if estimated:
        length = "completions/mean_length"
        alike = bool(samples) and rounds == 1 and all(row.get(length) is not None for row in logged)
        if not logged or not alike:
            lacking = ", ".join(n for n in names if n not in known)
            raise Unknown(f"metrics.jsonl of stage kind {s.kind} has no {lacking}")
        lengths = np.array([row[length] for row in logged])
        drawn_K = np.r_[0, np.cumsum(np.diff(step_K) * each * lengths)]
        prompts_K = (columns["num_tokens"] - drawn_K) / samples
        made = (columns["num_tokens"], drawn_K, prompts_K, drawn_K)
        columns = dict(zip(names, made, strict=True))
    nothing_K = np.zeros(len(step_K))
    return Counts(
        step_K,
        each * step_K,
        columns["num_tokens"],
        columns["num_response_tokens"],
        columns.get("num_prefilled_tokens", nothing_K),
        columns.get("num_sampled_tokens", nothing_K),
        estimated,
    )


def _rows_of_step(s: Settings) -> tuple[int, int]:
    """(rows that a step trains on, samples of each prompt among them); samples 0 where they are not
    all that the step has drawn."""
    if isinstance(s, RLSettings):
        more = s.oversample > 1 or s.dynamic_sampling or s.replay.groups
        return s.prompts_per_step * s.samples_per_prompt, 0 if more else s.samples_per_prompt
    own = isinstance(s, DistillSettings) and s.data == "student_samples"
    return s.batch_size, s.samples if isinstance(s, DistillSettings) and own else 0


def spent(
    s: Settings,
    counts: Counts,
    student: QwenConfig,
    teacher: QwenConfig,
    figures: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Operations of a stage by PARTS, cumulative, float64 [K].

    The head counts on the tokens of responses alone. With rewards.credit=exact, and with
    loss.future on own samples, the loss applies the student's head twice. A prompt counts once for
    each of its samples, though an update of rl may compute it once for all.

    Args:
        s: settings of the stage.
        counts: of the stage.
        student, teacher: geometries.
        figures: of done.json; with the tokens of answers that the teacher has written.

    Raises:
        Unknown: the teacher has written answers and their tokens are not recorded.
    """
    tokens_K, response_K = counts.tokens_K, counts.response_K
    rows_K = np.maximum(counts.rows_K, 1.0)
    prompt_K, length_K = (tokens_K - response_K) / rows_K, response_K / rows_K
    trained = flops.of_rows(tokens_K, response_K, rows_K)
    drawn = flops.of_samples(counts.prefilled_K, counts.sampled_K, prompt_K, length_K)
    out = dict.fromkeys(PARTS, np.zeros(len(tokens_K)))
    out[SAMPLING] = flops.forward(student, drawn)
    if isinstance(s, SFTSettings):
        return {**out, UPDATE: flops.update(student, trained, "lora")}
    scores_K = flops.forward(teacher, trained) if _reads_teacher(s) else out[TEACHER]
    if isinstance(s, DistillSettings):
        heads = 2 if s.loss.future and s.draws else 1
        out[UPDATE] = flops.update(student, trained, s.trainable, heads=heads)
        out[TEACHER] = scores_K
        if s.data == "teacher_samples":
            out[TEACHER] = scores_K + _written(teacher, figures, prompt_K[-1], length_K[-1])
        return out
    # Each pass over a rollout updates on all its rows; credit=exact runs the teacher in the loss.
    exact, passes = s.rewards.exact, s.num_iterations
    out[UPDATE] = passes * flops.update(student, trained, s.trainable, heads=2 if exact else 1)
    out[TEACHER] = (passes if exact else 1) * scores_K
    forwards = int(s.needs_old) + int(s.reference_weight > 0)
    out[OTHER] = forwards * flops.forward(student, trained)
    return out


def _written(
    teacher: QwenConfig, figures: Mapping[str, Any], prompt: float, response: float
) -> float:
    """Operations of the answers that the teacher writes before the first step."""
    names = ("teacher_prefilled_tokens", "teacher_sampled_tokens")
    if not all(name in figures for name in names):
        raise Unknown(f"done.json of stage kind distill has no {' or '.join(names)}")
    prefilled, drawn = (float(figures[name]) for name in names)
    return float(flops.forward(teacher, flops.of_samples(prefilled, drawn, prompt, response)))


def seconds(rows: Rows) -> tuple[np.ndarray, np.ndarray] | None:
    """(steps, seconds of training by then), float64 [K], step 0 included; None without a time.

    The sum of steps, each at the mean of its logged interval, which leaves out evaluation, saving
    and steps that compiled. The first interval, whose steps trace and load their programs, and one
    all of whose steps compiled take the mean of the next one that has a time, the last ones that of
    the one before.
    """
    logged = [row for row in rows if "num_tokens" in row]
    step_K = np.array([0, *(row["step"] for row in logged)], float)
    time_K = np.array([row.get("step_time", np.nan) for row in logged], float)
    if len(time_K) > 1:
        time_K[0] = np.nan
    known = np.flatnonzero(~np.isnan(time_K))
    if not len(known):
        return None
    following = np.searchsorted(known, np.arange(len(time_K))).clip(max=len(known) - 1)
    return step_K, np.r_[0.0, np.cumsum(np.diff(step_K) * time_K[known[following]])]


def training_seconds(
    workdir: Path, stages: Mapping[str, Rows]
) -> tuple[np.ndarray, np.ndarray] | None:
    """`seconds` of the last stage with those of the stages before; arguments: `operations`.

    None where a stage has none, or its teacher has written answers: that time is not recorded.
    """
    step_K, total_K = np.zeros(1), np.zeros(1)
    for name, rows in stages.items():
        found = seconds(rows)
        if found is None or (workdir / name / SAMPLES_FILE).exists():
            return None
        step_K, total_K = found[0], total_K[-1] + found[1]
    return step_K, total_K
