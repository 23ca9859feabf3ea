"""Questions that share a run of words with others: copies with other numbers, edges or layout."""

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"\w+")


def words(text: str) -> tuple[str, ...]:
    """The text's words and numbers, in lower case and compatible letters (NFKC)."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).lower()))


class Overlap:
    """Runs of `n` words of some questions; of a shorter question, all of its words.

    n=13 is what language models' training data are usually filtered by (GPT-3, appendix C).
    """

    def __init__(self, questions: Iterable[str], n: int):
        self.n = n
        self._known: set[tuple[str, ...]] = set()
        for question in questions:
            self._known.update(self._runs(words(question)))

    def __contains__(self, question: str) -> bool:
        """Whether the question has a run of words that one of the questions has."""
        return any(run in self._known for run in self._runs(words(question)))

    def _runs(self, found: tuple[str, ...]) -> list[tuple[str, ...]]:
        if not found:
            return []
        return [found[i : i + self.n] for i in range(max(1, len(found) - self.n + 1))]
