import math
import os
import signal
import textwrap
import time

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, RewardError
from distill_jax.data.rows import Columns, problem_of_row
from distill_jax.rewards.custom import CustomReward, check_function
from distill_jax.rewards.settings import RewardSettings
from distill_jax.rewards.terms import columns

SOURCE = """
import os, time

def length(prompts, completions, gold, level, **columns):
    print("this must not come between replies", flush=True)
    return [None if one is None else len(text) for one, text in zip(level, completions)]

def broken(prompts, completions, gold, **columns):
    raise KeyError("no such thing")

def short(prompts, completions, gold, **columns):
    return [1.0]

def text(prompts, completions, gold, **columns):
    return ["good"] * len(prompts)

def ends(prompts, completions, gold, **columns):
    os._exit(3)

def half(prompts, completions, gold, **columns):
    os.write(4, b'{"values": [1')  # 4: the replies, opened after the requests
    os._exit(5)

def slow(prompts, completions, gold, **columns):
    if "wait" in completions:
        time.sleep(60)
    return [float(len(text)) for text in completions]

def nan(prompts, completions, gold, **columns):
    return [float("nan") if text == "bad" else None for text in completions]

def huge(prompts, completions, gold, **columns):
    return [1e39] * len(prompts)  # finite, but not in float32

def none(prompts, completions, gold, **columns):
    return [None if text == "none" else 1.0 for text in completions]

def trl(completions, answer, **columns):
    return [float(one in text) for one, text in zip(answer, completions)]

number = 3

def pid(prompts, completions, gold, **columns):
    return [os.getpid()] * len(prompts)
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.chdir(tmp_path)
    made = []

    def make(name, deadline_s=60.0, **more):
        made.append(CustomReward(f"own_rewards:{name}", deadline_s, **more))
        return made[-1]

    yield make
    for reward in made:
        reward.close()


def ask(reward, texts, **columns):
    return reward(["q"] * len(texts), texts, ["1"] * len(texts), columns)


def test_values_and_what_does_not_apply(call):
    reward = call("length")
    found = ask(reward, ["a", "bcd"], level=[1, None])
    assert found.dtype == np.float32 and found[0] == 1.0 and math.isnan(found[1])
    assert ask(reward, ["ab"], level=[2]).tolist() == [2.0]
    many = ["x" * 1000] * 3000  # more than pipes hold
    assert ask(reward, many, level=[1] * 3000).tolist() == [1000.0] * 3000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "no such thing"),
        ("short", "gave 1 rewards for 2"),
        ("text", "could not convert"),
        ("ends", "ended with code 3"),
        ("half", "ended with code 5"),
        ("missing", "has no attribute 'missing'"),
        ("number", "number is 3, which cannot be called"),
        ("huge", r"own_rewards:huge gave 1e\+39 for completion 1 of 2; 2 of the batch's"),
        ("trl", "(?s)called with prompts, completions, gold, raised.*missing .*'answer'"),
    ],
)
def test_a_function_that_fails_ends_the_run(call, name, message):
    with pytest.raises(RewardError, match=message):
        ask(call(name), ["a", "b"])


def test_a_reward_that_is_no_finite_number_is_refused(call):
    wanted = r"gave nan for completion 2 of 3 \(problem p1\); 1 of .*wanted: finite .*None where"
    with pytest.raises(RewardError, match=wanted):
        ask(call("nan"), ["a", "bad", "c"], id=["p0", "p1", "p2"])


def test_a_batch_without_any_reward_is_said_once(call):
    said = []
    reward = call("none", say=said.append)
    assert ask(reward, ["a", "none"])[0] == 1.0 and said == []
    assert np.isnan(ask(reward, ["none", "none"])).all()
    assert np.isnan(ask(reward, ["none"])).all()
    assert len(said) == 1 and "own_rewards:none gave None for all 2 completions" in said[0]


def test_a_function_of_the_datasets_own_columns(call):
    row = {"question": "1 + 1?", "answer": "1 + 1 = 2 #### 2", "hint": "add"}
    found = columns([problem_of_row(row, "here", "p0")])
    assert found["answer"] == ["1 + 1 = 2 #### 2"] and found["question"] == ["1 + 1?"]
    assert found["hint"] == ["add"] and found["id"] == ["p0"]
    assert ask(call("trl"), ["so 1 + 1 = 2 #### 2"], **found).tolist() == [1.0]


def test_a_column_read_as_gold_may_have_that_name():
    row = {"question": "1 + 1?", "gold": "2", "level": "Level 3"}
    found = columns([problem_of_row(row, "here", "p0", Columns(answer="gold"))])
    assert "gold" not in found and found["level"] == [3]


def test_a_function_is_looked_up_before_it_is_needed(call):
    call("length")  # the module is in the current directory
    check_function("own_rewards:length", 60.0)
    with pytest.raises(ConfigError, match="has no attribute 'missing'"):
        check_function("own_rewards:missing", 60.0)
    with pytest.raises(ConfigError, match="number is 3, which cannot be called"):
        check_function("own_rewards:number", 60.0)
    with pytest.raises(ConfigError, match="No module named 'nowhere'"):
        check_function("nowhere:length", 60.0)
    with pytest.raises(RewardError, match="took more than 0.001 s"):
        check_function("own_rewards:length", 0.001)


def test_a_late_batch_does_not_apply_and_the_next_one_does(call):
    reward = call("slow", deadline_s=3.0)
    assert ask(reward, ["abc"]).tolist() == [3.0]
    assert np.isnan(ask(reward, ["wait", "b"])).all() and reward.late == 1
    assert ask(reward, ["ab"]).tolist() == [2.0]


def test_late_too_often_ends_the_run(call):
    reward = call("slow", deadline_s=0.01, late_in_row=2)
    assert np.isnan(ask(reward, ["wait"])).all()
    with pytest.raises(RewardError, match="2 in a row"):
        ask(reward, ["wait"])


def test_an_interrupted_call_does_not_shift_replies(call):
    class Alarm(Exception):
        pass

    def ring(number, frame):
        raise Alarm

    reward = call("slow")
    assert ask(reward, ["abc"]).tolist() == [3.0]
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Alarm):
            ask(reward, ["wait"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ask(reward, ["abcd"]).tolist() == [4.0]


def test_it_runs_elsewhere_and_ends_with_the_reward(call):
    reward = call("pid")
    pid = int(ask(reward, ["a"])[0])
    assert pid != os.getpid()
    reward.close()
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.kill(pid, 0)
            time.sleep(0.01)


def test_columns_with_the_functions_own_names(call):
    with pytest.raises(ConfigError, match="columns gold"):
        ask(call("pid"), ["a"], gold=["1"])


@pytest.mark.parametrize("path", ["module", "a:b:c", "a b:c", ":f", "m:", "os.path:join()"])
def test_a_path_that_names_no_function(path):
    with pytest.raises(ConfigError, match="module:function"):
        RewardSettings(custom=path)
