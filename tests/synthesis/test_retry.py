"""The retry state machine by its table, and Retry-After."""

import email.utils

import pytest

from distill_jax.synthesis import failures, retry
from distill_jax.synthesis.retry import Step
from distill_jax.synthesis.settings import RetrySettings

# attempts 6, backoff .5·2^k at most 60, Retry-After up to 120.
S = RetrySettings()


def after(kind: str, status: int | None = None, asked: float | None = None, **how: object) -> Step:
    given = {"tries": 1, "empties": 0, "longer": False, "jitter": 0.5, "s": S} | how
    return retry.after(kind, status, asked, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (after("ok", 200), Step("keep", "grow")),
        (after("length", 200), Step("give_up", "grow")),
        (after("length", 200, longer=True), Step("longer", "grow")),
        (after("content_filter", 200), Step("give_up", "grow")),
        (after("empty", 200, empties=1), Step("retry", "grow")),
        (after("empty", 200, tries=2, empties=2), Step("give_up", "grow")),
        (after("empty", 200, tries=6, empties=1), Step("give_up", "grow")),
        (after("invalid_request", 400), Step("give_up", "hold")),
        (after("invalid_request", 422), Step("give_up", "hold")),
        (after("auth", 401), Step("abort", "hold")),
        (after("auth", 403), Step("abort", "hold")),
        (after("not_found", 404), Step("abort", "hold")),
        (after("quota", 429), Step("abort", "hold")),
        # 0.5·2⁰·0.5 = 0.25; Retry-After replaces the backoff, and is not jittered.
        (after("rate_limit", 429), Step("retry", "halve", 0.25)),
        (after("rate_limit", 429, 7.0), Step("retry", "halve", 7.0)),
        (after("rate_limit", 429, 120.0), Step("retry", "halve", 120.0)),
        (after("rate_limit", 429, 121.0), Step("retry", "halve", 121.0, 121.0)),
        (after("rate_limit", 429, 121.0, tries=6), Step("give_up", "halve", 0.0, 121.0)),
        (after("server", 503), Step("retry", "halve", 0.25)),
        (after("server", 500), Step("retry", "less", 0.25)),
        (after("server", 500, tries=4), Step("retry", "less", 2.0)),  # 0.5·2³·0.5
        (after("server", 500, tries=5, jitter=0.0), Step("retry", "less", 0.0)),
        (after("server", 500, tries=6), Step("give_up", "less")),
        (after("server", 502, 3.0), Step("retry", "less", 3.0)),
        (after("timeout"), Step("retry", "less", 0.25)),
        (after("timeout", 408), Step("retry", "less", 0.25)),
        (after("server", 409), Step("retry", "less", 0.25)),
        (after("connection"), Step("retry", "less", 0.25)),
        (after("malformed", 200), Step("retry", "less", 0.25)),
    ],
)
def test_the_table(step: Step, wanted: Step) -> None:
    assert step == wanted


def test_every_class_has_a_row_and_no_number_of_tries_overflows() -> None:
    for kind in failures.CLASSES:
        assert after(kind).action in ("keep", "retry", "longer", "give_up", "abort")
    long = RetrySettings(attempts=10_000)
    assert after("server", 500, tries=9_999, s=long, jitter=1.0) == Step("retry", "less", 60.0)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "", "invalid_request"), (401, "", "auth"), (402, "", "quota"), (403, "", "auth"),
        (404, "", "not_found"), (408, "", "timeout"), (409, "", "server"),
        (422, "", "invalid_request"), (429, "", "rate_limit"), (429, "insufficient_quota", "quota"),
        (500, "", "server"), (503, "", "server"), (529, "", "server"),
    ],
)  # fmt: skip
def test_classes_of_statuses(status: int, code: str, kind: str) -> None:
    assert failures.of_status(status, code) == kind


NOW = 1_000_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"Retry-After": email.utils.formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"Retry-After": email.utils.formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "tomorrow"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry.retry_after(headers, NOW) == seconds
