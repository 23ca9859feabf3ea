"""Tokens and money: what answers cost, what is booked for those in flight, what is left."""

from distill_jax.synthesis.failures import Usage
from distill_jax.synthesis.settings import BudgetSettings

# Characters a token: fewer than usual, so that estimates are rather too high.
_CHARACTERS = 3


def cost(usage: Usage, s: BudgetSettings) -> float | None:
    """The money that an answer costs; None where a price is unknown."""
    if s.input_price is None or s.output_price is None:
        return None
    cached = s.input_price if s.cached_price is None else s.cached_price
    fresh = max(usage.input - usage.cached, 0)
    millionths = fresh * s.input_price + usage.cached * cached + usage.output * s.output_price
    return millionths / 1e6


def estimate(messages: str, max_tokens: int) -> Usage:
    """About the most that a request can use: tokens of its messages, and its limit."""
    return Usage(-(-len(messages) // _CHARACTERS), 0, max_tokens, 0)


def of_text(messages: str, text: str) -> Usage:
    """About what an answer used, where the endpoint does not report it."""
    return Usage(-(-len(messages) // _CHARACTERS), 0, -(-len(text) // _CHARACTERS), 0)


class Budget:
    """What is spent and booked.

    Attributes:
        tokens: spent, of prompts and answers.
        money: spent, None where a price is unknown.
        estimated: answers whose usage is an estimate.
    """

    def __init__(self, s: BudgetSettings):
        self.s = s
        self.tokens, self.estimated = 0, 0
        self.money = cost(Usage(0, 0, 0, 0), s)
        self._booked_tokens, self._booked_money = 0, 0.0

    def allows(self, wanted: Usage) -> bool:
        """Whether a request fits in what is neither spent nor booked."""
        tokens = self.tokens + self._booked_tokens + wanted.input + wanted.output
        if self.s.tokens and tokens > self.s.tokens:
            return False
        price = cost(wanted, self.s)
        if not self.s.money or price is None or self.money is None:
            return True
        return self.money + self._booked_money + price <= self.s.money

    def book(self, wanted: Usage, sign: int = 1) -> None:
        """Books a request that is sent; sign=−1: takes that back."""
        self._booked_tokens += sign * (wanted.input + wanted.output)
        self._booked_money += sign * (cost(wanted, self.s) or 0.0)

    def spend(self, used: Usage, *, estimated: bool = False) -> None:
        """Counts an answer."""
        self.tokens += used.input + used.output
        self.estimated += estimated
        price = cost(used, self.s)
        if self.money is not None and price is not None:
            self.money += price
