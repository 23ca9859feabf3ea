"""launch.synthesise: its flags, kill -9 and the same command again, a full disk in one line."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import EXIT_INTERRUPTED, ConfigError
from distill_jax.core.files import write_json
from distill_jax.run.config import to_dict
from distill_jax.stages import runner, synthesis_settings
from distill_jax.stages.synthesis_settings import SynthesisSettings
from distill_jax.synthesis.settings import EndpointSettings
from launch import arguments
from tests.stages.small import environment
from tests.stages.traced import plan, read
from tests.synthesis.scripted import Say, serving

pytestmark = pytest.mark.slow

SECRET = "sk-launch-0123456789"
QUESTIONS = [{"id": f"q/{i}", "question": f"What is {i} plus 100?", "answer": f"{i + 100}"}
             for i in range(8)]  # fmt: skip


def script(body: dict[str, Any], before: int) -> Say:
    number = int(body["messages"][-1]["content"].split()[2])
    return Say(f"#### {number + 100}", delay_s=0.1)


def command(workdir: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "launch.synthesise", f"--workdir={workdir}", *flags]


def start(argv: list[str], **variables: str) -> subprocess.Popen[str]:
    env = {**environment(), "OPENAI_API_KEY": SECRET, **variables}
    return subprocess.Popen(
        argv,
        env=env,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """With a config, as a command without --config needs it."""
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in QUESTIONS))
    # One at a time, so that of a killed process one answer is lost at most.
    endpoint = {"pace": {"concurrency": 1}, "max_tokens": 32}
    config = to_dict(plan({"synthesis": SynthesisSettings()}, data__max_prompt_tokens=128))
    config["synthesis"]["endpoint"] |= endpoint
    write_json(tmp_path / "run" / "config.json", config)
    return tmp_path / "run"


def test_killed_and_started_again_it_ends_with_the_rows(workdir: Path) -> None:
    with serving(script) as server:
        argv = command(
            workdir, "--model=big", f"--questions={workdir.parent / 'questions.jsonl'}",
            "--samples=1", "--json", f"--config.synthesis.endpoint.base_url={server.url}",
        )  # fmt: skip
        process = start(argv)
        deadline = time.monotonic() + 120
        while sum(server.sold.values()) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        out, errors = (again := start(argv)).communicate(timeout=240)
        assert again.returncode == 0, errors
        assert sorted(server.sold.values())[:-1] == [1] * 7 and max(server.sold.values()) <= 2
        assert {row["model"] for row in server.bodies} == {"big"}
    figures = json.loads(out)
    assert figures["verified"] == 8 and figures["cost"] is None
    rows = read(workdir / "synthesis" / "teacher_verified.jsonl")
    assert [(row["id"], row["answer"]) for row in rows] == [
        (one["id"], one["answer"]) for one in QUESTIONS
    ]
    assert "verified solutions: " in errors and SECRET not in out + errors
    left = [path.read_bytes() for path in workdir.rglob("*") if path.is_file()]
    assert left and not any(SECRET.encode() in text for text in left)


def test_a_full_disk_is_one_line_and_the_same_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    with serving(script) as server:
        s = SynthesisSettings(
            writer="endpoint", questions=str(questions), samples=1,
            endpoint=EndpointSettings(model="big", base_url=server.url, max_tokens=32),
        )  # fmt: skip
        config = plan({"synthesis": s}, data__max_prompt_tokens=128)
        with monkeypatch.context() as patch:
            real, calls = os.fsync, []

            def fsync(number: int) -> None:
                calls.append(number)
                if len(calls) > 5:
                    raise OSError(errno.ENOSPC, "No space left on device")
                real(number)

            patch.setattr(os, "fsync", fsync)
            with pytest.raises(SystemExit) as ended, arguments.OneLine() as guard:
                guard.directory = tmp_path / "run"
                runner.run(config, tmp_path / "run")
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("DiskFullError: the disk is full") and "the same command" in last
        assert ended.value.code == 1 != EXIT_INTERRUPTED
        runner.run(config, tmp_path / "run")
    assert len(read(tmp_path / "run" / "synthesis" / "teacher_verified.jsonl")) == 8


def test_flags_change_the_settings_of_the_plan() -> None:
    mine = SynthesisSettings(samples=2, agree=5)
    endpoint = synthesis_settings.changed(mine, model="big", base_url="http://h/v1", samples=3)
    assert (endpoint.writer, endpoint.samples, endpoint.agree) == ("endpoint", 3, 5)
    assert (endpoint.endpoint.model, endpoint.endpoint.base_url) == ("big", "http://h/v1")
    file = synthesis_settings.changed(endpoint, answers="a.jsonl", questions=None, problems=7)
    assert (file.writer, file.answers, file.problems) == ("file", "a.jsonl", 7)
    assert synthesis_settings.changed(file, model="m").answers == ""
    assert synthesis_settings.changed(mine) == mine
    with pytest.raises(ConfigError, match="model=m with answers=a"):
        synthesis_settings.changed(mine, model="m", answers="a")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        # Without --model the teacher writes.
        ({"base_url": "http://h/v1"}, "endpoint.base_url='http://h/v1' with writer='teacher'"),
        ({"answers": "a.jsonl", "samples": 3}, "samples=3 with writer='file'"),
    ],
)
def test_a_flag_that_nothing_reads_is_refused(flags: dict[str, Any], message: str) -> None:
    # The plan's own settings of another writer are not.
    mine = SynthesisSettings(samples=2, endpoint=EndpointSettings(model="m", max_tokens=32))
    with pytest.raises(ConfigError) as error:
        synthesis_settings.changed(mine, **flags)
    assert str(error.value).startswith(message)
