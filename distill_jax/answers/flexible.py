"""The last number of a text: the flexible extraction of lm-evaluation-harness, for comparison.

Task gsm8k of the harness, filter flexible-extract: the last match of its pattern, compared as text
after commas, dollar signs and a full stop at the end are removed. It finds answers that a model
states without any mark, and numbers that are no answers.
"""

import re

from distill_jax.answers.extract import MAX_TEXT

_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_IGNORED = re.compile(r",|\$|\.$")
_GOLD = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def flexible_right(gold: str, text: str) -> bool | None:
    """Whether the last number of a text is the gold answer; None where that is no number."""
    wanted = _IGNORED.sub("", gold.strip())
    if not _GOLD.fullmatch(wanted):
        return None
    found = _NUMBER.findall(text[-MAX_TEXT:])
    return bool(found) and _IGNORED.sub("", found[-1]) == wanted
