"""Stage kind evolve: rounds in which a student learns on its own right solutions.

STAGE/round_N holds what round N drew (answers.jsonl), its right solutions (rows.jsonl), its
training (checkpoints/, metrics.jsonl), its samples of held-out problems (held_out.jsonl) and, when
it is complete, record.json. STAGE/rows.jsonl has the right solutions of all rounds, rows of stage
traces with {level, round, score, accepted}.
"""

from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import DataError
from distill_jax.data.chat import Example, Prompts
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.report import panels
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.stages import checks, evolve_rows, evolve_rules, evolve_scores, export_files
from distill_jax.stages.evolve_rounds import Rounds
from distill_jax.stages.evolve_rules import HeldOut
from distill_jax.stages.evolve_settings import EvolveSettings
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.supervised import ExampleRows


class Given(NamedTuple):
    """The problems to solve, held-out problems, given solutions to train on as well."""

    pool: Prompts
    held_out: Prompts
    base: list[Example]


def _check(run: Run, stage: Stage[EvolveSettings]) -> None:
    checks.check_batch(run, stage)
    checks.check_training(stage)
    evolve_scores.check_halves(run, stage)


def _prepare(run: Run, stage: Stage[EvolveSettings]) -> Given:
    s, pool = stage.settings, run.data.problems("train")
    if s.problems > len(pool.problems):
        raise DataError(
            f"{stage.name}.problems={s.problems}",
            wanted=f"at most the {len(pool.problems)} training problems",
        )
    count = s.problems or len(pool.problems)
    allowed = evolve_scores.usable(run, s, pool.problems[:count])
    chosen = [i for i in range(count) if allowed[i]]
    if not chosen:
        raise DataError(
            f"none of {count} problems is of the half that {s.reward_model} may score",
            fix=f"raise {stage.name}.problems, or set {stage.name}.reward_model_other",
        )
    if len(chosen) < count:
        run.say(
            f"{stage.name}: {count - len(chosen)} of {count} problems are skipped, "
            f"{s.reward_model} was trained on their half; {stage.name}.reward_model_other would "
            "score them"
        )
    validation = run.data.problems("validation")
    most = min(s.eval_problems, len(validation.problems))
    base = []
    if s.own_rows < s.batch_size:
        rows = ExampleRows(run, answer_only=0.0, seed=run.seed(stage), name=stage.name)
        base = rows.examples
    return Given(
        Prompts([pool.problems[i] for i in chosen], [pool.prompts[i] for i in chosen], 0),
        Prompts(validation.problems[:most], validation.prompts[:most], 0),
        base,
    )


def _run(run: Run, stage: Stage[EvolveSettings], directory: Path, given: Given) -> dict[str, Any]:
    s, work = stage.settings, Rounds(run, stage, directory, *given)
    records = [work.record(0)]
    held, why = [_held_out(records[0])], ""
    while len(records) <= s.rounds and not why:
        records.append(work.record(len(records)))
        held.append(_held_out(records[-1]))
        why = evolve_rules.why_stop(held, patience=s.patience, margin=s.pass_k_margin)
        run.say(_line(stage.name, records[-1], s.k))
    best = evolve_rules.best_round(held)
    write_rows(
        directory / ROWS_FILE,
        (
            row
            for number in range(1, len(records))
            for row in evolve_rows.raw(work.directory_of(number) / ROWS_FILE)
        ),
    )
    geometry, state = work.trained(best)
    counts = export_files.save_student(run, stage, directory, geometry, state)
    run.say(f"{stage.name}: the student is that of round {best}; {why or 'all rounds were run'}")
    return {
        **counts,
        "k": s.k,
        "threshold": s.threshold if s.reward_model else None,
        "student_of_round": best,
        "stopped": why,
        "rounds": records,
    }


def _held_out(record: dict[str, Any]) -> HeldOut:
    found = record["held_out"]
    return HeldOut(found["pass@1"], found["pass@k"])


def _line(name: str, record: dict[str, Any], k: int) -> str:
    held = record["held_out"]
    return (
        f"{name}: round {record['round']}: {record['right']} of {record['tried']} solutions right, "
        f"{record['accepted']} accepted, {record['newly_solved']} problems solved for the first "
        f"time; held-out pass@1 {held['pass@1']:.3f}, pass@{k} {held['pass@k']:.3f}, "
        f"{held['mean_tokens']:.1f} tokens"
    )


def _forecast(job: Job, s: EvolveSettings) -> list[Part]:
    prompts = max(s.batch // s.samples, 1)
    drawn = job.writing("student", "solutions", prompts * s.samples, prompts)
    trained = job.supervised(s)
    scored = job.scoring_steps(min(s.batch, 64)) if s.reward_model else []
    named = {part.name for part in trained}
    return [*trained, *(part for part in (*drawn, *scored) if part.name not in named)]


KIND = register(
    Kind(
        EvolveSettings,
        _run,
        check=_check,
        prepare=_prepare,
        forecast=_forecast,
        panels=panels.SUPERVISED,
    )
)
