"""How thorough the tests are: `TESTS_PROFILE=nightly pytest` runs everything at full strength."""

import os

import pytest

NIGHTLY = os.environ.get("TESTS_PROFILE") == "nightly"
nightly = pytest.mark.skipif(not NIGHTLY, reason="TESTS_PROFILE is not nightly")
