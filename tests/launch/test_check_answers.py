import json
import sys

import pytest

from launch import check_answers

ROWS = [
    {"gold": "#### 24", "response": "so it is\n#### 24", "label": True},
    {"gold": "24", "response": "no idea 24", "label": "wrong"},
    {"gold": r"\sqrt{8}", "predicted": "2*sqrt(2)", "label": 1},
    {"gold": "5", "predicted": "7", "label": "right"},
    {"gold": "2:3", "predicted": "4:6"},
    {"gold": 24, "predicted": 24.0, "label": "correct"},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_prints_counts_agreement_and_disagreements(file, capsys):
    check_answers.main([str(file)])
    out = capsys.readouterr().out
    cells = [line.replace("│", "|") for line in out.splitlines()]
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in cells if "|" in line}
    assert (rows["right"], rows["wrong"], rows["undecided"]) == ("3", "2", "1")
    assert rows["agrees with label"] == "4 of 5 (80.0%)"
    assert (rows["wrongly right"], rows["wrongly wrong"]) == ("0", "1")
    assert "wrong (whole numbers), label right: '5' / '7'" in out


def test_math_verify_has_its_own_column(file, capsys):
    pytest.importorskip("math_verify")
    check_answers.main([str(file), "--math_verify"])
    assert "math-verify" in capsys.readouterr().out


def test_math_verify_that_is_not_installed(file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(SystemExit) as end:
        check_answers.main([str(file), "--math_verify"])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("MissingExtraError: ") and "pip install -e '.[math-verify]'" in err


def test_writes_verdicts(file, tmp_path, capsys):
    check_answers.main([str(file), "--output", str(tmp_path / "out.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == [
        "right", "wrong", "right", "wrong", "undecided", "right",
    ]  # fmt: skip
    assert lines[1]["reason"] == "no final answer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "out.jsonl"]


def test_the_output_is_checked_before_the_work(file, tmp_path, capsys):
    before = file.read_bytes()
    for output in (tmp_path, tmp_path / "none" / "x.jsonl", file):
        with pytest.raises(SystemExit) as end:
            check_answers.main([str(file), "--output", str(output)])
        assert end.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith("DataError: --output=") and err.count("\n") == 1
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_what_json_lines_may_hold(tmp_path, capsys):
    rows = [{"gold": "5", "response": f"a{sign}b\n#### 5"} for sign in "\u2028\u0085\x0b"]
    rows.append({"gold": "5", "response": "\ud83d #### 6"})
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows[:3]] + [json.dumps(rows[3])]
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    check_answers.main([str(path), "--output", str(output)])
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [one["verdict"] for one in found] == ["right"] * 3 + ["wrong"]
    assert [one["line"] for one in found] == [1, 2, 3, 4]


def test_another_encoding(tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"gold": "é", "response": "5"}'.encode("cp1252"))
    with pytest.raises(SystemExit) as end:
        check_answers.main([str(path)])
    assert end.value.code == 2 and "is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("{", "1: not JSON"),
        ("[1]", "1: a list"),
        ('{"gold": "1"}', "1: columns gold"),
        ('{"gold": "1", "response": null}', "response is None"),
        ('{"gold": "1", "response": "1", "label": "maybe"}', "label 'maybe'"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(text, said, tmp_path, capsys):
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(SystemExit) as exit:
        check_answers.main([str(path)])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_no_file(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        check_answers.main([str(tmp_path / "none.jsonl")])
    assert exit.value.code == 2
    assert "no file" in capsys.readouterr().err
