"""Hostile programs by family; `ATTACKS` is all of them."""

from tests.sandbox.attacks import (
    endless,
    evaluation,
    files,
    forgery,
    greedy,
    kernel,
    memory,
    native,
    network,
    processes,
    text,
    walks,
)

FAMILIES = (
    walks,
    evaluation,
    files,
    processes,
    network,
    kernel,
    memory,
    native,
    endless,
    greedy,
    forgery,
    text,
)
ATTACKS = [attack for family in FAMILIES for attack in family.ATTACKS]
