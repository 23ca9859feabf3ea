"""Settings of stage solve: combinations that are refused, and the selectors that they allow."""

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.evaluation.solve_settings import SolveSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selector": "weighted"}, "selector=weighted with reward_model=''"),
        ({"selector": "best"}, "selector=best with reward_model=''"),
        ({"selector": "weighted_verdict", "reward_model": "x"}, "with verify=0"),
        ({"threshold": 0.3}, "threshold=0.3 with rounds=0"),
        ({"threshold": 0.3, "rounds": 1}, "threshold=0.3 with rounds=1"),
        ({"evidence": ("step",)}, "evidence="),
        ({"evidence": (), "rounds": 1}, "rounds=1 with evidence="),
        ({"evidence": ("gold",), "rounds": 1}, "evidence=.* with gold"),
        ({"search": "beam"}, "search=beam with reward_model=''"),
        ({"width": 2}, "width=2 with search=''"),
        (
            {"temperature": 0.5, "agents": "a.jsonl", "plain": False},
            "temperature=0.5 with agents='a.jsonl' and plain=False",
        ),
        ({"top_p": 0.5, "agents": "a.jsonl", "plain": False}, "top_p=0.5 with agents='a.jsonl'"),
        ({"max_steps": 2}, "max_steps=2 with search=''"),
        ({"search": "beam", "reward_model": "x", "attempts": 6}, "attempts=6 and width=4"),
        ({"search": "dvts", "reward_model": "x", "attempts": 1024}, "attempts=1024"),
        ({"search": "dvts", "reward_model": "x", "rounds": 1}, "search=dvts with rounds=1"),
        ({"search": "dvts", "reward_model": "x", "agents": "a"}, "search=dvts with agents=a"),
    ],
)
def test_settings_that_cannot_go_together(settings, message):
    with pytest.raises(ConfigError, match=message):
        SolveSettings(**settings)


def test_the_selectors_that_settings_allow():
    assert SolveSettings().selectors == ("first", "majority")
    assert SolveSettings(verify=1).selectors == ("first", "majority")
    assert len(SolveSettings(reward_model="x").selectors) == 4
    assert len(SolveSettings(reward_model="x", verify=1).selectors) == 5
