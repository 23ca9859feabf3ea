"""Two versions of a small program, in a git repository of their own, compared for real."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from launch.bench import outputs, same_bits
from launch.bench.outputs import DIFFERS, ONLY_NEW, ONLY_OLD, SAME, Rules, compare, first_difference

# A stand-in for launch/main.py: what it writes depends on VALUE, on the clock and on its workdir.
PROGRAM = """
import json, sys, time
from pathlib import Path
VALUE = 1
workdir = Path(sys.argv[2].removeprefix("--workdir="))
(workdir / "sft").mkdir(parents=True)
if VALUE == 0:
    sys.exit("VALUE is 0")
(workdir / "sft" / "metrics.jsonl").write_text(
    json.dumps({"step": 1, "loss": VALUE, "step_time": time.time()}) + "\\n")
(workdir / "sft" / "done.json").write_text(str(time.time()))
(workdir / "config.txt").write_text(" ".join(sys.argv[1:2] + sys.argv[3:]))
(workdir / "ran.jsonl").write_text("")
"""


def write_run(root: Path) -> Path:
    (root / "rl" / "adapter").mkdir(parents=True)
    (root / "evaluate").mkdir()
    arrays = {"a": np.arange(4, dtype=np.float32), "b": np.ones(2, np.float32)}
    save_file(arrays, root / "rl" / "adapter" / "adapter_model.safetensors")
    lines = [{"step": 1, "loss": 0.5, "step_time": 1.0}, {"step": 2, "loss": 0.25}]
    (root / "rl" / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    answers = [{"made_from": {"teacher": "af"}}, {"decoding": "greedy", "tokens": [[1, 2]]}]
    text = "".join(json.dumps(x) + "\n" for x in answers)
    (root / "evaluate" / "student_before.checkpoint.jsonl").write_text(text)
    info = {"base_model": f"{root}/pretrain/model", "training_date": str(root.stat().st_mtime_ns)}
    (root / "rl" / "adapter" / "model_info.json").write_text(json.dumps(info))
    (root / "rl" / "done.json").write_text(json.dumps({"seconds": root.stat().st_mtime_ns}))
    return root


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "old"), write_run(tmp_path / "new")


def statuses(old: Path, new: Path, **rules) -> dict[str, str]:
    return {x.path: x.status for x in compare(old, new, Rules(**rules)) if x.status != SAME}


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_times_dates_and_the_own_path_do_not_count(runs):
    old, new = runs
    edit(new / "rl" / "metrics.jsonl", '"step_time": 1.0', '"step_time": 2.0')
    edit(new / "evaluate" / "student_before.checkpoint.jsonl", '"af"', '"b0"')
    assert statuses(old, new) == {}
    assert len(compare(old, new, Rules())) == 4


@pytest.mark.parametrize(
    ("file", "before", "after", "detail"),
    [
        ("rl/metrics.jsonl", "0.25", "0.250000001", "[1].loss: 0.25, now 0.250000001"),
        ("rl/metrics.jsonl", '"step": 2', '"step": 2, "kl": 0', "[1].kl only in NEW"),
        ("rl/metrics.jsonl", '"step": 2', '"step": 2.0', "[1].step: 2, now 2.0"),
        ("evaluate/student_before.checkpoint.jsonl", "[1, 2]", "[1, 3]", "[1].tokens[0][1]"),
        ("rl/adapter/model_info.json", "/pretrain/model", "/other", "base_model"),
    ],
)
def test_one_other_value_is_found(runs, file, before, after, detail):
    old, new = runs
    edit(new / file, before, after)
    found = [x for x in compare(old, new, Rules()) if x.status != SAME]
    assert [(x.path, x.status) for x in found] == [(file, DIFFERS)]
    assert detail in found[0].detail


def test_a_row_less_is_found(runs):
    old, new = runs
    path = new / "rl" / "metrics.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert statuses(old, new) == {"rl/metrics.jsonl": DIFFERS}


def test_one_bit_of_a_weight_is_found(runs):
    old, new = runs
    path = new / "rl" / "adapter" / "adapter_model.safetensors"
    bytes_ = bytearray(path.read_bytes())
    bytes_[-1] ^= 1
    path.write_bytes(bytes(bytes_))
    (found,) = [x for x in compare(old, new, Rules()) if x.status != SAME]
    assert (found.status, found.detail[:2]) == (DIFFERS, "b:")


def test_files_of_one_side_are_differences_unless_named(runs):
    old, new = runs
    (new / "rl" / "more.json").write_text("{}")
    (old / "evaluate" / "student_before.json").write_text("{}")
    name = new / "evaluate" / "student_before.checkpoint.jsonl"
    name.rename(new / "evaluate" / "sft.checkpoint.jsonl")
    assert statuses(old, new) == {
        "rl/more.json": ONLY_NEW,
        "evaluate/student_before.json": ONLY_OLD,
        "evaluate/student_before.checkpoint.jsonl": ONLY_OLD,
        "evaluate/sft.checkpoint.jsonl": ONLY_NEW,
    }
    left = statuses(
        old,
        new,
        ignored=(*outputs.RECORDS, "*/more.json"),
        renamed=[("evaluate/student_before", "evaluate/sft")],
    )
    assert left == {"evaluate/sft.json": ONLY_OLD}


@pytest.mark.parametrize("pair", [(1, 1.0), (1, True), (None, 0), ("a", "b"), ([], {})])
def test_values_of_other_types_differ(pair):
    assert first_difference({"x": pair[0]}, {"x": pair[1]})


# --- the command ------------------------------------------------------------------------------


def commit(folder: Path, value: int) -> str:
    text = PROGRAM.replace("VALUE = 1", f"VALUE = {value}")
    (folder / "launch" / "main.py").write_text(text)
    for arguments in (["add", "-A"], ["commit", "-q", "--allow-empty", "-m", str(value)]):
        who = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", "-C", folder, *who, *arguments], check=True)
    return same_bits.git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repository"
    (root / "launch").mkdir(parents=True)
    (root / "launch" / "__init__.py").write_text("")
    (root / ".gitignore").write_text("__pycache__/\n")
    subprocess.run(["git", "init", "-q", root], check=True)
    monkeypatch.setattr(same_bits, "ROOT", root)
    return root


def code_of(*arguments: str) -> int:
    try:
        same_bits.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_two_revisions_and_a_checkout(repository, tmp_path, capsys):
    one, other = commit(repository, 1), commit(repository, 2)
    same = commit(repository, 1)
    assert code_of(one, same, "--configs=rl,sft", "--tiny") == 0
    out = capsys.readouterr().out
    assert "rl:smoke" in out and "sft:smoke" in out and "rl:tiny" in out
    assert code_of(one, other, "--configs=rl") == 1
    assert "[0].loss: 1, now 2" in capsys.readouterr().out
    assert code_of(str(repository), one, "--configs=rl") == 0
    # Nothing is left of the worktrees.
    assert len(same_bits.git(repository, "worktree", "list").splitlines()) == 1
    assert same_bits.git(repository, "status", "--porcelain") == ""


def test_finished_runs_of_old_are_reused_and_only_those_of_its_commit(repository, tmp_path, capsys):
    one, other = commit(repository, 1), commit(repository, 2)
    kept = tmp_path / "kept"
    arguments = (one, "--configs=rl", f"--old_runs={kept}")
    assert code_of(arguments[0], one, *arguments[1:]) == 0
    (kept / "rl_smoke" / "ran.jsonl").write_text('{"kept": 1}\n')
    assert code_of(arguments[0], one, *arguments[1:]) == 1  # it was not run again
    capsys.readouterr()
    assert code_of(other, one, *arguments[1:]) == 2
    assert "was made by" in capsys.readouterr().err
    assert code_of(one, one, *arguments[1:], "--set=seed=1") == 2
    assert "was made by" in capsys.readouterr().err


def test_settings_are_given_to_both(repository, tmp_path):
    one = commit(repository, 1)
    kept = [f"--{side}_runs={tmp_path / side}" for side in ("old", "new")]
    assert code_of(one, one, "--configs=rl", "--set=seed=1", *kept) == 0
    for side in ("old", "new"):
        assert (tmp_path / side / "rl_smoke" / "config.txt").read_text().endswith("--config.seed=1")


def test_what_cannot_be_compared_is_said_in_one_line(repository, tmp_path, capsys):
    one, broken = commit(repository, 1), commit(repository, 0)
    for arguments, said in (
        ((one, broken, "--configs=rl"), "VALUE is 0"),
        ((one, "no_such_revision"), "no_such_revision is no directory and no revision"),
        ((one, str(tmp_path)), "has no launch/main.py"),
        ((one, one, "--rename=x"), "--rename=x"),
    ):
        assert code_of(*arguments) == 2
        err = capsys.readouterr().err
        assert said in err and len(err.strip().splitlines()) == 1
