"""The text of a completion as its tokens come, and where a stop string ends it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

# What a tokenizer shows for the first bytes of a letter whose others have not come yet.
_BROKEN = "�"


class Piece(NamedTuple):
    """Text that is new since the last call; stopped: a stop string was found, and is not in it."""

    text: str
    stopped: bool = False


class Text:
    """Grows by tokens; gives text once that no later token can change or take back.

    Args:
        tokenizer: of the model.
        stops: strings that end the text; "" is none.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()):
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._tokens: list[int] = []
        self._given = 0
        self.stopped = False

    def add(self, tokens: Sequence[int], *, last: bool = False) -> Piece:
        """The text that these tokens add; last: no more come, so nothing is held back."""
        if self.stopped:
            return Piece("", True)
        self._tokens += tokens
        whole = str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))
        places = [place for stop in self._stops if (place := whole.find(stop)) >= 0]
        if places:
            self.stopped = True
            return self._piece(whole, min(places))
        return self._piece(whole, len(whole) if last else self._sure(whole))

    def _piece(self, whole: str, end: int) -> Piece:
        end = max(end, self._given)
        text, self._given = whole[self._given : end], end
        return Piece(text, self.stopped)

    def _sure(self, whole: str) -> int:
        """The end of the text before broken letters and a possible beginning of a stop string."""
        end = len(whole.rstrip(_BROKEN))
        for stop in self._stops:
            for size in range(min(len(stop) - 1, end), 0, -1):
                if whole.endswith(stop[:size], 0, len(whole)):
                    end = min(end, len(whole) - size)
                    break
        return end
