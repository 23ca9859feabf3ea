"""How many requests are in flight, and how many start in a minute. No clock is read here."""

from distill_jax.synthesis import retry


class Flight:
    """Additive increase, multiplicative decrease of the requests in flight.

    +1 after as many answers as there are slots; halved, or one less, after a failure. Failures of
    requests that were sent before the last decrease do not count: they saw the same overload.

    Attributes:
        limit: requests in flight now; at least 1.
    """

    def __init__(self, most: int):
        self.limit = self.most = most
        self._answers = 0
        self._decreased = -1.0

    def note(self, flight: str, *, sent: float, now: float) -> None:
        """Notes what follows an attempt (`retry.Step.flight`); times are of one clock."""
        if flight == retry.GROW:
            self._answers += 1
            if self._answers >= self.limit and self.limit < self.most:
                self.limit, self._answers = self.limit + 1, 0
        elif flight in (retry.LESS, retry.HALVE) and sent > self._decreased:
            lower = self.limit // 2 if flight == retry.HALVE else self.limit - 1
            self.limit, self._answers, self._decreased = max(lower, 1), 0, now


class Bucket:
    """A token bucket: `per_minute` at once, refilled evenly; an estimate is booked, then settled.

    per_minute: 0 is no limit.
    """

    def __init__(self, per_minute: int, now: float):
        self.per_minute, self._level, self._at = per_minute, float(per_minute), now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` can be booked; more than a full bucket waits for a full one."""
        if not self.per_minute:
            return 0.0
        self._refill(now)
        missing = min(amount, self.per_minute) - self._level
        return max(missing, 0.0) * 60.0 / self.per_minute

    def book(self, amount: float, now: float) -> None:
        """Takes an amount; the level may go below 0."""
        self._refill(now)
        self._level -= amount

    def settle(self, booked: float, used: float, now: float) -> None:
        """Corrects what was booked by what was used."""
        self._refill(now)
        self._level = min(self._level + booked - used, float(self.per_minute))

    def _refill(self, now: float) -> None:
        self._level += (now - self._at) * self.per_minute / 60.0
        self._level, self._at = min(self._level, float(self.per_minute)), now
