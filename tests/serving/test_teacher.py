"""A teacher behind our own server: rewards through it are the local teacher's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import EndpointError
from distill_jax.run.run import Run
from distill_jax.serving import served as models
from distill_jax.stages import checks, remote_teacher, runner
from distill_jax.stages import teacher as teachers
from tests.serving.endpoint import Running, running
from tests.stages.hf import random_pair
from tests.stages.small import rows, small
from tests.stages.test_remote_teacher import remote
from tests.stages.test_teacher import batch

pytestmark = pytest.mark.slow

KEY = "k" * 20


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pair = random_pair(tmp_path_factory.mktemp("remote"))
    return {**pair, "rl__eval_every": 0, "rl__batch_multiple": 8}


@pytest.fixture(scope="module")
def server(how: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    run = Run(small(**how), tmp_path_factory.mktemp("teacher"))
    served = models.of_run(run, "teacher", "big", models.Limits())
    with running(served, key=KEY) as one:
        yield one


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)


def test_scores_through_the_server_are_the_local_teachers(
    how: dict[str, Any], server: Running, tmp_path: Path
) -> None:
    run = Run(small(**how), tmp_path)
    start, host = run.load_student("base"), batch(run)
    inside = np.arange(16) < host["response_len_B"][:, None]
    own = teachers.scorer(run, run.stage("rl").settings, start).score(host)
    other = Run(small(**remote(how, server.url, key_variable="TEACHER_KEY")), tmp_path)
    made = teachers.scorer(other, other.stage("rl").settings, start)
    assert isinstance(made, remote_teacher.RemoteTeacher)
    found = made.score(host)
    made.close()
    logp = np.asarray(own.q_BR - own.value_BR)
    assert inside.sum() > 16 and np.abs(logp[inside]).max() > 1.0
    np.testing.assert_allclose(np.asarray(found.q_BR)[inside], logp[inside], atol=1e-4)


def test_stage_rl_pays_as_with_the_local_teacher(
    how: dict[str, Any], server: Running, tmp_path: Path
) -> None:
    away = remote(how, server.url, key_variable="TEACHER_KEY")
    runner.run(small(**away), tmp_path / "remote")
    runner.run(small(**how), tmp_path / "local")
    names = ("rewards/intrinsic/mean", "reward", "accuracy", "loss")
    pairs = zip(rows(tmp_path / "remote", "rl"), rows(tmp_path / "local", "rl"), strict=True)
    for one, other in pairs:
        for name in names:
            np.testing.assert_allclose(one[name], other[name], atol=1e-4, err_msg=name)


def test_a_wrong_key_or_name_stops_before_anything_begins(
    how: dict[str, Any], server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "x" * 20)
    for change, said in (
        ({"key_variable": "OTHER_KEY"}, "auth: status 401"),
        ({"key_variable": "TEACHER_KEY", "model": "small"}, "404"),
    ):
        settings = small(**remote(how, server.url, **change))
        with pytest.raises(EndpointError, match=said):
            checks.prepare(Run(settings, tmp_path))
