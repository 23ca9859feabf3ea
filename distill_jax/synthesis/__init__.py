"""Worked solutions from outside: an endpoint's answers bought once, read and verified."""
