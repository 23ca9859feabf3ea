"""The teacher's samples that stage distill learns on: one store, drawn once, verdicts kept."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core import rng
from distill_jax.core.errors import DataError
from distill_jax.inference import store
from distill_jax.run.run import Run
from distill_jax.run.stop import Interrupted
from distill_jax.stages import distill_rows
from distill_jax.stages.distill_rows import Rows
from distill_jax.tasks import Judged
from tests.stages.hf import tokenizer, write_model, write_problems
from tests.stages.small import small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two random models and problems, of which the teacher solves twelve in batches of five."""
    root = tmp_path_factory.mktemp("teacher_samples")
    tok = tokenizer()
    return {
        "stages": ("distill",),
        "teacher__path": str(write_model(root / "teacher", rows=320, tok=tok, seed=1, noise=0.5)),
        "student__path": str(write_model(root / "student", rows=320, tok=tok)),
        "data__source": str(write_problems(root / "data")),
        "sampling__max_new_tokens": 6,
        "sampling__segment": 3,
        "distill__data": "teacher_samples",
        "distill__teacher_samples__problems": 12,
        "distill__teacher_samples__batch": 5,
    }


def opened(workdir: Path, settings: dict[str, Any], **changes: Any) -> Run:
    return Run(small(**{**settings, **changes}), workdir)


def make(run: Run) -> Rows:
    stage = run.stage("distill")
    return distill_rows.make(run, stage, run.directory("distill"), run.models.teacher, None)


def samples(run: Run) -> Path:
    return run.workdir / "distill" / distill_rows.SAMPLES_FILE


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Rows]:
    run = opened(tmp_path_factory.mktemp("whole"), settings)
    return run, make(run)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Problems judged from now on, batch by batch; the first and the last of 12 are right."""
    asked: list[list[str]] = []

    def by_place(run: Run) -> Any:
        ids = [problem.id for problem in run.data.problems("train").problems]

        def judged(problems: Any, texts: Any, ended_B: Any) -> Judged:
            asked.append([problem.id for problem in problems])
            right = [problem.id in (ids[0], ids[11]) for problem in problems]
            return Judged(
                np.array(right), np.zeros(len(texts), bool), [{}] * len(texts), [None] * len(texts)
            )

        return judged

    real = Run.__init__

    def init(self: Run, *arguments: Any) -> None:
        real(self, *arguments)
        monkeypatch.setattr(self.data.task, "judge", by_place(self))

    monkeypatch.setattr(Run, "__init__", init)
    return asked


def test_samples_are_kept_as_drawn(whole: tuple[Run, Rows]) -> None:
    run, found = whole
    pool = run.data.problems("train")
    assert found.problems == pool.problems[:12]
    made_from, batches, _ = store.read(samples(run))
    assert made_from is not None and made_from["sampling"]["temperature"] == 0.7
    assert [batch.decoding for batch in batches] == [f"teacher samples {n}" for n in range(3)]
    kept = {
        5 * number + place: (tokens, ended)
        for number, batch in enumerate(batches)
        for place, tokens, ended in zip(batch.problems, batch.tokens, batch.ended, strict=True)
    }
    assert sorted(kept) == list(range(12))
    for row, example in enumerate(found.examples):
        assert example.prompt == pool.prompts[row]
        assert example.response == kept[row][0]
        assert (example.response[-1] == run.data.eos_id) == kept[row][1]
    ended = np.mean([end for _, end in kept.values()])
    assert found.figures["rows"] == 12
    assert found.figures["teacher_terminated"] == pytest.approx(ended)
    read, drawn = (sum(map(len, x)) for x in (pool.prompts[:12], [t for t, _ in kept.values()]))
    assert found.figures["teacher_prefilled_tokens"] == read
    assert found.figures["teacher_sampled_tokens"] == drawn


def test_a_batch_has_its_own_key(whole: tuple[Run, Rows]) -> None:
    run, found = whole
    teacher, stage = run.models.teacher, run.stage("distill")
    sampling = dataclasses.replace(run.config.sampling, temperature=0.7, top_p=1.0, top_k=0)
    sampler = run.models.sampler(teacher.model)
    out = sampler.generate(
        sampler.weights(teacher.params, sampling),
        run.data.problems("train").prompts[5:10],
        sampling,
        key=rng.stream_key(run.key(stage), "teacher samples", 1),
        prompt_ids=range(5),
    )
    drawn = [row[:n].tolist() for row, n in zip(out.tokens_BR, out.length_B, strict=True)]
    assert drawn == [example.response for example in found.examples[5:10]]


def test_only_right_samples_and_none_drawn_twice(
    whole: tuple[Run, Rows], settings: dict[str, Any], tmp_path: Path, judge: list[list[str]]
) -> None:
    changes = {"distill__teacher_samples__only_right": True}
    run = opened(tmp_path, settings, **changes)
    run.stop.asked = True
    with pytest.raises(Interrupted, match="5 of the teacher's 12 solutions are kept"):
        make(run)
    problems = run.data.problems("train").problems
    with samples(run).open("ab") as file:
        file.write(b'{"decoding":"teacher sam')  # killed in the next batch
    again = opened(tmp_path, settings, **changes)
    found = make(again)
    # Each batch was judged once: the verdicts are kept with the answers.
    assert sorted(i for ids in judge for i in ids) == sorted(p.id for p in problems[:12])
    assert found.problems == [problems[0], problems[11]]
    assert [e.response for e in found.examples] == [whole[1].examples[i].response for i in (0, 11)]
    assert found.figures["teacher_accuracy"] == 2 / 12 and found.figures["rows"] == 2
    mine, theirs = (store.read(samples(one))[1] for one in (again, whole[0]))
    assert [batch.tokens for batch in mine] == [batch.tokens for batch in theirs]
    drawn = len(judge)
    assert make(opened(tmp_path, settings, **changes)) == found and len(judge) == drawn


def test_samples_of_other_settings_are_not_taken(
    whole: tuple[Run, Rows], settings: dict[str, Any], tmp_path: Path
) -> None:
    run = opened(tmp_path, settings, distill__teacher_samples__temperature=0.1)
    samples(run).parent.mkdir(parents=True)
    samples(run).write_bytes(samples(whole[0]).read_bytes())
    assert make(run).examples != whole[1].examples
    first = json.loads(samples(run).read_text().splitlines()[0])
    assert first["made_from"]["sampling"]["temperature"] == 0.1


def test_a_damaged_file_names_its_line(
    whole: tuple[Run, Rows], settings: dict[str, Any], tmp_path: Path
) -> None:
    run = opened(tmp_path, settings)
    samples(run).parent.mkdir(parents=True)
    samples(run).write_bytes(samples(whole[0]).read_bytes() + b"{}\n")
    with pytest.raises(DataError, match=r"teacher_samples\.jsonl line 5: .*fix: delete the file"):
        make(run)


def test_a_teacher_that_is_never_right(settings: dict[str, Any], tmp_path: Path) -> None:
    run = opened(tmp_path, settings, distill__teacher_samples__only_right=True)
    with pytest.raises(DataError, match="none of the teacher's 12 solutions is right"):
        make(run)
    assert len(store.read(samples(run))[1]) == 3


def test_several_samples_of_each_problem(
    settings: dict[str, Any], tmp_path: Path, judge: list[list[str]]
) -> None:
    names = {"samples": 2, "batch": 6, "only_right": True}
    how = {f"distill__teacher_samples__{name}": value for name, value in names.items()}
    rows = make(opened(tmp_path, settings, **how))
    ids = [problem.id for problem in opened(tmp_path, settings).data.problems("train").problems]
    # Both samples of the first and of the last problem of 12 are right.
    assert [problem.id for problem in rows.problems] == [ids[0]] * 2 + [ids[11]] * 2
    first, second = (example.response for example in rows.examples[:2])
    assert first != second and rows.examples[0].prompt == rows.examples[1].prompt
    assert [len(asked) for asked in judge] == [6] * 4
    assert rows.figures == {"teacher_accuracy": 4 / 24, **rows.figures}
