"""Costs worked by hand; an unknown price is unknown, not 0."""

import pytest

from distill_jax.core import unread
from distill_jax.core.errors import ConfigError
from distill_jax.synthesis import spending
from distill_jax.synthesis.failures import Usage
from distill_jax.synthesis.settings import BudgetSettings
from distill_jax.synthesis.spending import Budget

USED = Usage(1_000, 400, 200, 50)


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({}, None),
        ({"input_price": 1.0}, None),
        ({"output_price": 1.0}, None),
        # 600·2 + 400·0.5 + 200·10 = 3400 millionths
        ({"input_price": 2.0, "cached_price": 0.5, "output_price": 10.0}, 0.0034),
        ({"input_price": 2.0, "output_price": 10.0}, 0.004),
        ({"input_price": 0.0, "output_price": 0.0}, 0.0),
    ],
)
def test_cost(prices: dict[str, float], cost: float | None) -> None:
    s = BudgetSettings(**prices)
    assert spending.cost(USED, s) == (None if cost is None else pytest.approx(cost))
    assert Budget(s).money == (None if cost is None else 0.0)


def test_a_budget_of_money_needs_prices() -> None:
    with pytest.raises(ConfigError, match="money=5.0 with input_price=None"):
        BudgetSettings(money=5.0)
    BudgetSettings(money=5.0, input_price=0.1, output_price=0.1)


def test_settings_that_nothing_reads() -> None:
    found = unread.find(BudgetSettings(spent="finish", cached_price=0.1))
    assert {one.name for one in found} == {"spent", "cached_price"}
    prices = BudgetSettings(money=1.0, spent="finish", input_price=0.2, cached_price=0.1,
                            output_price=0.3)  # fmt: skip
    assert unread.find(prices) == [] == unread.find(BudgetSettings(tokens=9, spent="finish"))


def test_what_is_booked_counts_until_it_is_spent() -> None:
    budget = Budget(BudgetSettings(tokens=100))
    one = Usage(10, 0, 30, 0)
    assert budget.allows(one)
    budget.book(one)
    budget.book(one)
    assert not budget.allows(one)  # 80 booked and 40 wanted
    budget.book(one, -1)
    budget.spend(Usage(10, 0, 5, 0))
    assert budget.allows(one) and budget.tokens == 15  # 15 + 40 + 40
    budget.spend(Usage(3, 0, 3, 0), estimated=True)
    assert not budget.allows(one) and budget.estimated == 1


def test_a_budget_of_money() -> None:
    budget = Budget(BudgetSettings(money=1.0, input_price=1e6, output_price=0.0))
    assert budget.allows(Usage(1, 0, 1000, 0)) and not budget.allows(Usage(2, 0, 0, 0))
    budget.spend(Usage(1, 0, 1000, 0))
    assert budget.money == 1.0 and not budget.allows(Usage(1, 0, 0, 0))


def test_estimates_are_of_characters() -> None:
    assert spending.estimate("abcd", 7) == Usage(2, 0, 7, 0)
    assert spending.of_text("abcd", "abcdefg") == Usage(2, 0, 3, 0)
