"""What a card must not show, and which texts only look like paths."""

import pytest

from distill_jax.handover import card


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("/home/me/shots.jsonl", True),
        ("~me/models/base", True),
        (__file__, True),
        ("Qwen/Qwen2.5-0.5B", False),
        ("/no_think", False),
        ("/", False),
        ("Answer with numbers and/or words. " * 20, False),
        ("Think.\n/home/x/y", False),
    ],
)
def test_paths_of_this_machine(text: str, local: bool) -> None:
    assert card._is_local(text) is local
