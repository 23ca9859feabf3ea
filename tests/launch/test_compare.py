"""launch.compare: tables by hand, Holm over all tests of a call, refusals, both kinds of file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.files import store_path
from distill_jax.report import view as views
from distill_jax.report.view import RunView, StageView, save
from launch import compare, compare_inputs
from tests.report.views import RUN

# Right or wrong of ten problems; 4 won, 1 lost.
BEFORE = [1, 1, 0, 0, 0, 0, 0, 0, 1, 0]
AFTER = [1, 0, 1, 1, 1, 1, 0, 0, 1, 0]


def row(i: int, right: int, sampled: list[int] | None = None) -> dict[str, Any]:
    text = f"so\n#### {i if right else 100 + i}"
    return {
        "id": f"p/{i}", "question": f"What is {i}?", "level": 1 + i % 2, "answer": str(i),
        "greedy": text, "greedy_right": bool(right), "sampled": [text],
        "sampled_right": [bool(x) for x in (sampled or [right, 0])],
    }  # fmt: skip


def evaluated(path: Path, right: list[int], **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**row(i, x), **changes} for i, x in enumerate(right)]
    path.write_text(json.dumps({"num_problems": len(rows), "problems": rows}))
    return path


def exported(path: Path, right: list[int | None], temperature: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "index": i, "id": f"p/{i}", "question": f"What is {i}?", "level": 1 + i % 2,
            "ground_truth_text": str(i), "response": None if x is None else f"#### {i}",
            "right": None if x is None else bool(x), "error": "too long" if x is None else None,
        }
        for i, x in enumerate(right)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    if temperature is not None:
        store = {"made_from": {"sampling": {"temperature": temperature}}}
        store_path(path).write_text(json.dumps(store) + "\n")
    return path


def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *argv: str | Path
) -> tuple[dict[str, Any], str]:
    """Figures and what was printed, on lines of one blank each."""
    out = tmp_path / "out.json"
    compare.main([*map(str, argv), "--json", str(out)])
    said = capsys.readouterr().out
    return json.loads(out.read_text()), "\n".join(" ".join(x.split()) for x in said.splitlines())


def failing(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        compare.main(list(map(str, argv)))
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.err.count("\n") == 1 and not said.out
    return said.err


def test_figures_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = evaluated(tmp_path / "a.json", BEFORE), evaluated(tmp_path / "b.json", AFTER)
    found, said = run(capsys, tmp_path, a, b)
    (one,) = found["comparisons"]
    test = one["tests"]["answers"]
    assert [test[name] for name in ("both", "only_a", "only_b", "neither")] == [2, 1, 4, 3]
    assert (test["a"]["mean"], test["b"]["mean"]) == (0.3, 0.6)
    # 5 changed, at most 1 the rarer way: 2·(C(5,0) + C(5,1))/2⁵ = 12/32.
    d = test["difference"]
    assert d["p_value"] == pytest.approx(0.375) and d["mean"] == pytest.approx(0.3)
    assert d["low"] < 0 < d["mean"] < d["high"]
    # The sampled scores are half of these: differences ±.5 and 0, mean .15.
    sampled = one["tests"]["pass@1"]["difference"]
    assert sampled["mean"] == pytest.approx(0.15)
    # t = .15/(sd/√10), sd of (4·.5, 1·−.5, 5·0) = √((4·.35² + .65² + 5·.15²)/9) = .33747.
    assert sampled["p_value"] == pytest.approx(0.1934, abs=2e-4)
    # Two tests: the smaller p twice, the larger no smaller than that.
    assert found["tests"] == 2
    assert sampled["p_holm"] == pytest.approx(2 * sampled["p_value"])
    assert d["p_holm"] == pytest.approx(max(0.375, sampled["p_holm"]))
    assert one["only_a"] == ["p/1"] and one["only_b"] == ["p/2", "p/3", "p/4", "p/5"]
    # Level 1 holds the even problems: 0, 8 before; 0, 2, 4, 8 after.
    level = one["levels"]["1"]
    assert (level["a"]["mean"], level["b"]["mean"]) == (0.4, 0.8)
    assert (level["num_problems"], level["only_a"], level["only_b"]) == (5, 0, 2)
    assert "right: both 2, only" in said and "neither 3" in said
    assert "+30.0" in said and "0.38" in said and "0.39" in said  # p and Holm's
    assert "p/1, level 2: gold 1" in said and said.count("gold ") == 4  # 3 of the won, 1 lost
    assert "… and 1 more that only" in said
    assert "2 tests in this call: Holm's p is over 2 tests" in said


def test_tokens_of_answers_right_in_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = evaluated(tmp_path / "a.json", BEFORE, greedy_tokens=9)
    b = evaluated(tmp_path / "b.json", AFTER, greedy_tokens=6)
    found, said = run(capsys, tmp_path, a, b)
    known = found["comparisons"][0]["tokens_right_in_both"]
    assert (known["problems"], known["before"], known["after"]) == (2, 9, 6)
    assert "tokens of the 2 answers right in both: 9.0 → 6.0, -3.0 [" in said
    old = evaluated(tmp_path / "old.json", AFTER)
    found, said = run(capsys, tmp_path, a, old)
    assert found["comparisons"][0]["tokens_right_in_both"] is None and "tokens of" not in said


def test_order_of_rows_and_the_other_way_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = evaluated(tmp_path / "a.json", BEFORE), evaluated(tmp_path / "b.json", AFTER)
    forward, _ = run(capsys, tmp_path, a, b)
    content = json.loads(b.read_text())
    content["problems"].reverse()
    b.write_text(json.dumps(content))
    back, _ = run(capsys, tmp_path, b, a)
    for name in ("answers", "pass@1"):
        there, here = (x["comparisons"][0]["tests"][name] for x in (forward, back))
        assert here["a"] == pytest.approx(there["b"]) and here["b"] == pytest.approx(there["a"])
        d, e = there["difference"], here["difference"]
        got = [-e["mean"], -e["high"], -e["low"], e["p_value"]]
        np.testing.assert_allclose(got, [d[k] for k in ("mean", "low", "high", "p_value")])


def test_an_export_beside_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = evaluated(tmp_path / "a.json", BEFORE)
    b = exported(tmp_path / "b.jsonl", [*AFTER[:8], None, AFTER[9]], temperature=0.7)
    found, said = run(capsys, tmp_path, a, b)
    (one,) = found["comparisons"]
    assert one["num_problems"] == 9 and one["left_out_for_errors"] == 1
    assert list(one["tests"]) == ["answers"]  # one side alone was sampled
    test = one["tests"]["answers"]
    assert [test[name] for name in ("both", "only_a", "only_b", "neither")] == [1, 1, 4, 3]
    assert "1 problems skipped: no answer (error)" in said
    assert "decoded at temperature 0," in said and "at 0.7; 0 is greedy" in said
    assert "one test in this call" in said
    exported(b, list(AFTER))
    assert "beware" not in run(capsys, tmp_path, a, exported(b, list(AFTER), 0.0))[1]


def test_a_work_directory_compares_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    workdir.mkdir()
    save(RUN, workdir)
    for name, right in (
        ("sft", BEFORE), ("rl", AFTER), ("teacher", [1] * 10),
    ):  # fmt: skip
        evaluated(workdir / "evaluate" / f"{name}.json", right)
    (workdir / "evaluate" / "settings.json").write_text("{}")
    exported(workdir / "export" / "base_test.jsonl", list(BEFORE), 0.0)
    found, said = run(capsys, tmp_path, "--workdir", workdir)
    pairs = [(c["a"]["name"], c["b"]["name"]) for c in found["comparisons"]]
    assert pairs == [("teacher", "rl"), ("sft", "rl")]
    assert found["tests"] == 4 and "4 tests in this call" in said
    p_values = sorted(
        (t["difference"]["p_value"], t["difference"]["p_holm"])
        for c in found["comparisons"]
        for t in c["tests"].values()
    )
    assert p_values[0][1] == pytest.approx(4 * p_values[0][0])  # over all, not pair by pair
    found, _ = run(capsys, tmp_path, "--workdir", workdir, "base_test", "sft")
    assert found["comparisons"][0]["tests"]["answers"]["difference"]["mean"] == 0
    # Aliases and names mean the same.
    by_name, _ = run(capsys, tmp_path, "--workdir", workdir, "sft", "rl")
    for alias in ("student", "student_after"):
        by_alias, _ = run(capsys, tmp_path, "--workdir", workdir, "student_before", alias)
        assert [by_alias["comparisons"][0][side]["file"] for side in "ab"] == [
            by_name["comparisons"][0][side]["file"] for side in "ab"
        ]
    said = failing(capsys, "--workdir", workdir, "pupil", "teacher")
    assert "has rl, sft, teacher, base_test" in said
    for name in ("sft", "teacher"):
        (workdir / "evaluate" / f"{name}.json").unlink()
    assert "no two results of stage evaluate" in failing(capsys, "--workdir", workdir)


def test_other_problems_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = evaluated(tmp_path / "a.json", BEFORE), evaluated(tmp_path / "b.json", AFTER[:6])
    said = failing(capsys, a, b)
    assert "a.json has 10 problems" in said and "b.json 6: 6 are in both" in said
    assert "add --shared to compare the 6" in said
    found, said = run(capsys, tmp_path, a, b, "--shared")
    assert found["comparisons"][0]["num_problems"] == 6
    assert found["comparisons"][0]["left_out_for_one_side"] == 4
    assert "4 problems skipped: in one result only" in said
    evaluated(b, AFTER, question="Quite another?")
    assert "10 of 10 problems ask something else" in failing(capsys, a, b, "--shared")
    content = json.loads(evaluated(b, AFTER).read_text())
    for problem in content["problems"]:
        problem["id"] += "x"
    b.write_text(json.dumps(content))
    for shared in ([], ["--shared"]):
        said = failing(capsys, a, b, *shared)
        assert "0 are in both" in said and "add --shared" not in said
    failed = exported(tmp_path / "c.jsonl", [None] * 10)
    assert "no problem was answered in both" in failing(capsys, a, failed)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "a.json is not JSON"),
        ("a.json", "[]", "a.json is a list"),
        ("a.json", "{}", "a.json has no list of problems"),
        ("a.json", '{"problems": []}', "a.json has no problems"),
        ("a.json", '{"problems": [3]}', "problem 1 is a int"),
        ("a.json", '{"problems": [{"id": "p", "question": "?"}]}', "greedy_right is None"),
        ("a.jsonl", '{"id": "p", "question": "?", "right": 2}\n', "a.jsonl, line 1: right is 2"),
        ("a.jsonl", '{"question": "?", "right": true}\n', "a.jsonl, line 1: id is None"),
        ("a.jsonl", '{"id": "p", "question": "?", "right": true, "level": "x"}', "level is 'x'"),
        ("a.jsonl", '{"id": "p", "question": "?", "right": true}\n' * 2, "has problem p twice"),
        ("a.jsonl.store", "", "a.jsonl is not complete; fix: run its export again"),
    ],
)
def test_files_that_are_no_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    b = evaluated(tmp_path / "b.json", AFTER)
    assert message in failing(capsys, tmp_path / name.removesuffix(".store"), b)


def test_what_was_asked_for_is_impossible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = evaluated(tmp_path / "a.json", BEFORE)
    assert "nothing to compare; fix: name two results" in failing(capsys)
    assert "1 result named; wanted: two" in failing(capsys, a)
    assert "no result nothing" in failing(capsys, a, "nothing")
    with pytest.raises(SystemExit) as stop:
        compare.main([str(a), str(a), "--json", str(tmp_path / "no" / "such.json")])
    assert stop.value.code == 2 and "cannot write" in capsys.readouterr().err


def test_a_directory_or_a_report_names_the_results_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluates = StageView("evaluate", "evaluate", "evaluate", makes="results")
    views.save(RunView((*RUN.stages[:3], evaluates)), tmp_path)
    other = evaluated(tmp_path / "other" / "a.json", BEFORE)
    said = failing(capsys, tmp_path, other)
    assert f"{tmp_path} is a directory; wanted: a result of stage evaluate" in said
    assert said.endswith("fix: name the file of a result\n")
    made = [evaluated(tmp_path / "evaluate" / f"{name}.json", AFTER) for name in ("base", "rl")]
    made.append(exported(tmp_path / "export" / "rl_test.jsonl", [1]))
    report = tmp_path / "report.md"
    report.write_text("# Report")
    for argv in ((tmp_path, other), (other, tmp_path), (report, other)):
        said = failing(capsys, *argv)
        assert said.endswith(f"fix: name one of {', '.join(map(str, made))}\n")
    assert f"{report} is no result" in said and "delete" not in said
    run(capsys, tmp_path, made[0], made[1])


def test_a_result_of_another_stage_is_found(tmp_path: Path) -> None:
    stages = [StageView(n, "evaluate", n, makes="results") for n in ("evaluate", "later")]
    views.save(RunView((*RUN.stages[:3], *stages)), tmp_path)
    for stage, name in (("evaluate", "sft"), ("evaluate", "rl"), ("later", "rl")):
        folder = tmp_path / stage / name
        folder.mkdir(parents=True)
        (folder / "evaluation_results.json").write_text("{}")
        folder.with_suffix(".json").write_text("{}")
        (tmp_path / stage / "done.json").write_text("{}")
    assert compare_inputs.find("rl", tmp_path) == tmp_path / "later" / "rl.json"
    assert compare_inputs.find("sft", tmp_path) == tmp_path / "evaluate" / "sft.json"
    assert compare_inputs.known(tmp_path) == ["rl", "sft"]
