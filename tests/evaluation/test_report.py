import io
import json

import numpy as np
import pytest
from rich.console import Console

from distill_jax.evaluation import curves, intervals, report

CONFIG = {
    "preset": "tiny",
    "seed": 3,
    "data": {"source": "embedded"},
    "rl": {"algorithm": "grpo"},
}


def result(right, sampled):
    """An evaluation of 20 problems, the first `right` of which greedy decoding solves."""
    problems = [
        {
            "id": f"p{i}",
            "question": f"What is {i}?",
            "answer": str(i),
            "greedy": "one\ntwo `x` | y",
            "greedy_right": i < right,
            "sampled": ["a", "b"],
            "sampled_right": [i < sampled, False],
        }
        for i in range(20)
    ]
    wilson = intervals.wilson(right, 20)._asdict()
    shares = {"mean_length": 7.25, "terminated": 0.9, "undecided": 0.05}
    return {
        "num_problems": 20,
        "samples": 2,
        "temperature": 1.0,
        "greedy": {"accuracy": wilson, "levels": {"10": wilson, "2": wilson}, **shares},
        "sampled": {"pass@1": wilson, "levels": {"2": wilson}, **shares},
        "problems": problems,
    }


RESULTS = {
    "teacher": result(19, 18),
    "student_before": result(2, 1),
    "student_after": result(15, 12),
}


def test_rows_by_hand():
    header, cells = report.rows(RESULTS)
    assert header == ["model", "decoding", "all", "level 2", "level 10"]  # as numbers
    assert len(cells) == 6
    low, high = (100 * x for x in intervals.wilson(2, 20)[1:])
    assert cells[2][:3] == ["student before RL", "greedy", f"10.0 [{low:.1f}, {high:.1f}]"]
    assert cells[3][1] == "pass@1 (2 at T=1)" and cells[3][4] == "–"  # not measured, not 0


def test_differences_are_paired_and_told():
    got = report.differences(RESULTS, "student_before")
    # 13 gained, none lost: 2·2^−13.
    np.testing.assert_allclose(got["greedy"].p_value, 2.0**-12)
    np.testing.assert_allclose(got["greedy"].mean, 13 / 20)
    np.testing.assert_allclose(got["pass@1"].mean, 11 / 40)
    lines = report.difference_lines(RESULTS)
    assert len(lines) == 2 and lines[0].endswith(", significant")
    assert lines[0].startswith("student after RL against student before RL, greedy: +65.0 points [")
    # What sft spoilt and RL won back shows against the base.
    with_base = report.difference_lines({**RESULTS, "student_base": result(15, 12)})
    assert len(with_base) == 4 and with_base[:2] == lines
    assert with_base[2].startswith("student after RL against student base, greedy: +0.0 points [")
    same = {"student_before": result(2, 1), "student_after": result(2, 1)}
    assert all("+0.0 points" in x and "not significant" in x for x in report.difference_lines(same))
    assert report.differences({"teacher": RESULTS["teacher"]}, "student_before") == {}
    distilled = {"student_base": result(2, 1), "student_distilled": result(15, 12)}
    told = report.difference_lines(distilled)
    assert len(told) == 2 and told[0].startswith(
        "student distilled against student base, greedy: +65"
    )


def test_results_of_different_problems_are_not_compared():
    other = result(3, 2)
    other["problems"][4]["id"] = "elsewhere"
    with pytest.raises(ValueError, match="different problems"):
        report.differences(
            {"student_before": result(1, 1), "student_after": other}, "student_before"
        )


def test_the_console_table_shows_intervals_and_brackets():
    console = Console(width=100, record=True, file=io.StringIO())
    report.print_table(console, RESULTS)
    shown = console.export_text()
    assert "20 held-out problems [95% interval]" in shown and "\\" not in shown
    assert "student after RL" in shown and "75.0" in shown
    low, high = (100 * x for x in intervals.wilson(15, 20)[1:])
    assert f"[{low:.1f}, {high:.1f}]" in shown and "RL, greedy: +65.0 points" in shown


def test_the_report_and_its_curves(tmp_path):
    stage = tmp_path / "rl"
    stage.mkdir()
    rows = [{"step": i, "reward": i / 9, "entropy": None if i == 3 else 1.0} for i in range(9)]
    (stage / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (tmp_path / "sft").mkdir()
    done = json.dumps({"figures": {"steps": 2, "bare_answers": 0.7}})
    (tmp_path / "sft" / "done.json").write_text(done, encoding="utf-8")
    report.write(tmp_path, RESULTS, CONFIG)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Preset `tiny`, seed 3, data `embedded`, algorithm `grpo`." in text
    assert "70% of the rows of stage sft show a bare answer" in text
    assert "| student after RL | greedy | 75.0 [" in text and "![rl](report/rl.png)" in text
    assert "| teacher | greedy | 7.2 | 90.0% | 5.0% |" in text
    assert "- student before RL (right): `one ⏎ two 'x' | y`" in text
    png = (tmp_path / "report" / "rl.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 5000
    assert not (tmp_path / "report.md.partial").exists()
    # Every row of a table has as many cells as its head.
    head = next(x for x in text.splitlines() if x.startswith("| model | decoding | all"))
    assert {x.count("|") for x in text.splitlines() if x.startswith("| student")} <= {
        head.count("|"), 6,
    }  # fmt: skip


def test_without_records_there_is_no_curve(tmp_path):
    assert curves.draw_curves(tmp_path, tmp_path / "report") == []
    report.write(tmp_path, {"student_after": result(1, 1)}, CONFIG)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "bare answer" not in text
    assert "Learning curves" not in text and "What training changed" not in text
