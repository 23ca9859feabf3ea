"""launch.report: wrong input ends with one line; a run is read in tests/stages."""

from pathlib import Path

import pytest

from launch import report

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ["--config=configs/rl.py:smoke", "--config.rl.steps=2"]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(report, "start_compilation_cache", lambda directory: None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DataError: no stage has begun in "),
        (["--problems=3"], "DataError: no stage has begun in "),
        (["--problems=-1"], "ConfigError: --problems=-1; wanted: 0 or more"),
    ],
)
def test_wrong_input_ends_with_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        report.main([f"--workdir={tmp_path}", *arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
