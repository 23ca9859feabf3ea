"""Stage solve: agents, problems and reward models that it refuses, and the ones that it reads."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError, TokenizerMismatchError
from distill_jax.core.settings import build
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.forecast import limits
from distill_jax.inference.process_scorer import ProcessScorer
from distill_jax.run.run import Run
from distill_jax.stages import checks, runner, solve
from distill_jax.tasks import ProgramSettings
from tests.evaluation.scripted import ByStep, Scripted
from tests.stages import solving
from tests.stages.hf import tokenizer
from tests.stages.solving import Setup, results, write_reward_model

pytestmark = pytest.mark.slow

SCORER_OF = solve.scorer_of


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("setup"))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    return solving.scripted(monkeypatch)


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ('{"name": "a", "role": "critic"}', "line 1: unknown setting role"),
        ('{"name": "a", "temperature": 0}', "attempts=3 of agent a with temperature 0"),
        ("{", "line 1: not JSON"),
    ],
)
def test_a_wrong_file_of_agents_stops_it_first(
    setup: Setup, tmp_path: Path, agents: str, message: str
) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_text(agents + "\n")
    with pytest.raises((ConfigError, DataError), match=message):
        checks.prepare(Run(setup.everything(agents=str(path)), tmp_path / "run"))


def test_problems_that_do_not_fit_for_an_agent(setup: Setup, tmp_path: Path) -> None:
    config = setup.everything(data__max_prompt_tokens=35)
    with pytest.raises(DataError, match="prompts are longer than 35 tokens"):
        checks.prepare(Run(config, tmp_path))


def test_no_attempts_and_no_reward_model(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="solve.attempts=0; wanted: at least 1"):
        build(SolveSettings, {"attempts": 0}, "solve.")
    with pytest.raises(ConfigError, match="a stage of the plan that makes a reward_model"):
        setup.config(reward_model="nowhere")
    for nothing in ("nowhere.jsonl", "./nowhere.jsonl", "evaluate"):  # no stage makes agents
        config = setup.config("evaluate", "solve", agents=nothing)
        with pytest.raises(DataError, match="no file of agents .*; wanted: a .json or .jsonl"):
            checks.prepare(Run(config, tmp_path))


@pytest.mark.parametrize(
    ("error", "steps"),
    [(DataError, np.float32("nan")), (TokenizerMismatchError, None)],
)
def test_a_reward_model_that_cannot_be_used_stops_it(
    setup: Setup,
    scripted: list[Scripted],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    steps: Any,
) -> None:
    def scorer(run: Run, settings: SolveSettings) -> ByStep:
        if steps is None:
            raise TokenizerMismatchError("the reward model's tokenizer differs")
        found = ByStep(run.data.tokenizer)
        found.score = lambda prompts, completions: [np.array([steps])] * len(completions)
        return found

    monkeypatch.setattr(solve, "scorer_of", scorer)
    with pytest.raises(error):
        runner.run(setup.everything(), tmp_path)
    assert not (tmp_path / "solve" / "results.json").exists()


def test_a_real_reward_model_scores_with_its_own_system_message(
    setup: Setup, scripted: list[Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "scorer_of", SCORER_OF)
    path = tmp_path / "prm"
    write_reward_model(setup.root / "student", path, tokenizer(), "Judge it.")
    config = setup.config(reward_model=str(path), attempts=2, selector="weighted", plain=False)
    read, score = [], ProcessScorer.score

    def noted(self: ProcessScorer, prompts: Any, completions: Any) -> Any:
        read.extend(self.tokenizer.decode(one) for one in prompts)
        return score(self, prompts, completions)

    monkeypatch.setattr(ProcessScorer, "score", noted)
    runner.run(config, tmp_path / "run")
    found = results(tmp_path / "run")
    scores = [step for row in found["results"] for c in row["candidates"] for step in c["steps"]]
    assert len(scores) > 8 and np.ptp(scores) > 0.01 and found["unscored_steps"] == 0
    assert len(read) == 8 and all("Judge it." in one for one in read)
    assert not any("Judge it." in one for one in scripted[0].prompts)


def test_a_reward_model_of_another_tokenizer_is_refused(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    path = tmp_path / "prm"
    write_reward_model(setup.root / "student", path, tokenizer(seed=5))
    with pytest.raises(TokenizerMismatchError, match="reward model"):
        runner.run(setup.config(reward_model=str(path), selector="weighted"), tmp_path / "run")
    assert scripted == []  # before a sampler is made


def test_changed_agents_are_refused_when_it_is_complete(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_text('{"name": "a"}\n')
    config = setup.config(agents=str(path), attempts=1)
    runner.run(config, tmp_path / "run")
    runner.run(config, tmp_path / "run")  # complete: skipped
    assert len(scripted) == 1
    path.write_text('{"name": "b"}\n')
    with pytest.raises(ConfigError, match="changed since .*agents"):
        runner.run(config, tmp_path / "run")


def test_more_candidates_than_a_device_holds_are_refused_before_any_stage_begins(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def prepared(**changes: Any) -> None:
        agents = str(setup.root / "agents.jsonl")
        config = setup.config("evaluate", "solve", agents=agents, batch=8, **changes)
        task = "program" if config.sampling.rounds > 1 else "text"
        programs = ProgramSettings(instruction="")
        checks.prepare(Run(dataclasses.replace(config, task=task, programs=programs), tmp_path))

    # 1024 candidates: 2 heads of 8 in one layer, keys and values, 128 + 6 slots: 17.6 MB of cache;
    # logits of 320 tokens twice: 2.6 MB.
    monkeypatch.setattr(limits, "device_limit", lambda: 4 * 10**6)
    prepared(attempts=4)
    with pytest.raises(ConfigError, match="stage solve is forecast .* at 1024 candidates: dec"):
        prepared(attempts=1024)
    monkeypatch.setattr(limits, "device_limit", lambda: 15 * 10**6)
    capfd.readouterr()
    prepared(attempts=1024)
    assert "WARNING: stage solve is forecast to need 0.02" in capfd.readouterr().err
    # The host keeps all: 4 problems × 2 agents × 4 attempts × (drawn and plain), of 6 tokens of
    # 45 bytes each.
    assert "may keep" not in capfd.readouterr().err
    monkeypatch.setattr(limits, "host_bytes", lambda: 17_279)
    prepared(attempts=4)
    assert "may keep 64 completions of 6 tokens" in capfd.readouterr().err
    monkeypatch.setattr(limits, "host_bytes", lambda: 17_280)
    prepared(attempts=4)
    assert "may keep" not in capfd.readouterr().err
    # With a second turn of a program also its output: 64 × (6 + 64) × 45 bytes.
    for have, said in ((201_599, True), (201_600, False)):
        monkeypatch.setattr(limits, "host_bytes", lambda have=have: have)
        prepared(attempts=4, sampling__rounds=2, sampling__output_tokens=64)
        assert ("may keep 64 completions of 70 tokens" in capfd.readouterr().err) == said
    assert not (tmp_path / "evaluate").exists() and not (tmp_path / "solve").exists()
