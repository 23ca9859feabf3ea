"""Buying within a budget, and at a pace."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from distill_jax.synthesis.settings import (
    BudgetSettings,
    PaceSettings,
)
from tests.synthesis.buyer import (
    OK,
    buy,
    outcomes,
    settings,
)
from tests.synthesis.scripted import serving


def test_a_budget_of_tokens_stops_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    names = list("abcdefgh")
    with serving(lambda body, before: OK) as server:
        # A request books 1 + 8 and uses 15 in all: after two of them 30 + 9 would be over 38.
        budget = BudgetSettings(tokens=38)
        s = settings(server, budget=budget, pace=PaceSettings(concurrency=4))
        buyer = buy(tmp_path, s, names)
        assert buyer.ended == "spent" and [kind for kind, _ in outcomes(buyer)].count("ok") < 8
        assert outcomes(buyer)[-1] == ("missing", "")
        before = sum(server.asked.values())
        assert buy(tmp_path, s, names).ended == "spent" and sum(server.asked.values()) == before
        money = BudgetSettings(money=1.0, input_price=1.0, output_price=10.0)
        rest = buy(tmp_path, dataclasses.replace(s, budget=money), names)
        assert rest.ended == "complete" and set(server.sold.values()) == {1}
        # 8 answers of 10 and 5 tokens: (80·1 + 40·10)/10⁶.
        assert rest.budget.tokens == 120 and rest.budget.money == pytest.approx(480e-6)
        unknown = buy(tmp_path, dataclasses.replace(s, budget=BudgetSettings()), names)
        assert unknown.budget.money is None


def test_what_is_booked_too_high_is_given_back(tmp_path: Path) -> None:
    with serving(lambda body, before: OK) as server:
        # Each books 101 and uses 15: one at a time they fit, 3·15 + 101 for the last.
        s = settings(server, budget=BudgetSettings(tokens=150), max_tokens=100)
        buyer = buy(tmp_path, s, list("abcd"))
        assert buyer.ended == "complete" and buyer.budget.tokens == 60 and server.most == 1


@pytest.mark.parametrize(
    "pace",
    [
        PaceSettings(requests_per_minute=2, concurrency=1),  # the third waits for 30 s
        # Two requests of 15 empty a bucket of 30; the third books 9, and waits for 18 s.
        PaceSettings(tokens_per_minute=30, concurrency=1),
    ],
)
def test_requests_and_tokens_a_minute(tmp_path: Path, pace: PaceSettings) -> None:
    with serving(lambda body, before: OK) as server:
        looks = itertools.count()
        buyer = buy(
            tmp_path,
            settings(server, pace=pace),
            list("abcdef"),
            stop=lambda: next(looks) > 12,  # of 0.1 s each
        )
        assert buyer.ended == "stopped" and buyer.done == 2
