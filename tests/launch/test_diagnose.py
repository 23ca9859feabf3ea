import json

import pytest

from distill_jax.report.view import save
from launch import diagnose
from tests.report.views import LONG, RUN

ROWS = [{"step": 0, "eval/accuracy": 0.1}] + [
    {"step": i, "accuracy": i / 40, "reward": 0.1, "completions/clipped_ratio": 0.9, "skipped": 0}
    for i in range(1, 31)
]


def write(directory, rows, name="metrics.jsonl"):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


FIRST = {"completions": 16, "completions/clipped_ratio": 0.0, "completions/other_end_ratio": 0.5}


@pytest.fixture
def workdir(tmp_path):
    write(tmp_path / "run" / "rl", ROWS)
    save(RUN, tmp_path / "run")
    texts = [{"step": 1, "completion": f"{i} [red]#### {i}", "reward": 1.0} for i in range(40)]
    write(tmp_path / "run" / "rl", texts, "completions.jsonl")
    (tmp_path / "run" / "rl" / "first_rollout.json").write_text(json.dumps(FIRST))
    return tmp_path / "run"


@pytest.mark.parametrize("part", ["", "rl"])
def test_prints_a_table_and_writes_the_same(workdir, part, tmp_path, capsys):
    target = tmp_path / "found.json"
    diagnose.main([str(workdir / part), "--json", str(target)])
    out = capsys.readouterr().out
    # A row of the table: what and status may go on below, up to the next rule.
    said = {}
    for block in out.replace("┡", "├").split("├")[1:]:
        cells = [line.split("│")[1:3] for line in block.splitlines() if line.count("│") == 4]
        what, status = (" ".join(" ".join(column).split()) for column in zip(*cells, strict=True))
        said[what] = status
    found = json.loads(target.read_text())
    assert found["directory"] == str(workdir / "rl")
    assert {f["what"]: f["status"] for f in found["findings"]} == said
    assert said["reward"] == "ok" and said["truncated"] == "bad"
    assert said["first rollout"] == "look" and "another end token" in " ".join(out.split())
    assert "sampling.max_new_tokens" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "run"]


def test_a_run_without_completions_and_with_a_torn_last_line(workdir, capsys):
    (workdir / "rl" / "completions.jsonl").unlink()
    with (workdir / "rl" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "accu')
    diagnose.main([str(workdir)])
    assert "no completions were written" in " ".join(capsys.readouterr().out.split())


def failing(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        diagnose.main(argv)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("DataError: ")
    return said.err


def test_errors_in_one_line(tmp_path, workdir, capsys):
    assert "no metrics.jsonl in" in failing([str(tmp_path)], capsys)
    write(tmp_path / "sft", [{"step": 1, "loss": 2.0}])
    assert "no row with a reward" in failing([str(tmp_path / "sft")], capsys)
    write(tmp_path / "torn", [ROWS[1]])
    (tmp_path / "torn" / "metrics.jsonl").write_text('{"step"\n{"step": 1}\n')
    assert "line 1" in failing([str(tmp_path / "torn")], capsys)
    missing = str(tmp_path / "no" / "such.json")
    assert "cannot write" in failing([str(workdir), "--json", missing], capsys)


def test_the_last_stage_with_a_reward_is_looked_at(workdir, tmp_path, capsys):
    save(LONG, workdir)
    write(workdir / "rl_short", [{**row, "reward": 0.2} for row in ROWS[1:]])
    write(workdir / "distill", [{"step": 1, "loss": 2.0}])
    target = tmp_path / "found.json"
    for named, stage, start in (("", "rl_short", "rl"), ("rl", "rl", "sft")):
        diagnose.main([str(workdir / named), "--json", str(target)])
        found = json.loads(target.read_text())
        assert found["directory"] == str(workdir / stage)
        (cut_off,) = [f for f in found["findings"] if f["what"] == "truncated"]
        assert {f"{stage}.mask_truncated", f"{start}.steps"} <= set(cut_off["suggestions"])
    capsys.readouterr()
