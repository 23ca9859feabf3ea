"""Which rows each model is pretrained on."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.run.adopt import adopt
from distill_jax.run.record import refuse_if_changed, stage_key
from distill_jax.run.run import Run
from distill_jax.stages import pretrain, runner
from distill_jax.stages.supervised import ExampleRows
from tests.stages.hf import write_model
from tests.stages.small import small

SIZES = {
    "data__problems__levels": 4,
    "data__problems__train_size": 400,
    "data__max_prompt_tokens": 256,
    "sampling__max_new_tokens": 128,
}


def prepared(workdir: Path, **changes: Any) -> dict[str, ExampleRows]:
    run = Run(small(**SIZES | changes), workdir)
    return pretrain._prepare(run, run.stage("pretrain"))


def test_a_share_of_each_level_for_one_model(tmp_path: Path) -> None:
    rows = prepared(tmp_path, student__level_shares=(1.0, 1.0, 0.25, 0.0))
    assert Counter(p.level for p in rows["teacher"].problems) == {1: 100, 2: 100, 3: 100, 4: 100}
    found = Counter(p.level for p in rows["student"].problems)
    assert (found[1], found[2], found[4]) == (100, 100, 0)
    # √(100·.25·.75) = 4.3; four of them.
    assert abs(found[3] - 25) < 18
    again = prepared(tmp_path, student__level_shares=(0.0, 0.0, 0.5, 0.0))["student"]
    quarter = {p.id for p in rows["student"].problems if p.level == 3}
    assert quarter < {p.id for p in again.problems}  # a larger share only adds rows


def test_operations_and_bare_answers_of_one_model(tmp_path: Path) -> None:
    rows = prepared(tmp_path, student__operations=("+",), teacher__answer_only=0.5)
    chains = [p.extra["chain"] for p in rows["student"].problems]
    every = [p.extra["chain"] for p in rows["teacher"].problems]
    assert chains == [chain for chain in every if "-" not in chain] and len(chains) < len(every)
    assert rows["student"].bare_answers == 0.0
    # √(.25/400) = .025; four of them.
    assert abs(rows["teacher"].bare_answers - 0.5) < 0.1


def test_unset_the_models_share_all_rows(tmp_path: Path) -> None:
    rows = prepared(tmp_path)
    assert rows["teacher"] is rows["student"]
    run = Run(small(**SIZES), tmp_path)
    plain = ExampleRows(run, answer_only=0.0, seed=run.seed(run.stage("pretrain")))
    assert rows["student"].examples == plain.examples


def test_a_teacher_that_no_stage_can_read_is_not_trained(tmp_path: Path) -> None:
    path = str(write_model(tmp_path / "student", rows=384, max_position_embeddings=600))
    unread = {
        "student__path": path,
        "rl__teacher__source": "start",
        "evaluate__teacher": False,
        "evaluate__distribution": False,
    }
    # Its rows would all be too long.
    assert prepared(tmp_path / "run", sampling__max_new_tokens=2, **unread) == {}
    run = Run(small(**SIZES | unread), tmp_path / "run")
    stage = run.stage("pretrain")
    runner._run_stage(run, stage, {})
    assert not (run.workdir / "pretrain" / "teacher").exists()
    refuse_if_changed(run, stage)
    # The stage alone makes one, for another run.
    alone = {"stages": ("pretrain",), **unread}
    changed = Run(small(**SIZES | alone), run.workdir)
    with pytest.raises(ConfigError, match=r"without the teacher that stages=\('pretrain',\) tr"):
        refuse_if_changed(changed, stage)
    assert adopt(changed.config, run.workdir, tmp_path / "other") == []
    assert adopt(run.config, run.workdir, tmp_path / "other") == ["pretrain"]
    assert list(prepared(tmp_path / "run", **alone)) == ["teacher"]
    with pytest.raises(DataError, match="pretrain, teacher: all 400 training responses"):
        prepared(tmp_path / "run", sampling__max_new_tokens=2, **alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student__level_shares": (1.0,)}, r"student.level_shares=\(1.0,\); wanted: a share of "),
        ({"teacher__level_shares": (0.0, 0.0, 0.0, 0.0)}, "teacher.level_shares=.*not all 0"),
        ({"student__level_shares": (1.0, 2.0, 0.0, 0.0)}, "level_shares=.*wanted: at most 1"),
        ({"student__operations": ("*",)}, "student.operations=.*wanted: one of"),
    ],
)
def test_impossible_choices_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**SIZES, **changes)


def test_a_choice_that_leaves_no_row_is_refused(tmp_path: Path) -> None:
    nothing = {"student__level_shares": (1e-9, 0.0, 0.0, 0.0)}
    with pytest.raises(DataError, match="none of 400 training problems is shown; fix: raise"):
        prepared(tmp_path, **nothing)


@pytest.mark.parametrize(
    "changes",
    [
        {"student__level_shares": (1.0, 1.0, 1.0, 0.01)},
        {"teacher__operations": ("+",)},
        {"student__answer_only": 0.6},
    ],
)
def test_a_choice_belongs_to_what_pretrain_depends_on(changes: dict[str, Any]) -> None:
    same = stage_key(small(**SIZES), "pretrain")
    assert stage_key(small(**SIZES), "pretrain") == same
    assert stage_key(small(**SIZES, **changes), "pretrain") != same
