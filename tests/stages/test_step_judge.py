"""Stage step_judge: votes become the judge's index; its prompts hold no gold answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.stages import runner
from distill_jax.stages.step_judge import STORE_FILE, StepJudgeSettings
from tests.stages.traced import CUT, Scripted, files, plan, read, scripted

R, W = {"right": 3, "wrong": 1, "undecided": 0}, {"right": 0, "wrong": 4, "undecided": 0}
GOLD = "31337"
# Steps, counts of the steps and of the root, the judge's critiques.
SOLUTIONS: dict[str, tuple[list[str], list[Any], Any, list[str]]] = {
    "none": (["one", "two"], [R, R], R, ["\\boxed{-1}", "\\boxed{-1}", "\\boxed{0}"]),
    "same": (["one", "two"], [R, W], R, ["no, \\boxed{1}", "\\boxed{7}", "\\boxed{1}"]),
    "judge": (["one", "two"], [R, R], R, ["\\boxed{1}", "\\boxed{1}" + CUT, "1"]),
    "tie": (["one", "two"], [W, None], R, ["\\boxed{0}", "\\boxed{1}", ""]),
    # Nothing was completed right: counts say nothing of the steps.
    "hopeless": (["one"], [W], W, ["\\boxed{0}"] * 3),
    # A solution that spells a special token, and one that is too long.
    "special": (["one <|im_end|>"], [R], R, []),
    "long": (["one " * 700], [R], R, []),
}
VOTES = {
    "none": [-1, -1, 0], "same": [1, None, 1], "judge": [1, None, None], "tie": [0, 1, None],
    "hopeless": [0, 0, 0], "special": [], "long": [],
}  # fmt: skip
FIRST = {"none": -1, "same": 1, "judge": 1, "tie": None, "hopeless": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return files(tmp_path_factory.mktemp("models"), max_position_embeddings=1024)


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    def replies(prompt: str) -> list[str]:
        return next(value[3] for name, value in SOLUTIONS.items() if f"({name})" in prompt)

    return scripted(monkeypatch, replies)


def write(path: Path, **changes: Any) -> Path:
    rows = [
        {
            "id": name, "question": f"What? ({name})", "answer": GOLD, "steps": steps, "mc": mc,
            "root": root, "kept": name, **changes,
        }
        for name, (steps, mc, root, _) in SOLUTIONS.items()
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(workdir: Path, made: dict[str, Any], data: Path, **changes: Any) -> Any:
    settings = {"samples": 3, "batch": 6, "max_new_tokens": 24, **changes}
    stage = StepJudgeSettings(data=str(data), **settings)
    runner.run(plan({"step_judge": stage}, **made), workdir)
    done = json.loads((workdir / "step_judge" / "done.json").read_text())
    return read(workdir / "step_judge" / "rows.jsonl"), done["figures"]


def test_votes_become_an_index_and_a_table(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl")
    found, figures = run(tmp_path / "run", made, data)
    for row, before in zip(found, read(data), strict=True):
        name = row["id"]
        judge = {"first_wrong": FIRST.get(name), "votes": VOTES[name], "model": "base"}
        assert row == {**before, "judge": judge}
    assert figures == {
        # The row without hope is not compared, the other six are.
        "rows": 7, "unread_rows": 2, "undecided_rows": 3, "agreement": 2 / 6,
        "agreement/both none": 1, "agreement/both the same step": 1, "agreement/judge alone": 1,
        "agreement/undecided by the judge": 3,
    }  # fmt: skip
    assert "first wrong step" in capfd.readouterr().err
    assert len(sampler.prompts) >= 5 and not any(GOLD in prompt for prompt in sampler.prompts)
    # One user's turn, which the solution cannot end.
    assert all(prompt.count("<|im_end|>") == 1 for prompt in sampler.prompts)


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl")
    run(tmp_path / "whole", made, data)
    calls, sampler.calls, sampler.fail_at = sampler.calls, [], 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", made, data)
    run(tmp_path / "cut", made, data)
    assert sampler.calls == calls and len(calls) == 3
    for name in ("rows.jsonl", STORE_FILE):
        one, other = (tmp_path / part / "step_judge" / name for part in ("whole", "cut"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "changes",
    [{"mc": [R]}, {"mc": [R, {"n": 3}]}, {"root": None}, {"question": 3}, {"steps": [1, 2]}],
)
def test_rows_of_another_form_are_refused(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path, changes: Any
) -> None:
    data = write(tmp_path / "rows.jsonl", **changes)
    with pytest.raises(DataError, match=r"rows.jsonl, line 1: .*a row of stage step_labels"):
        run(tmp_path / "run", made, data)


def test_no_room_for_any_row_is_an_error(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="the judge has room for none of 7 rows"):
        run(tmp_path / "run", made, data, max_new_tokens=1024)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="samples=8 with temperature=0"):
        StepJudgeSettings(temperature=0.0)
    with pytest.raises(ConfigError, match="data is empty"):
        StepJudgeSettings(data="")
    assert "sampling.max_new_tokens" not in StepJudgeSettings().shared()
