"""Requests in flight and a minute's bucket, on a clock of the test's."""

from distill_jax.synthesis.pace import Bucket, Flight


def test_flight_grows_by_one_per_window_and_shrinks_once_per_overload() -> None:
    flight = Flight(8)
    flight.note("halve", sent=0.0, now=1.0)
    flight.note("halve", sent=0.9, now=1.1)  # was in flight when the limit was halved
    assert flight.limit == 4
    flight.note("less", sent=1.2, now=2.0)
    assert flight.limit == 3
    for _ in range(2):
        flight.note("grow", sent=2.0, now=3.0)
    assert flight.limit == 3
    flight.note("grow", sent=2.0, now=3.0)  # as many answers as slots
    assert flight.limit == 4
    flight.note("hold", sent=3.0, now=4.0)
    assert flight.limit == 4
    for sent in range(5, 20):
        flight.note("halve", sent=float(sent), now=sent + 0.5)
    assert flight.limit == 1
    for _ in range(1000):
        flight.note("grow", sent=30.0, now=31.0)
    assert flight.limit == 8


def test_bucket_books_an_estimate_and_settles_on_what_was_used() -> None:
    bucket = Bucket(60, 0.0)  # one a second, sixty at once
    assert bucket.wait(60, 0.0) == 0.0
    bucket.book(60, 0.0)
    assert bucket.wait(10, 0.0) == 10.0 and bucket.wait(10, 4.0) == 6.0
    bucket.settle(60, 50, 4.0)  # 4 of the refill and 10 back: 14
    assert bucket.wait(14, 4.0) == 0.0 and bucket.wait(15, 4.0) == 1.0
    bucket.settle(0, 34, 4.0)  # more than was booked: 20 below 0
    assert bucket.wait(1, 4.0) == 21.0
    # A request of more than a minute's tokens waits for a full bucket, not forever.
    assert bucket.wait(1000, 4.0) == 80.0 and bucket.wait(1000, 84.0) == 0.0
    bucket.settle(1000, 0, 1000.0)  # never more than full
    assert bucket.wait(61, 1000.0) == 0.0
    bucket.book(61, 1000.0)
    assert bucket.wait(1, 1000.0) == 2.0


def test_no_limit() -> None:
    bucket = Bucket(0, 0.0)
    bucket.book(10**9, 0.0)
    bucket.settle(5, 10**9, 0.0)
    assert bucket.wait(10**9, 0.0) == 0.0
