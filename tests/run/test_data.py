"""The data of a run: its tokenizer, benchmarks, questions that no training may show."""

import dataclasses
import json
from pathlib import Path

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.run import run as runs
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.step_bench import StepBenchSettings
from tests.stages.small import small


def test_another_tokenizer_is_not_written_over_that_of_a_run(tmp_path: Path) -> None:
    assert len(runs.Run(small(), tmp_path).data.tokenizer) == 300
    stage = tmp_path / "sft" / "settings.json"
    held = (tmp_path / "tokenizer" / "tokenizer.json").read_bytes()
    stage.parent.mkdir()
    stage.write_text("{}")
    with pytest.raises(ConfigError, match=r"was made from .*'size': 300.*, now from .*280"):
        _ = runs.Run(small(tokenizer_size=280), tmp_path).data.tokenizer
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == held
    stage.unlink()  # nothing was made with it: it may go
    assert len(runs.Run(small(tokenizer_size=280), tmp_path).data.tokenizer) == 280


def test_a_tokenizer_made_before_a_setting_was_added_stays(tmp_path: Path) -> None:
    _ = runs.Run(small(), tmp_path).data.tokenizer
    note = tmp_path / "tokenizer" / "made_from.json"
    found = json.loads(note.read_text())
    del found["problems"]["flawed"]
    note.write_text(json.dumps(found))
    stage = tmp_path / "sft" / "settings.json"
    stage.parent.mkdir()
    stage.write_text("{}")
    assert len(runs.Run(small(), tmp_path).data.tokenizer) == 300
    with pytest.raises(ConfigError, match="was made from"):
        _ = runs.Run(small(data__problems__flawed=0.5), tmp_path).data.tokenizer


def test_a_benchmark_loses_what_the_students_have_seen(tmp_path: Path) -> None:
    data = runs.Run(small(), tmp_path).data
    seen = data.separate("train")[0].question.upper()  # the same question in other letters
    path = tmp_path / "contest.jsonl"
    rows = [{"question": q, "answer": "025"} for q in (seen, "What is 5 times 5?")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said: list[str] = []
    data.say = said.append  # type: ignore[method-assign]
    assert [p.question for p in data.problems(str(path)).problems] == ["What is 5 times 5?"]
    assert said == [f"{path}: 1 of 2 problems dropped, they are in train"]
    assert data.in_train == {str(path): 1} and data.source_of(str(path)) == str(path)
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="all 1 problems of .* are in train"):
        runs.Run(small(), tmp_path).data.problems(str(path))


def test_a_benchmark_loses_what_rows_of_a_file_teach(tmp_path: Path) -> None:
    asked = [f"What is {n} times 5?" for n in range(6)]

    def write(name: str, rows: list[dict]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    contest = write("contest.jsonl", [{"question": q, "answer": "5"} for q in asked])
    pairs = [{"prompt": asked[0].upper(), "chosen": "a", "rejected": "b"}]
    steps = [{"prompt": q, "completions": ["1"], "labels": [True]} for q in asked[1:3]]
    judged = [{"problem": asked[3], "steps": ["1"], "label": -1}]
    plan = {
        "dpo": DPOSettings(start="base", data=write("pairs.jsonl", pairs)),
        "prm": PRMSettings(data=write("steps.jsonl", steps)),
        # Scores only: nothing is learnt from these.
        "bench": StepBenchSettings(reward_model="prm", data=write("judged.jsonl", judged)),
    }
    base = small()
    config = dataclasses.replace(base, plan={**base.plan, **plan}, stages=("dpo", "prm", "bench"))
    data, said = runs.Run(config, tmp_path / "run").data, []
    data.say = said.append  # type: ignore[method-assign]
    assert [p.question for p in data.problems(contest).problems] == asked[3:]
    assert data.in_train == {contest: 3}
    assert said == [
        f"{contest}: 1 of 6 problems dropped, they are in {tmp_path}/pairs.jsonl",
        f"{contest}: 2 of 6 problems dropped, they are in {tmp_path}/steps.jsonl",
    ]
    # A stage that neither runs nor was begun has taught nothing; one that was begun has.
    later = dataclasses.replace(config, stages=("evaluate",))
    assert len(runs.Run(later, tmp_path / "run").data.problems(contest).problems) == 6
    (tmp_path / "run" / "dpo").mkdir(parents=True)
    assert len(runs.Run(later, tmp_path / "run").data.problems(contest).problems) == 5


def test_questions_of_validation_and_test_are_held_out(tmp_path: Path) -> None:
    data = runs.Run(small(), tmp_path).data
    for split, held_out in (("train", False), ("validation", True), ("test", True)):
        question = data.separate(split)[0].question
        assert data.in_held_out_split(f"  {question.lower()} ") is held_out


def test_questions_that_share_words_with_held_out_ones(tmp_path: Path) -> None:
    """Counted apart from those that are the same, where the setting asks for it."""
    for split in ("train", "validation", "test"):
        text = f"The {split} box holds two pens and three more, and a lid"
        (tmp_path / f"{split}.jsonl").write_text(
            "".join(json.dumps({"question": f"{text} {i}?", "answer": "5"}) + "\n" for i in (1, 2))
        )
    asked = ["The test box holds two pens and three more, and a lid 1?", "a " * 20]
    asked += ["Well: the test box holds two pens - and three more; and then?", "Other?"]
    for ngram, wanted in ((0, [True, False, False, False]), (9, [True, False, True, False])):
        models = {"teacher__path": "no/teacher", "student__path": "no/student"}  # none is read
        config = small(data__source=str(tmp_path), data__ngram=ngram, stages=("rl",), **models)
        data, said = runs.Run(config, tmp_path / str(ngram)).data, list[str]()
        data.say = said.append  # type: ignore[method-assign]
        assert data.held_out(asked, "rows.jsonl") == wanted
        assert said == ngram * [] + (
            [
                "rows.jsonl: 1 of 4 rows dropped, their questions share 9 words in a row with "
                "validation or test problems; 1 are the same"
            ]
            if ngram
            else []
        )
