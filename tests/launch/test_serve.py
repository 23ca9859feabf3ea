"""The command: what it refuses, and a process that ends when asked to."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_jax.core.files import write_json
from distill_jax.run.config import to_dict
from distill_jax.serving import server
from launch import serve
from tests.launch.conftest import Run
from tests.serving.endpoint import wait
from tests.stages.hf import write_model
from tests.stages.small import ROOT, environment

pytestmark = pytest.mark.slow

BODY = {
    "model": "little", "messages": [{"role": "user", "content": "2 and 3?"}], "temperature": 0,
    "max_tokens": 1500, "stream": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("serve")
    return write_model(root / "little", rows=320, noise=0.3, max_position_embeddings=2048)


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command and its port."""
    made = subprocess.Popen(
        [sys.executable, "-m", "launch.serve", "--port=0", *arguments],
        cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert made.stderr is not None
        for line in made.stderr:
            if found := re.search(r"serving \S+ at http://127\.0\.0\.1:(\d+)/v1", line):
                yield made, int(found[1])
                return
        raise AssertionError("it ended")
    finally:
        made.kill()
        made.communicate()


def ended(made: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = made.communicate(timeout=120)
    return made.returncode, errors


def test_sigterm_lets_answers_finish_and_exits_0(model: Path) -> None:
    arguments = (f"--model={model}", "--prompt_tokens=64", "--new_tokens=1500", "--rows=1")
    with process(*arguments) as (made, port):
        lines = [http.client.HTTPConnection("127.0.0.1", port, timeout=120) for _ in range(2)]
        for line in lines:  # one is drawn, one waits
            line.request("POST", "/v1/chat/completions", json.dumps(BODY))
        answers = [lines[0].getresponse()]
        answers[0].readline()
        made.send_signal(signal.SIGTERM)
        wait(lambda: refused(port))
        answers.append(lines[1].getresponse())
        for answer in answers:
            text = answer.read().decode()
            assert text.endswith("data: [DONE]\n\n") and '"finish_reason": "length"' in text
        code, errors = ended(made)
    assert code == 0 and "Traceback" not in errors and "stopping: " in errors


def refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return False
    except ConnectionRefusedError:
        return True


def test_ctrl_c_twice_waits_for_nobody(model: Path) -> None:
    with process(f"--model={model}", "--prompt_tokens=64", "--new_tokens=1500") as (made, port):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        line.request("POST", "/v1/chat/completions", json.dumps({**BODY, "n": 8}))
        line.getresponse().readline()
        made.send_signal(signal.SIGINT)
        wait(lambda: refused(port))
        made.send_signal(signal.SIGINT)
        assert ended(made)[0] == 130


def test_a_student_of_a_run_by_its_config(random_run: Run) -> None:
    """Its limits are the run's, and bad input leaves no traceback in the log."""
    saved = random_run.workdir / "config.json"
    write_json(saved, to_dict(random_run.opened().config))
    try:
        with process(f"--workdir={random_run.workdir}") as (made, port):
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            line.request("GET", "/v1/models")
            (one,) = json.loads(line.getresponse().read())["data"]
            assert one["id"] == "sft"
            for raw in (b"{", b'{"model": "sft", "max_tokens": 7}', b"\xff"):
                line.request("POST", "/v1/chat/completions", raw)
                answer = line.getresponse()
                assert answer.status == 400 and b"error" in answer.read()
            with socket.create_connection(("127.0.0.1", port)) as raw_line:
                raw_line.sendall(b"no http at all\r\n\r\n")
                assert b"400" in raw_line.recv(100)
            line.close()
            made.send_signal(signal.SIGTERM)
            code, errors = ended(made)
    finally:
        saved.unlink()
    assert code == 0 and "Traceback" not in errors


def test_what_is_refused_in_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(serve.main_job, "start_compilation_cache", lambda directory: None)
    monkeypatch.delenv("NO_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in (
            ([], "ConfigError: neither --workdir nor --model"),
            (["--model=x", "--port=70000"], "ConfigError: --port=70000"),
            (["--model=x", "--rows=0"], "ConfigError: --rows=0; wanted: 1 or more"),
            (["--model=x", "--key_variable=NO_KEY"], "ConfigError: --key_variable=NO_KEY: the"),
            ([f"--model={tmp_path / 'none'}"], "CheckpointError: no directory"),
            ([f"--workdir={tmp_path}"], "DataError: no config.json in"),
            ([f"--model={model}", "--new_tokens=9999"], "together at most the model's 2048"),
            ([f"--model={model}", f"--port={port}"], "ConfigError: cannot listen at 127.0.0.1:"),
        ):
            with pytest.raises(SystemExit) as stop:
                serve.main(arguments)
            err = capsys.readouterr().err
            assert stop.value.code == 2 and said in err and err.count("\n") == 1, err


def test_a_model_without_chat_template_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(serve.main_job, "start_compilation_cache", lambda directory: None)
    monkeypatch.setattr(server, "run", lambda *_: 0)
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    note = "has no chat template: prompts are ChatML (<|im_start|>user … <|im_end|>); for another"
    for directory, count in ((model, 0), (bare, 1)):
        with pytest.raises(SystemExit) as stop:
            serve.main([f"--model={directory}"])
        assert stop.value.code == 0
        assert capsys.readouterr().err.count(f"{directory} {note}") == count


def test_without_the_extra_it_is_named(model: Path) -> None:
    program = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "uvicorn" else find(name, *more)
from launch import serve
serve.main(["--model=x"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "MissingExtraError: serving needs the package uvicorn" in done.stderr
    assert "pip install -e '.[serve]'" in done.stderr
