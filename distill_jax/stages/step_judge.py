r"""Stage kind step_judge: a model names the first wrong step of solutions that have counts.

Rows are those of stage step_labels with "judge": {"first_wrong", "votes", "model"}. first_wrong is
the index that most of the judge's samples name, −1 for no wrong step, null without a majority. Rows
whose counts and judge name the same step are a consensus (arXiv 2501.07301).
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from distill_jax.core import rng
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.data import chat
from distill_jax.data.chat import ChatSettings, Prompts
from distill_jax.data.problem import Problem
from distill_jax.data.rows import read_rows
from distill_jax.forecast.memory import Job
from distill_jax.forecast.parts import Part
from distill_jax.inference import generate
from distill_jax.inference.store import AnswerStore
from distill_jax.reasoning import critique, step_labels
from distill_jax.reasoning.step_labels import Counts
from distill_jax.rollout.sampler import Rollout
from distill_jax.run.console import write_rows
from distill_jax.run.run import ROWS_FILE, Run, Stage
from distill_jax.stages.kinds import Kind, register
from distill_jax.stages.step_labels import longest
from distill_jax.stages.traces import WriterSettings
from distill_jax.training.progress import Progress

STORE_FILE = "votes.jsonl"
# Tokens of a judge's prompt in addition to problem and solution, about.
_ASKED = 256


@dataclass(frozen=True)
class StepJudgeSettings(WriterSettings, kind="step_judge", makes="rows"):
    """A judge's index of the first wrong step, as a second source of step labels."""

    data: str = setting(
        "step_labels", "Rows with counts: a stage of kind step_labels, or its file.", ref="rows"
    )
    samples: int = setting(8, "Critiques of each solution; their majority decides.", low=1)
    temperature: float = setting(0.7, "Temperature of the critiques; 0 is greedy.", low=0.0)
    max_new_tokens: int = setting(1024, "Longest critique; a longer one names no step.", low=1)
    batch: int = setting(256, "Critiques decoded at a time.", low=1, affects="rounding")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise ConfigError("data is empty", wanted="a stage of kind step_labels, or a file")
        if self.samples > 1 and self.temperature == 0.0:
            raise ConfigError(
                f"samples={self.samples} with temperature=0",
                wanted="1: greedy critiques of a solution are all the same",
            )

    def shared(self) -> tuple[str, ...]:
        """See StageSettings."""
        return tuple(name for name in super().shared() if name != "sampling.max_new_tokens")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of stage step_labels.

    Raises:
        DataError: a column that is read here is missing or of another form (file, line).
    """
    out = []
    for where, row in read_rows(path):
        try:
            _counts(row)
            good = isinstance(row["id"], str) and isinstance(row["question"], str)
            good = good and len(row["mc"]) == len(row["steps"]) > 0
            good = good and all(isinstance(step, str) for step in row["steps"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}: {error!r}", wanted="a row of stage step_labels") from error
        if not good:
            raise DataError(f"{where}: {row!r:.60}", wanted="a row of stage step_labels")
        out.append(dict(row))
    return out


def _counts(row: Any) -> tuple[list[Counts | None], Counts]:
    """(of each step, of the root)."""
    return [None if one is None else Counts(**one) for one in row["mc"]], Counts(**row["root"])


def _prepare(run: Run, stage: Stage[StepJudgeSettings]) -> list[dict[str, Any]] | None:
    """The rows; None where a stage of this run has to make them first."""
    data = stage.settings.data
    return read(run.rows(data)) if run.is_there(data) else None


def _run(
    run: Run,
    stage: Stage[StepJudgeSettings],
    directory: Path,
    rows: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    s = stage.settings
    rows = read(run.rows(s.data)) if rows is None else rows
    votes = _votes(run, stage, directory / STORE_FILE, rows)
    judged = [None if one is None else critique.majority(one) for one in votes]
    write_rows(directory / ROWS_FILE, _rows(rows, votes, judged, s))
    cells = _agreement(rows, judged)
    run.console.print(_table(cells))
    agree = cells["both none"] + cells["both the same step"]
    return {
        "rows": len(rows),
        "unread_rows": sum(one is None for one in votes),
        "undecided_rows": sum(one is None for one in judged),
        "agreement": agree / max(1, sum(cells.values())),
        **{f"agreement/{name}": count for name, count in sorted(cells.items())},
    }


def _votes(
    run: Run, stage: Stage[StepJudgeSettings], path: Path, rows: Sequence[dict[str, Any]]
) -> list[list[int | None] | None]:
    """The votes on each row; None for one that the judge cannot read."""
    s = stage.settings
    writer = s.writer(run)
    loaded = writer.load()
    sampler = run.models.sampler(loaded.model)
    sampling = dataclasses.replace(
        run.config.sampling.whole(s.temperature), max_new_tokens=s.max_new_tokens
    )
    asked = _prompts(run, rows, longest(loaded.model.config, sampling, 0))
    if not asked:
        raise DataError(
            f"{stage.name}: the judge has room for none of {len(rows)} rows",
            wanted="critiques and solutions that fit into its positions",
            fix=f"lower {stage.name}.max_new_tokens",
        )
    places = list(asked)
    problems = [Problem(rows[place]["id"], "", "", "") for place in places]
    prompts = [asked[place] for place in places]
    made_from = generate.made_from(
        run, writer.weights, Prompts(problems, prompts, 0), sampling, samples=s.samples,
        batch=s.batch,
    )  # fmt: skip
    store = AnswerStore(path, made_from)

    def read_votes(chosen: Sequence[int], out: Rollout) -> dict[str, list[Any]]:
        steps = [len(rows[places[one]]["steps"]) for one in chosen for _ in range(s.samples)]
        texts = [run.data.text(row[:n]) for row, n in zip(out.tokens_BR, out.length_B, strict=True)]
        found = [step_labels.judged_first_wrong(*one) for one in zip(texts, steps, strict=True)]
        return {"vote": [v if end else None for v, end in zip(found, out.ended_B, strict=True)]}

    total, done = len(places) * s.samples, store.count()
    before, after = f"{stage.name} was asked to stop;", f"{total} critiques are kept"
    with Progress(stage.name, total, start=done, unit="critiques", console=run.console) as bar:
        found = generate.answers(
            sampler,
            functools.cache(lambda: sampler.weights(loaded.params, sampling)),
            prompts,
            sampling,
            key=rng.stream_key(run.key(stage), "critiques"),
            batch=s.batch,
            samples=s.samples,
            ids=places,
            store=store,
            decoding="critiques",
            columns=read_votes,
            tick=generate.stopping(run, bar, done, before, after),
        )
    out: list[list[int | None] | None] = [None] * len(rows)
    for number, place in enumerate(places):
        out[place] = found.columns["vote"][number * s.samples : (number + 1) * s.samples]
    return out


def _prompts(run: Run, rows: Sequence[dict[str, Any]], room: int) -> dict[int, list[int]]:
    """{number of the row: the judge's prompt}.

    Rows are skipped whose prompt is longer than `room`, or whose solution spells a special token,
    which would end the turn.
    """
    tok = run.data.tokenizer
    texts = [critique.critique(row["question"], row["steps"]) for row in rows]
    specials = [token.content for token in tok.added_tokens_decoder.values() if token.special]
    clean = [n for n, text in enumerate(texts) if not any(one in text for one in specials)]
    # Not the run's system prompt and instruction: those ask for a solution.
    settings = ChatSettings(enable_thinking=run.config.data.chat.enable_thinking)
    problems = [Problem(rows[n]["id"], texts[n], "", "") for n in clean]
    found = zip(clean, chat.render_prompts(tok, problems, settings), strict=True)
    return {number: prompt for number, prompt in found if len(prompt) <= room}


def _rows(
    rows: Sequence[dict[str, Any]],
    votes: Sequence[list[int | None] | None],
    judged: Sequence[int | None],
    s: StepJudgeSettings,
) -> Iterator[dict[str, Any]]:
    model = "teacher" if s.teacher else s.model
    for row, one, first_wrong in zip(rows, votes, judged, strict=True):
        yield {**row, "judge": {"first_wrong": first_wrong, "votes": one or [], "model": model}}


def _agreement(rows: Sequence[dict[str, Any]], judged: Sequence[int | None]) -> Counter[str]:
    """How counts and judge agree on the rows that counts label."""
    counted, others = [], []
    for row, other in zip(rows, judged, strict=True):
        counts, root = _counts(row)
        if any(one is not None for one in step_labels.labels(counts, root, "hard")):
            counted.append(step_labels.first_wrong(counts))
            others.append(other)
    return Counter(step_labels.agreement(counted, others)[1])


def _table(cells: Counter[str]) -> Table:
    out = Table(title="first wrong step")
    out.add_column("how they agree")
    out.add_column("rows", justify="right")
    for name, count in sorted(cells.items()):
        out.add_row(name, str(count))
    return out


def _forecast(job: Job, s: StepJudgeSettings) -> list[Part]:
    lengths = {"longest": job.solution + _ASKED, "new": s.max_new_tokens}
    return s.forecast(job, "critiques", s.samples, s.batch, **lengths)


KIND = register(Kind(StepJudgeSettings, _run, prepare=_prepare, forecast=_forecast))
