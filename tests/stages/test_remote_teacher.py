"""Stage rl with a teacher behind a server on loopback that serves a tiny model's true scores."""

import contextlib
import functools
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core import sharding, unread
from distill_jax.core.errors import ConfigError, EndpointError
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.run.run import Run
from distill_jax.stages import checks, remote_teacher, runner
from distill_jax.stages import teacher as teachers
from distill_jax.stages.kinds import KINDS
from distill_jax.training.records import read_rows
from tests.forecast.test_kinds import job
from tests.stages.hf import random_pair
from tests.stages.small import rows, small, weights
from tests.stages.test_teacher import batch
from tests.synthesis.buyer import SECRET
from tests.synthesis.scoring import script, tokens_of
from tests.synthesis.scripted import Say, Script, Server, serving

pytestmark = pytest.mark.slow

LONGEST = 96
ENDPOINT = "rl__teacher__endpoint__"
FAST = {
    "retry__backoff_s": 0.02, "retry__longest_backoff_s": 0.1, "retry__attempts": 200,
    "deadline_s": 60.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        **random_pair(tmp_path_factory.mktemp("remote")),
        "rl__eval_every": 0,
        "rl__batch_multiple": 8,
        "checkpoint__every": 1,
    }


@pytest.fixture(scope="module")
def true(how: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Script:
    """The teacher's own log-probabilities, computed row by row."""
    run = Run(small(**how), tmp_path_factory.mktemp("true"))
    loaded = run.models.load("teacher")
    scorer = TeacherScorer(loaded.model, loaded.params, run.mesh, alpha=1.0, vocab=run.data.vocab)
    lock = threading.Lock()

    @functools.cache
    def of(tokens: tuple[int, ...]) -> list[float]:
        row = np.zeros((1, LONGEST), np.int32)
        row[0, : len(tokens)] = tokens
        one, n = np.ones(1, np.int32), np.array([len(tokens) - 1], np.int32)
        read = {"tokens_BT": row, "prompt_len_B": one, "response_len_B": n,
                "targets_BR": row[:, 1:]}  # fmt: skip
        with lock:
            scores = sharding.fetch(scorer.score(read))
        return list((scores.q_BR - scores.value_BR)[0, : len(tokens) - 1])

    return script(
        lambda tokens: of(tuple(tokens)), lambda token: run.data.tokenizer.decode([token])
    )


def remote(how: dict[str, Any], url: str, **changes: Any) -> dict[str, Any]:
    """Settings of a run whose teacher is the server's; it has no teacher of its own."""
    endpoint = {"base_url": url, "model": "big", **FAST, **changes}
    own = {f"{ENDPOINT}{name}": value for name, value in endpoint.items()}
    return {**how, **own, "teacher__path": "", "rl__teacher__source": "endpoint"}


@pytest.fixture(scope="module")
def whole(how: dict[str, Any], true: Script, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    with serving(true) as server:
        runner.run(small(**remote(how, server.url)), workdir)
    return workdir


def test_scores_are_the_local_teachers(how: dict[str, Any], true: Script, tmp_path: Path) -> None:
    run = Run(small(**how), tmp_path)
    start, host = run.load_student("base"), batch(run)
    inside = np.arange(16) < host["response_len_B"][:, None]
    own = teachers.scorer(run, run.stage("rl").settings, start).score(host)
    with serving(true) as server:
        for api, url in (("vllm", server.url), ("sglang", server.url.removesuffix("/v1"))):
            other = Run(small(**remote(how, url, api=api)), tmp_path)
            made = teachers.scorer(other, other.stage("rl").settings, start)
            assert isinstance(made, remote_teacher.RemoteTeacher)
            found = made.score(host)
            made.close()
            logp = np.asarray(own.q_BR - own.value_BR)
            np.testing.assert_allclose(found.q_BR[inside], logp[inside], atol=1e-4)
            assert not np.any(found.value_BR) and not np.any(np.asarray(found.q_BR)[~inside])


def test_stage_rl_pays_as_with_the_local_teacher(
    how: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    runner.run(small(**how), tmp_path)
    close(whole, tmp_path)


def test_with_ppo_and_a_prompt_of_its_own(
    how: dict[str, Any], true: Script, tmp_path: Path
) -> None:
    more = {
        "rl__algorithm": "ppo",
        "rl__teacher__prompt": "{question} {answer}",
        "rl__teacher__max_prompt_tokens": 64,
        "rl__cache__megabytes": 1.0,
    }
    with serving(true) as server:
        runner.run(small(**remote(how, server.url), **more), tmp_path / "remote")
    runner.run(small(**how, **more), tmp_path / "local")
    close(tmp_path / "remote", tmp_path / "local")


def close(got: Path, wanted: Path) -> None:
    names = ("rewards/intrinsic/mean", "reward", "accuracy", "loss")
    for one, other in zip(rows(got, "rl"), rows(wanted, "rl"), strict=True):
        for name in names:
            np.testing.assert_allclose(one[name], other[name], atol=1e-4, err_msg=name)


def test_with_the_cache_on_disk_nothing_is_asked_twice(
    how: dict[str, Any], true: Script, whole: Path, tmp_path: Path
) -> None:
    cache = {"rl__cache__megabytes": 1.0, "rl__cache__directory": str(tmp_path / "cache")}
    asked = []
    with serving(true) as server:
        for name in ("first", "second"):
            before = sum(server.asked.values())
            runner.run(small(**remote(how, server.url), **cache), tmp_path / name)
            asked.append(sum(server.asked.values()) - before)
            assert weights(tmp_path / name, "rl") == weights(whole, "rl")
        probes = 1 + 9  # of the start-up test: one sequence alone, then among others
        assert asked[0] > asked[1] == probes
    found = read_rows(tmp_path / "second" / "rl" / "metrics.jsonl")[-1]
    assert found["teacher_cache/hit_rate"] == 1.0


@contextlib.contextmanager
def again(port: int, script: Script) -> Iterator[Server]:
    """A server on a port that another had."""
    made = Server(script)
    handler = made.http.RequestHandlerClass
    made.http.server_close()

    class Same(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

    made.http = Same(("127.0.0.1", port), handler)
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.http.shutdown()
        made.http.server_close()


def test_a_server_that_comes_back(
    how: dict[str, Any], true: Script, whole: Path, tmp_path: Path
) -> None:
    """Killed within the second step's scores and started again: the same bits."""
    port, change = _free_port(), threading.Event()
    count, lock = [0], threading.Lock()

    def dying(body: dict[str, Any], before: int) -> Say:
        with lock:
            count[0] += 1
            late = count[0] > 10 + 16 + 5  # probes, the first step, a part of the second
        if late:
            change.set()
            return Say(raw="{" * 100, torn=True)
        return true(body, before)

    def serve() -> None:
        with again(port, dying):
            change.wait(120)
        time.sleep(0.3)
        with again(port, true):
            ended.wait(120)

    ended = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        runner.run(small(**remote(how, f"http://127.0.0.1:{port}/v1")), tmp_path)
    finally:
        change.set()
        ended.set()
        thread.join()
    assert change.is_set() and weights(tmp_path, "rl") == weights(whole, "rl")
    assert rows(tmp_path, "rl") == rows(whole, "rl")


def test_a_server_that_does_not(
    how: dict[str, Any], true: Script, whole: Path, tmp_path: Path
) -> None:
    """One line, no step with some scores; the same command goes on to the same bits."""
    count = [0]

    def dying(body: dict[str, Any], before: int) -> Say:
        count[0] += 1
        return true(body, before) if count[0] <= 10 + 16 + 5 else Say(status=500)

    with serving(dying) as server:
        settings = remote(how, server.url, deadline_s=5.0)
        with pytest.raises(
            EndpointError, match="scores are missing after deadline_s=5, the last"
        ) as error:
            runner.run(small(**settings), tmp_path)
        assert "\n" not in str(error.value) and "nothing of this step" in error.value.fix
        assert [row["step"] for row in rows(tmp_path, "rl")] == [1]
        assert not (tmp_path / "rl" / "adapter").exists()
        server.script = true
        runner.run(small(**settings), tmp_path)
    assert weights(tmp_path, "rl") == weights(whole, "rl")
    assert rows(tmp_path, "rl") == rows(whole, "rl")


def _free_port() -> int:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as one:
        return int(one.server_address[1])


def moved(true: Script) -> Script:
    """Scores that depend on what else is in flight."""
    seen: list[str] = []

    def say(body: dict[str, Any], before: int) -> Say:
        seen.append("")
        raw = str(true(body, before).raw)
        return Say(raw=raw.replace('"logprob": -', '"logprob": -1') if len(seen) > 1 else raw)

    return say


def renamed(true: Script) -> Script:
    def say(body: dict[str, Any], before: int) -> Say:
        raw = str(true(body, before).raw)
        return Say(raw=raw.replace('"decoded_token": "', '"decoded_token": "q'))

    return say


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (moved, r"nats apart to one sequence .*wanted: at most 0\.02"),
        (renamed, r"tokens as other texts, first .*student's tokenizer"),
        (lambda true: lambda body, n: true({**body, "prompt": tokens_of(body)[::-1]}, n), "other"),
        (lambda true: lambda body, n: Say(status=401), "auth: status 401"),
    ],
)
def test_the_server_is_tested_before_anything_begins(
    how: dict[str, Any], true: Script, tmp_path: Path, wrong: Callable[[Script], Script], said: str
) -> None:
    with serving(wrong(true)) as server, pytest.raises(EndpointError, match=said):
        checks.prepare(Run(small(**remote(how, server.url)), tmp_path))
    assert not (tmp_path / "rl").exists()


def test_the_key_is_never_kept(
    how: dict[str, Any], true: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    with serving(true) as server:
        runner.run(small(**remote(how, server.url, key_variable="TEACHER_KEY")), tmp_path)
        assert all(SECRET in one["authorization"] for one in server.headers)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(SECRET.encode() in path.read_bytes() for path in files)
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(ConfigError, match=r"\$TEACHER_KEY is not set"):
        checks.prepare(
            Run(small(**remote(how, "http://h/v1", key_variable="TEACHER_KEY")), tmp_path / "b")
        )


def test_what_needs_whole_distributions_is_refused(how: dict[str, Any], tmp_path: Path) -> None:
    url = "http://h/v1"
    with pytest.raises(ConfigError, match=r"distill\.teacher\.source=endpoint; wanted: model or"):
        small(**how, distill__teacher__source="endpoint", distill__teacher__endpoint__model="m")
    for name, value in (("alpha", 0.5), ("form", "raw")):
        with pytest.raises(ConfigError, match="wanted: alpha=1 and form=canonical"):
            small(**remote(how, url), **{f"rl__rewards__{name}": value})
    with pytest.raises(ConfigError, match=r"endpoint\.model is empty"):
        small(**remote(how, url, model=""))
    with pytest.raises(ConfigError, match="with a user, a password"):
        small(**remote(how, "http://me:secret@h/v1"))
    settings = small(**remote(how, url), rl__buckets__lengths=3).plan["rl"]
    assert "buckets.lengths" in [one.name for one in unread.find(settings)]
    with pytest.raises(ConfigError, match=r"base_url is empty and \$OPENAI_BASE_URL"):
        checks.prepare(Run(small(**remote(how, "")), tmp_path))
    # A stage with the run's own teacher still needs it.
    with pytest.raises(ConfigError, match=r"teacher\.path is empty"):
        small(**{**remote(how, url), "stages": ("rl", "evaluate")})


def test_nothing_of_it_is_in_memory_here(how: dict[str, Any]) -> None:
    settings = small(**remote(how, "http://h/v1")).plan["rl"]
    found = KINDS["rl"].forecast
    assert found is not None and settings.roles() == ("student",)
    assert not [part.name for part in found(job(), settings) if "teacher" in part.name]
