"""Agents: files of them and what is wrong in one; keys and numbers; prompts."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data.chat import ChatSettings
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.inference import agents
from distill_jax.inference.agents import Agent
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.tasks import TextTask
from tests.stages.hf import tokenizer

CAREFUL = {"name": "careful", "system": "Check each step.", "temperature": 0.3, "weight": 2}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_agents(tmp_path: Path) -> None:
    wanted = (
        Agent("careful", "Check each step.", 0.3, 1.0, 2.0),
        Agent("wild", None, 1.2, 0.9, 1.0),
    )
    wild = {"name": "wild", "temperature": 1.2, "top_p": 0.9}
    assert agents.load(write(tmp_path / "a.jsonl", CAREFUL, wild)) == wanted
    (tmp_path / "a.json").write_text(json.dumps([CAREFUL, wild]))
    assert agents.load(tmp_path / "a.json") == wanted
    limits = SamplingSettings(temperature=0.1, top_p=0.2, top_k=3, max_new_tokens=7)
    drawn = wanted[1].sampling(limits)
    assert (drawn.temperature, drawn.top_p, drawn.top_k, drawn.max_new_tokens) == (1.2, 0.9, 0, 7)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "a", "temprature": 1}, "line 2: unknown setting temprature.*temperature"),
        ({"name": "a", "weight": -1}, "line 2: weight=-1.0.*at least 0"),
        ({"name": "a", "temperature": -0.1}, "line 2: temperature=-0.1.*at least 0"),
        ({"name": "a", "temperature": "hot"}, "line 2: temperature='hot'"),
        ({"name": "a", "top_p": 0}, "line 2: top_p=0.0.*more than 0"),
        ({"name": "a", "top_p": 1.5}, "line 2: top_p=1.5.*at most 1"),
        ({"temperature": 1.0}, "line 2: an agent without a name"),
        ({"name": "careful"}, "line 2: a second agent 'careful'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        agents.load(write(tmp_path / "a.jsonl", CAREFUL, row))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of agents .*x.jsonl"):
        agents.load(tmp_path / "x.jsonl")
    with pytest.raises(ConfigError, match="every agent has weight 0"):
        agents.load(write(tmp_path / "a.jsonl", {"name": "a", "weight": 0}))
    many = [{"name": str(i)} for i in range(65)]
    with pytest.raises(ConfigError, match="65 agents; wanted: at most 64"):
        agents.load(write(tmp_path / "a.jsonl", *many))


def test_greedy_attempts_are_all_the_same() -> None:
    greedy = [Agent("a"), Agent("g", temperature=0.0)]
    agents.check_attempts(greedy, 1)
    with pytest.raises(ConfigError, match="attempts=2 of agent g with temperature 0"):
        agents.check_attempts(greedy, 2)


def test_keys_and_numbers_are_unique() -> None:
    key = jax.random.key(3)
    found = [jax.random.key_data(agents.key_of(key, n)).tolist() for n in range(4)]
    assert found[0] == jax.random.key_data(key).tolist()
    assert len({str(x) for x in found}) == 4
    ids = [agents.request_id(p, a, g) for p in (0, 1, 65535) for a in (0, 63) for g in (0, 1023)]
    assert len(set(ids)) == 12 and max(ids) == 2**32 - 1
    assert np.asarray(ids, np.uint32).tolist() == ids


def run_of(**data: Any) -> Any:
    settings, tok = DataSettings(**data), tokenizer()
    return SimpleNamespace(
        config=SimpleNamespace(data=settings, task="text", programs=None),
        data=SimpleNamespace(task=TextTask(settings, tok), tokenizer=tok),
    )


def test_a_system_message_replaces_that_of_the_data() -> None:
    run = run_of(chat=ChatSettings(system_prompt="Be brief.", instruction="Show work."))
    problems = [Problem("one", "What is 1 + 1?", "", "2")]
    both = [Agent("plain"), Agent("careful", "Check each step.")]
    data, prompts = agents.prompts(run, problems, both)
    plain, careful = (run.data.tokenizer.decode(found[0]) for found in prompts)
    assert data.prompts == prompts[0]
    assert "Be brief." in plain and "Check each step." not in plain
    assert careful == plain.replace("Be brief.", "Check each step.")


def test_a_problem_must_fit_for_every_agent() -> None:
    problems = [Problem("short", "What is 1 + 1?", "", "2"), Problem("l", "And? " * 30, "", "2")]
    tok = tokenizer()
    short, long = (len(TextTask(DataSettings(), tok).prompts([p]).prompts[0]) for p in problems)
    chatty = Agent("chatty", "Now then. " * 3)
    more = len(agents.prompts(run_of(), problems, [chatty])[1][0][0]) - short
    assert 0 < more < long - short
    data, prompts = agents.prompts(
        run_of(max_prompt_tokens=long), problems, [Agent("plain"), chatty]
    )
    assert [p.id for p in data.problems] == ["short"] and data.dropped == 1
    assert [len(found) for found in prompts] == [1, 1]
    with pytest.raises(DataError, match="all 1 prompts are longer than"):
        agents.prompts(run_of(max_prompt_tokens=short), problems[:1], [chatty])
    refusing = run_of(max_prompt_tokens=long, on_long_prompt="error")
    with pytest.raises(DataError, match="problem l has a prompt of"):
        agents.prompts(refusing, problems, [chatty])
