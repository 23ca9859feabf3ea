r"""Finding the final answer in a text.

Order of trust: the last closed `\boxed{}`, the last `#### N`, the last `<answer>N</answer>`,
the last "the answer is N". A later answer of one kind replaces an earlier one, as a correction.
"""

import re
from dataclasses import dataclass

# Answers stand at the end; a longer text is read from its end only.
MAX_TEXT = 100_000
MAX_ANSWER = 1_000
MAX_BOXES = 50

_TAG = re.compile(r"<answer>([^<]*)</answer>", re.IGNORECASE)
_PHRASE = re.compile(r"\banswer(?: is|:)[ \t]*:?[ \t]*([^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")


@dataclass(frozen=True)
class Answer:
    """A final answer as written, without the marks around it."""

    text: str


def extract(text: str) -> Answer | None:
    """The final answer that a text gives, or None where it gives none.

    An answer longer than MAX_ANSWER characters counts as none.
    """
    text = text[-MAX_TEXT:]
    for find in (_boxed, _after_hashes, _tagged, _phrased):
        found = find(text)
        if found is not None:
            found = found.strip()
            return Answer(found) if 0 < len(found) <= MAX_ANSWER else None
    return None


def _boxed(text: str) -> str | None:
    r"""The content of the last \boxed{} that is closed."""
    starts = [match.end() for match in _BOX.finditer(text)]
    # The bounds keep thousands of unclosed boxes from costing a full scan each.
    for start in reversed(starts[-MAX_BOXES:]):
        depth = 1
        for place in range(start, min(len(text), start + MAX_ANSWER + 1)):
            if text[place] == "{":
                depth += 1
            elif text[place] == "}":
                depth -= 1
            if depth == 0:
                return text[start:place]
    return None


def _after_hashes(text: str) -> str | None:
    _, mark, rest = text.rpartition("####")
    return rest.split("\n", 1)[0] if mark else None


def _tagged(text: str) -> str | None:
    found = _TAG.findall(text)
    return found[-1] if found else None


def _phrased(text: str) -> str | None:
    found = _PHRASE.findall(text)
    if not found:
        return None
    # "The answer is 3.5. Done." ends at the stop that is followed by space, not inside 3.5.
    return _SENTENCE_END.split(found[-1], maxsplit=1)[0]
