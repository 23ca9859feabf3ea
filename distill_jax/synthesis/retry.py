"""What follows an attempt, as a pure function: keep, ask again, give up, or stop everything."""

import email.utils
import math
from collections.abc import Mapping
from typing import NamedTuple

from distill_jax.synthesis import failures
from distill_jax.synthesis.settings import AttemptSettings

# What becomes of the request.
KEEP, RETRY, LONGER, GIVE_UP, ABORT = "keep", "retry", "longer", "give_up", "abort"
# What becomes of the number of requests in flight.
GROW, HOLD, LESS, HALVE = "grow", "hold", "less", "halve"
_OVERLOADED = (429, 503)


class Step(NamedTuple):
    """What follows an attempt.

    Attributes:
        action: KEEP, RETRY, LONGER, GIVE_UP or ABORT.
        flight: GROW, HOLD, LESS or HALVE.
        wait_s: seconds before this request is sent again.
        pause_s: seconds in which no request is sent.
    """

    action: str
    flight: str
    wait_s: float = 0.0
    pause_s: float = 0.0


def after(
    kind: str,
    status: int | None,
    retry_after_s: float | None,
    *,
    tries: int,
    empties: int,
    longer: bool,
    jitter: float,
    s: AttemptSettings,
) -> Step:
    """The step after an attempt.

    | class | action | in flight |
    | --- | --- | --- |
    | ok | keep | grow |
    | length | once more with a larger limit where there is one, never the same | grow |
    | empty | once more | grow |
    | content_filter | give up | grow |
    | invalid_request | give up: another body would be needed | hold |
    | auth, quota, not_found | abort | hold |
    | rate_limit, and status 503 | wait | halve |
    | timeout, connection, server, malformed | wait | one less |

    A wait is Retry-After where the endpoint names one, else backoff_s·2^(tries−1) at most
    longest_backoff_s, times `jitter`. A Retry-After over longest_retry_after_s pauses everything.

    Args:
        kind: one of `failures.CLASSES`.
        status: HTTP status; None without one.
        retry_after_s: seconds that the endpoint asks for; None: it does not.
        tries: attempts of this request so far, this one included.
        empties: of these the empty ones.
        longer: whether a larger limit is left to try.
        jitter: uniform in [0, 1).
        s: limits.
    """
    if kind in failures.FATAL:
        return Step(ABORT, HOLD)
    if kind == "invalid_request":
        return Step(GIVE_UP, HOLD)
    if kind not in failures.TRANSIENT:
        again = kind == "empty" and empties == 1 and tries < s.attempts
        other = {failures.OK: KEEP, "length": LONGER if longer else GIVE_UP}
        return Step(RETRY if again else other.get(kind, GIVE_UP), GROW)
    flight = HALVE if status in _OVERLOADED else LESS
    pause = 0.0
    if retry_after_s is None:
        # The power is bounded, so that no number of tries overflows.
        most = min(s.backoff_s * 2.0 ** min(tries - 1, 60), s.longest_backoff_s)
        wait = most * jitter
    else:
        wait = retry_after_s
        pause = wait if wait > s.longest_retry_after_s else 0.0
    if tries >= s.attempts:
        return Step(GIVE_UP, flight, 0.0, pause)
    return Step(RETRY, flight, wait, pause)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that response headers ask to wait, at least 0; None where they do not.

    `Retry-After-Ms`, or `Retry-After` in seconds or as an HTTP date; now: seconds since 1970.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            found = float(lower.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(found):
            return max(found, 0.0)
    try:
        when = email.utils.parsedate_to_datetime(lower.get("retry-after", ""))
        return max(when.timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
