import contextlib
import json
import sys
import types

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import build, to_config_dict, to_dict
from distill_jax.data.problem import Problem, content_hash, overlap
from distill_jax.data.rows import Columns, gold_of, problem_of_row, read_rows
from distill_jax.data.sources import DataSettings, benchmark, check_benchmark, has_train, load
from distill_jax.data.synthetic import ProblemSettings, problems

GSM = {
    "question": "Ida bakes 12 buns and eats 2. How many are left?",
    "answer": "Ida has 12-2 = <<12-2=10>>10 buns left.\n#### 10",
}
MATH = {
    "problem": "What is half of $x$ at $x=1$?",
    "level": "Level 3",
    "type": "Algebra",
    "solution": r"It is $\frac{x}{2}=\boxed{\frac{1}{2}}$.",
}


def settings(**values):
    return build(DataSettings, values)


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def many(count, start=0):
    return [
        {"question": f"Question {n}?", "answer": f"#### {n}"} for n in range(start, start + count)
    ]


def test_columns_of_the_field():
    gsm = problem_of_row(GSM, "here", "x/0")
    assert gsm == Problem("x/0", GSM["question"], GSM["answer"], "10")
    math = problem_of_row(MATH, "here", "x/1")
    assert math == Problem(
        "x/1", MATH["problem"], MATH["solution"], r"\frac{1}{2}", level=3, subject="Algebra"
    )
    math500 = {**MATH, "answer": r"\frac12", "subject": "Algebra", "level": 3, "unique_id": "t/1"}
    del math500["type"]
    assert problem_of_row(math500, "here", "x").answer == r"\frac12"
    assert problem_of_row(math500, "here", "x").extra == {"unique_id": "t/1"}
    assert problem_of_row({"question": "2+2?", "answer": 4}, "here", "x") == (
        Problem("x", "2+2?", "", "4")
    )


def test_messages_and_named_columns():
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "#### 4"},
    ]
    assert problem_of_row({"messages": turns}, "here", "x") == Problem("x", "2+2?", "#### 4", "4")
    row = {"q": "2+2?", "work": "2+2=4", "gold": "4"}
    columns = Columns("q", "work", "gold")
    assert problem_of_row(row, "here", "x", columns) == Problem("x", "2+2?", "2+2=4", "4")


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        ("a\n#### 1,234", "1,234"),
        (r"\boxed{1} then \boxed{\{2\}}", r"\{2\}"),
        (r"so $\boxed 3$.", "3"),
        (r"cut \boxed{3", None),
        ("no mark", None),
        ("####", None),
    ],
)
def test_gold_answers(solution, gold):
    assert gold_of(solution) == gold


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"answer": "#### 1"}, "question, problem"),
        ({"question": "", "answer": "#### 1"}, "field question"),
        ({"question": 7, "answer": "#### 1"}, "field question"),
        ({"question": "q", "answer": ""}, "field answer"),
        ({"question": "q", "answer": ["1"]}, "field answer"),
        ({"question": "q", "answer": True}, "field answer"),
        ({"question": "q", "answer": None}, "no gold answer in answer or solution"),
        ({"question": "q", "solution": "no mark"}, "no gold answer"),
        ({"question": "q", "answer": "1", "level": "hard"}, "field level"),
        ({"messages": [{"role": "assistant", "content": "#### 1"}]}, "field messages"),
        ([1, 2], "a list"),
    ],
)
def test_bad_rows_name_file_line_and_field(tmp_path, row, field):
    file = write(tmp_path / "train.jsonl", [GSM, row])
    with pytest.raises(DataError) as caught:
        load(settings(source=str(file)), "train", 0)
    assert str(file) in str(caught.value)
    assert "line 2" in str(caught.value)
    assert field in str(caught.value)


@pytest.mark.parametrize("line", [b'{"question": "q"', b"\xff\xfe", b"nonsense"])
def test_lines_that_are_no_json_are_named(tmp_path, line):
    file = tmp_path / "train.jsonl"
    file.write_bytes(json.dumps(GSM).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(DataError, match="line 3: not JSON"):
        list(read_rows(file))


def test_a_csv_file_with_another_name_is_called_one(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text('question,answer\n"2, and 3?",5\n')
    with pytest.raises(DataError, match=r"line 1: not JSON; it looks like .* CSV .*wanted: .jsonl"):
        list(read_rows(file))
    for line in ('{"question": "a, b', "words"):
        file.write_text(line)
        with pytest.raises(DataError, match="line 1: not JSON: "):
            list(read_rows(file))


@pytest.mark.parametrize(
    ("name", "content", "fix"),
    [
        ("a.jsonl", "", "write rows into it"),
        ("a.jsonl", "[1]", "write one object a line"),
        ("a.json", "{}", "write one object a line"),
        ("a.csv", "a,b", "write one object a line"),
        ("a.jsonl", '{"input": "q", "output": "a"}', "set data.question_column"),
        ("a.jsonl", '{"question": "q"}', "set data.answer_column"),
    ],
)
def test_refused_files_name_the_fix(tmp_path, name, content, fix):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"fix: .*{fix}"):
        [problem_of_row(row, where, "p") for where, row in read_rows(tmp_path / name)]


def test_words_as_gold_are_named_where_most_rows_end_in_a_number(tmp_path):
    def said(*answers):
        rows = [{"question": f"{n}?", "answer": one} for n, one in enumerate(answers)]
        found = []
        write(tmp_path / "train.jsonl", rows)
        write(tmp_path / "test.jsonl", rows[:1])
        for split in ("train", "validation", "test"):  # validation is carved from train
            with contextlib.suppress(DataError):
                load(settings(source=str(tmp_path)), split, 0, found.append)
        return found

    number = [f"so it is #### {n}" for n in ("1", "$1,200", "-3", "4.5", "50%")]
    assert said(*number, "7", "so #### x + 1", "$8") == []
    assert said("I do not know", "I do not know", *number[:2]) == []  # words as often
    (warning,) = said(*number, *number, "I do not know", "7", "none", "?", "no")
    place = tmp_path / "train.jsonl"
    assert warning.startswith(
        "WARNING: 4 of 15 rows have a gold answer that is no number and has no ####, where 10 rows "
        f"end in #### number: {place}, line 11 ('I do not know'); {place}, line 13 ('none'); "
        f"{place}, line 14 ('?'); …; "
    )


def test_files_that_cannot_be_read(tmp_path):
    cases = {"a.jsonl": "", "b.json": "{}", "c.json": "[", "d.parquet": "no", "e.txt": "x"}
    for name, content in cases.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=name):
            list(read_rows(tmp_path / name))


def test_kinds_of_files_agree(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = many(5)
    write(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    kinds = [
        [row for _, row in read_rows(tmp_path / f"a.{k}")] for k in ("jsonl", "json", "parquet")
    ]
    assert kinds[0] == kinds[1] == kinds[2] == rows


def test_a_directory_with_named_splits(tmp_path):
    write(tmp_path / "train.jsonl", many(40))
    write(tmp_path / "dev.jsonl", many(3, 100))
    (tmp_path / "held_out.json").write_text(json.dumps(many(4, 200)))
    own = settings(source=str(tmp_path), validation="dev", test="held_out.json")
    sizes = {split: len(load(own, split, 0)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 40, "validation": 3, "test": 4}
    assert load(own, "test", 0)[0].answer == "200"
    with pytest.raises(DataError, match="data.test='gone.json': no such file"):
        load(settings(source=str(tmp_path), test="gone.json"), "test", 0)


def test_missing_splits_are_carved_out_without_overlap(tmp_path):
    file = write(tmp_path / "all.jsonl", [*many(600), *many(600)])  # every question twice
    rows = {s: load(settings(source=str(file)), s, 0) for s in ("train", "validation", "test")}
    assert sum(map(len, rows.values())) == 1200
    # 5% of 600 questions is 30, standard deviation √(600·.05·.95) = 5.3, each question twice.
    assert all(20 <= len(rows[s]) <= 100 for s in ("validation", "test"))
    for first in rows:
        assert len(overlap(rows[first], rows[first])) == len(rows[first])
        assert not any(overlap(rows[first], rows[other]) for other in rows if other != first)


def test_test_rows_of_their_own_leave_training_rows_alone(tmp_path):
    write(tmp_path / "train.jsonl", many(300))
    write(tmp_path / "test.jsonl", many(7, 1000))
    own = settings(source=str(tmp_path))
    train, validation = load(own, "train", 0), load(own, "validation", 0)
    assert len(train) + len(validation) == 300
    assert validation and len(load(own, "test", 0)) == 7


def test_limit_draws_by_seed_and_keeps_order(tmp_path):
    write(tmp_path / "train.jsonl", many(200))
    write(tmp_path / "validation.jsonl", many(1, 300))
    limited = settings(source=str(tmp_path), limit=20)
    first, again, other = (load(limited, "train", seed) for seed in (0, 0, 1))
    assert first == again != other
    numbers = [int(p.answer) for p in first]
    assert numbers == sorted(numbers) and len(set(numbers)) == 20


def test_missing_sources_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file or directory"):
        load(settings(source=str(tmp_path / "gone")), "train", 0)
    with pytest.raises(DataError, match=r"no file for the train split.*train\.jsonl"):
        load(settings(source=str(tmp_path)), "train", 0)
    with pytest.raises(ConfigError, match="split='dev'"):
        load(settings(), "dev", 0)


def test_embedded_is_the_default():
    small = settings(problems={"train_size": 12}, limit=10)
    assert load(small, "train", 4) == problems("train", 10, ProblemSettings(), 4)
    assert len(load(settings(problems={"test_size": 7}), "test", 0)) == 7


def test_settings_survive_the_way_through_a_config():
    assert build(DataSettings, to_config_dict(DataSettings())) == DataSettings()
    assert build(DataSettings, to_dict(settings(limit=3))) == settings(limit=3)
    with pytest.raises(ConfigError, match="on_long_prompt"):
        settings(on_long_prompt="cut")


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the package datasets that records what was asked."""
    asked = []

    def load_dataset(repository, config, split):
        asked.append((repository, config, split))
        if config == "geometry" and split == "test":
            raise ConnectionError("no way\nthere")
        return [GSM] if config == "main" else [{**MATH, "problem": f"{config} {split}?"}]

    fake = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return asked


def test_gsm8k_and_math_by_name(hub):
    assert load(settings(source="gsm8k"), "test", 0)[0].answer == "10"
    assert hub == [("openai/gsm8k", "main", "test")]
    hub.clear()
    rows = load(settings(source="math"), "train", 0)
    rows += load(settings(source="math"), "validation", 0)
    assert len(rows) == 7 and len({p.id for p in rows}) == 7
    assert {split for _, _, split in hub} == {"train"}


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("math500", ("HuggingFaceH4/MATH-500", "default", "test")),
        ("aime2024", ("HuggingFaceH4/aime_2024", "default", "train")),
        ("aime2025", ("math-ai/aime25", "default", "test")),
        ("amc", ("AI-MO/aimo-validation-amc", "default", "train")),
    ],
)
def test_benchmarks_by_name(hub, name, asked):
    # Whatever the run's own data are: their splits, columns and limit are not the benchmark's.
    own = settings(source="mine.jsonl", test="held_out", limit=1, question_column="q")
    found = load(benchmark(own, name), "test", 0)
    assert hub == [asked] and [p.id for p in found] == [f"{name}/test/0"]
    assert not has_train(benchmark(own, name)) and has_train(own)
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=f"{name} has no {split} .*evaluate.benchmark={name}"):
            load(settings(source=name), split, 0)


def test_rows_of_the_contests():
    aime = {"id": 60, "problem": "Find it.", "solution": r"$\boxed{025}$", "answer": "025",
            "url": "u", "year": "2024"}  # fmt: skip
    assert problem_of_row(aime, "here", "x").answer == "025"
    amc = {"id": 0, "problem": "Find it.", "answer": 142.0, "url": "u"}
    assert problem_of_row(amc, "here", "x").answer == "142"
    assert problem_of_row({**amc, "answer": 2.5}, "here", "x").answer == "2.5"


def test_a_benchmark_of_ones_own_is_read_whole(tmp_path):
    file = write(tmp_path / "contest.jsonl", many(30))
    assert len(load(benchmark(settings(), str(file)), "test", 0)) == 30
    write(tmp_path / "test.jsonl", many(3))
    assert len(load(benchmark(settings(test="dev"), str(tmp_path)), "test", 0)) == 3
    with pytest.raises(DataError, match="'aime24' as a source of problems.*math500, aime2024"):
        load(benchmark(settings(), "aime24"), "test", 0)
    with pytest.raises(ConfigError, match="benchmark=train"):
        check_benchmark("train")


def test_an_unreachable_hub_says_how_to_use_a_path(hub):
    with pytest.raises(DataError, match=r"geometry, test.*no way; fix:.*local directory"):
        load(settings(source="math"), "test", 0)


def test_content_hash_sees_content():
    assert content_hash("Tom  has\n3 pens") == content_hash("tom has 3 PENS ")
    assert content_hash("Tom has 3 pens") != content_hash("Tom has 4 pens")


def test_a_file_too_small_to_be_carved_says_what_to_do(tmp_path):
    file = write(tmp_path / "few.jsonl", many(1))
    with pytest.raises(DataError) as error:
        for split in ("validation", "test"):  # its one row can be in one of them at most
            load(settings(source=str(file)), split, 0)
    assert "of 1 training rows none falls to" in str(error.value)
    assert "or set data." in str(error.value)
