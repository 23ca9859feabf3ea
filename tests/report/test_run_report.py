import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from configs import presets, reason
from distill_jax.evaluation import intervals
from distill_jax.report import markdown, plots, programs, run_data, run_facts, run_report, tables
from distill_jax.report.panels import Panel
from distill_jax.report.run_data import RunData, StageRecord
from distill_jax.report.sections import Facts
from distill_jax.report.view import RunView, StageView
from distill_jax.run.config import build, to_dict
from tests.report.views import LONG, RUN

CONFIG = json.loads(json.dumps(to_dict(presets.smoke())))


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
    "sft": result(2, 1),
    "rl": result(15, 12),
}


def test_accuracy_by_hand():
    table = tables.accuracy(RESULTS, RUN)
    assert table.header == [
        "model",
        "decoding",
        "all",
        "cut off",
        "level 2",
        "level 10",
    ]  # as numbers
    assert len(table.rows) == 6
    low, high = (100 * x for x in intervals.wilson(2, 20)[1:])
    name = "student after sft (start: base)"
    assert table.rows[2][:3] == [name, "greedy", f"10.0 [{low:.1f}, {high:.1f}]"]
    # Not measured, which is not 0.
    assert table.rows[3][1] == "pass@1 (2 at T=1)" and table.rows[3][5] == "–"
    assert table.rows[2][3] == "10.0%"  # 90% ended with EOS
    limits = {name: {**one, "max_new_tokens": 512} for name, one in RESULTS.items()}
    assert "20 held-out problems with at most 512 new" in tables.accuracy(limits, RUN).caption


def test_the_last_number_has_a_column_where_it_was_read():
    flexible = intervals.wilson(17, 20)._asdict()
    one = RESULTS["rl"]
    read = {**one, "greedy": {**one["greedy"], "flexible": flexible}}
    table = tables.accuracy({"sft": RESULTS["sft"], "rl": read}, RUN)
    assert table.header[2:5] == ["all", "cut off", "last number"]
    cells = [row[4] for row in table.rows]
    assert cells[2].startswith("85.0 [") and cells[:2] == ["–", "–"]  # sft is of an older version


def test_a_report_of_greedy_decoding_alone(tmp_path):
    alone = {name: {**one, "samples": 0, "sampled": None} for name, one in RESULTS.items()}
    for one in alone.values():
        one["problems"] = [{**p, "sampled": [], "sampled_right": []} for p in one["problems"]]
    table = tables.accuracy(alone, RUN)
    assert [row[1] for row in table.rows] == ["greedy"] * 3
    assert set(tables.differences(alone, "sft", "rl")) == {"greedy"}
    mixed = {"sft": RESULTS["sft"], "rl": alone["rl"]}
    assert [row[1] for row in tables.accuracy(mixed, RUN).rows] == [
        "greedy", "pass@1 (2 at T=1)", "greedy",
    ]  # fmt: skip
    assert set(tables.differences(mixed, "sft", "rl")) == {"greedy"}
    assert tables.samples(alone, RUN) is None
    (row,) = tables.checkpoints({5: alone["rl"]}).rows
    assert row[2] == "–"
    assert plots.levels(alone, "sampled", RUN) is None
    (series,) = plots.checkpoints({5: alone["rl"], 10: alone["rl"]}).series
    assert series.label == "greedy"
    text = write(data(results=alone, others={"scores": alone}), tmp_path)
    assert "| student after rl (start: sft) | greedy | 75.0 [" in text and "pass@1 (" not in text
    settings = {"problems": 9, "samples": 0, "temperature": 1.0}
    assert run_facts._evaluation(settings) == "9 problems; greedy"


def test_what_the_model_is_asked_is_in_the_report():
    chat = {"system_prompt": None, "instruction": "Use a box.", "shots": "", "boxed": True}
    assert (
        run_facts._prompt(chat)
        == "after the question: Use a box.; solutions end in: \\boxed{ANSWER}"
    )
    assert run_facts._prompt({}) == "the question"
    config = {**CONFIG, "data": {**CONFIG["data"], "chat": chat}}
    said = "rl by `grpo`. Prompt: after the question: Use a box.; solutions end in"
    assert said in run_facts.lead(dataclasses.replace(data(), config=config))
    assert "Prompt" not in run_facts.lead(data())


def test_a_share_of_bare_answers_is_in_the_report():
    own = {"steps": 3, "batch_size": 4, "optimizer": {"learning_rate": 0.1}}
    plain = "3 steps of 4 rows, learning rate 0.1"
    assert run_facts._training(own) == run_facts._training({**own, "answer_only": 0.0}) == plain
    said = f"{plain}, final answers alone as solutions in 70% of the rows"
    assert run_facts._training({**own, "answer_only": 0.7}) == said


def test_few_problems_are_named():
    # 20 problems: ±1.96/(2·√23.84) = .2007.
    note = tables.few_problems(RESULTS)
    assert note.startswith("With 20 problems ±20 points are noise") and "(now 2)" in note
    many = {name: {**one, "samples": 16} for name, one in RESULTS.items()}
    assert "samples of each" not in tables.few_problems(many)
    assert tables.few_problems({"rl": {**result(1, 1), "num_problems": 1319}}) == ""
    assert tables.few_problems({}) == ""


def test_differences_are_paired():
    got = tables.differences(RESULTS, "sft", "rl")
    # 13 gained, none lost: 2·2^−13.
    np.testing.assert_allclose(got["greedy"].p_value, 2.0**-12)
    np.testing.assert_allclose(got["greedy"].mean, 13 / 20)
    np.testing.assert_allclose(got["pass@1"].mean, 11 / 40)
    lines = tables.difference_lines(RESULTS, RUN)
    assert len(lines) == 2 and lines[0].endswith(", significant")
    after, before = "student after rl (start: sft)", "student after sft (start: base)"
    assert lines[0].startswith(f"{after} against {before}, greedy: +65.0 points [")
    # What sft lost and rl recovered shows against the base.
    with_base = tables.difference_lines({**RESULTS, "base": result(15, 12)}, RUN)
    assert len(with_base) == 6 and with_base[2:4] == lines
    assert with_base[0].startswith(f"{before} against student base, greedy: -65.0 points [")
    assert with_base[4].startswith(f"{after} against student base, greedy: +0.0 points [")
    same = {"sft": result(2, 1), "rl": result(2, 1)}
    found = tables.difference_lines(same, RUN)
    assert found and all("+0.0 points" in x and "not significant" in x for x in found)
    assert tables.differences({"teacher": RESULTS["teacher"]}, "sft", "rl") == {}
    branch = tables.difference_lines({"base": result(2, 1), "distill": result(15, 12)}, LONG)
    assert len(branch) == 2 and branch[0].startswith(
        "student after distill (start: base) against student base, greedy: +65"
    )


def test_results_of_different_problems_are_not_compared():
    other = result(3, 2)
    other["problems"][4]["id"] = "elsewhere"
    with pytest.raises(ValueError, match="different problems"):
        tables.differences({"sft": result(1, 1), "rl": other}, "sft", "rl")


def test_the_console_table_shows_intervals_and_brackets():
    console = Console(width=100, record=True, file=io.StringIO())
    tables.print_accuracy(console, RESULTS, RUN)
    shown = console.export_text()
    assert "20 held-out problems [95% interval]" in shown and "\\" not in shown
    assert "student after rl" in shown and "75.0" in shown
    low, high = (100 * x for x in intervals.wilson(15, 20)[1:])
    assert f"[{low:.1f}, {high:.1f}]" in shown and "base), greedy: +65.0 points" in shown


def data(**changes):
    rows = [{"step": i, "reward": i / 9, "entropy": None if i == 3 else 1.0} for i in range(9)]
    stages = [StageRecord("sft", figures={"steps": 2, "bare_answers": 0.7})]
    given = {"stages": stages, "metrics": {"rl": rows}, "results": RESULTS, **changes}
    return RunData("tiny", RUN, CONFIG, **given)


def write(found, directory):
    markdown.write(run_report.build(found), directory / "report.md", directory / "report")
    return (directory / "report.md").read_text(encoding="utf-8")


def test_the_report_and_its_curves(tmp_path):
    text = write(data(), tmp_path)
    assert "Preset `smoke`, seed 0, data `embedded`, rl by `grpo`." in text
    assert "70% of the rows of stage sft show a bare answer" in text
    assert "| student after rl (start: sft) | greedy | 75.0 [" in text
    assert "![rl](report/rl.png)" in text
    assert "| teacher | greedy | 7.2 | 90.0% | 5.0% |" in text
    assert "- student after sft (start: base) (right): `one ⏎ two 'x' | y`" in text
    png = (tmp_path / "report" / "rl.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 5000
    assert not list(tmp_path.rglob("*.partial"))
    # Every row of a table has as many cells as its head.
    head = next(x for x in text.splitlines() if x.startswith("| model | decoding | all"))
    assert {x.count("|") for x in text.splitlines() if x.startswith("| student")} <= {
        head.count("|"), 6,
    }  # fmt: skip


def test_a_reward_model_stands_beside_constants(tmp_path):
    found = {
        "solutions": 12, "with_error": 5, "too_long": 1, "threshold": 0.25, "f1": 0.5,
        "acc_error": 0.4, "acc_correct": 2 / 3, "steps/auc": 0.754,
        "f1_of_constants": {"all_right": 0.0, "first_wrong": 0.125},
    }  # fmt: skip
    stages = (StageRecord("bench", figures=found), StageRecord("sft"))
    text = write(data(stages=stages), tmp_path)
    assert text.count("## Reward model against labelled steps") == 1
    assert "12 solutions, 5 with an error, 1 too long to be scored" in text
    assert "| the reward model | 0.250 | 0.500 | 0.400 | 0.667 | 0.754 |" in text
    assert "| constant: the first step is wrong |  | 0.125 |  |  | 0.500 |" in text
    del found["steps/auc"]  # steps of one class
    assert "| 0.667 | – |" in write(data(stages=stages), tmp_path)


def test_settings_of_every_kind_are_in_the_report():
    config = json.loads(json.dumps(to_dict(build(reason.get_config("smoke")))))
    stages = tuple(StageView(n, config[n]["kind"], n) for n in config["plan"])
    data = RunData("x", RunView(stages), config, [StageRecord("labels")])
    (facts,) = (
        b.pairs for b in run_facts.blocks(data) if isinstance(b, Facts) and len(b.pairs) > 8
    )
    shown = dict(facts)
    assert shown["labels"].startswith("model distill, data traces, ") and "n 2" in shown["labels"]
    assert "reward_model prm, data errors, threshold_data other_errors" in shown["bench"]
    for part in ("reward_model prm", "problems 4", "attempts 4", "temperature 1", "plain"):
        assert part in shown["solve"]
    assert shown["evaluate"] == "8 problems; greedy, and 2 samples at temperature 1"
    assert "samples 4, temperature 0.8" in shown["traces"] and "greedy" not in shown["traces"]


def test_without_records_there_is_no_curve(tmp_path):
    text = write(data(stages=(), metrics={}, results={"rl": result(1, 1)}), tmp_path)
    assert "bare answer" not in text and "Complete:" not in text
    assert "Learning curves" not in text and "What training changed" not in text
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["levels.png"]


def test_a_kind_that_nobody_knows_is_in_the_report(tmp_path):
    """Panels that a kind declares, or those of its metrics; its student and its checkpoints."""
    toy = StageView("toy_twice", "toy", "toy_twice", "rl", "student")
    rows = [{"step": i, "loss": 1 / i, "learning_rate": 0.1, "surprise": i} for i in (1, 2, 3)]
    results = {**RESULTS, "toy_twice_step_2": result(3, 3), "toy_twice": result(18, 15)}
    found = data(metrics={"toy_twice": rows}, results=results)

    def with_stage(stage):
        view = RunView((*RUN.stages, stage))
        return run_report.build(dataclasses.replace(found, view=view))

    def titles(report):
        (curves,) = [s for s in report.sections if s.id == "curves"]
        return [plot.title for block in curves.blocks[1:] for plot in block.plots]

    assert titles(with_stage(toy)) == ["loss", "learning rate"]
    panel = Panel("surprise of the toy", {"surprise": "bits"})
    declared = dataclasses.replace(toy, panels=(panel,))
    assert titles(with_stage(declared)) == ["surprise of the toy"]
    markdown.write(with_stage(toy), tmp_path / "report.md", tmp_path / "report")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| student after toy_twice (start: rl) | greedy | 90.0 [" in text
    assert "student after toy_twice (start: rl) against student after rl (start: sft)" in text
    assert "## Checkpoints of toy_twice" in text and "(report/toy_twice_checkpoints.png)" in text
    assert "| 0 | 75.0 [" in text and "| 2 | 15.0 [" in text


def test_a_torn_last_line_of_the_metrics_is_dropped(tmp_path: Path) -> None:
    """The process was killed while it wrote its records; the report is written all the same."""
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "run.json").write_text(json.dumps({"config": CONFIG, "starts": []}))
    text = '{"step": 1, "reward": 0.5, "loss": 1.0}\n{"step": 2, "rew'
    (tmp_path / "rl" / "metrics.jsonl").write_text(text)
    found = run_data.read(tmp_path, RUN)
    assert [row["step"] for row in found.metrics["rl"]] == [1]


def test_lengths_of_answers_right_both_times():
    def with_tokens(one, tokens):
        rows = [{**row, "greedy_tokens": tokens} for row in one["problems"]]
        return {**one, "problems": rows}

    some = {"sft": with_tokens(result(5, 1), 9), "rl": with_tokens(result(15, 12), 7)}
    (line,) = tables.length_lines(some, RUN)
    assert "tokens of the 5 greedy answers right both times: 9.0 before, 7.0 after, -2.0 [" in line
    assert tables.length_lines(RESULTS, RUN) == []  # of an earlier version, without tokens


def test_programs_of_another_stage():
    one = result(15, 12)
    for kind, failures in (("greedy", {"error": 2}), ("sampled", {"timeout": 1, "error": 3})):
        shares = {"ran": 0.5, "asserted": 0.25, "hardcoded_rate": None, "failures": failures}
        one[kind] = {**one[kind], "programs": shares}
    report = run_report.build(RunData("x", RUN, results=RESULTS, others={"more": {"rl": one}}))
    (section,) = [section for section in report.sections if section.id == "accuracy-more"]
    assert [row[2:] for row in section.blocks[-1].rows] == [
        ["50.0%", "25.0%", "–", "error 2"], ["50.0%", "25.0%", "–", "timeout 1, error 3"],
    ]  # fmt: skip


def of_task(one, task):
    return {name: {**found, "made_from": {"task": task}} for name, found in one.items()}


def test_two_tasks_on_the_same_problems():
    both = {"rl": result(15, 12), "sft": result(2, 1)}
    text = {"rl": result(10, 12)}
    text["rl"]["problems"] = text["rl"]["problems"][2:]  # two prompts did not fit
    data = RunData("x", RUN, results=of_task(both, "program"))
    assert list(programs.tasks_compared(data)) == []
    data = dataclasses.replace(data, others={"evaluate_text": of_task(text, "text")})
    (section,) = programs.tasks_compared(data)
    (row,) = section.blocks[0].rows
    # Of 18: 13 and 8 right, 12 − 2 samples of two right in both.
    assert row[1] == "18" and row[4].startswith(f"{100 * 5 / 18:.1f} [")
    assert row[2].startswith(f"{100 * 13 / 18:.1f} [") and row[3].startswith(
        f"{100 * 8 / 18:.1f} ["
    )
    assert row[5] == row[6] and row[7].startswith("0.0 [")
    # Another benchmark is another set of problems.
    other = {"rl": {**text["rl"], "benchmark": "aime2024"}}
    data = dataclasses.replace(data, others={"evaluate_text": of_task(other, "text")})
    assert list(programs.tasks_compared(data)) == []
