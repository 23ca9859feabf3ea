"""The text of a completion as its tokens come, and where a stop string ends it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

# What a tokenizer shows for the first bytes of a letter whose others have not come yet.
_BROKEN = "�"


class Piece(NamedTuple):
    """Text that is new since the last call; stopped: a stop string was found, and is not in it;
    taken: how many of the call's tokens are the completion's, the one that ends the stop string
    included."""

    text: str
    stopped: bool = False
    taken: int = 0


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
        before = len(self._tokens)
        self._tokens += tokens
        whole = self._decoded(len(self._tokens))
        if self._place(whole) is not None:
            # As if the tokens came one by one: where they are cut changes nothing.
            for count in range(1, len(tokens) + 1):
                place = self._place(self._decoded(before + count))
                if place is not None:
                    self.stopped = True
                    return self._piece(whole, place, count)
        return self._piece(whole, len(whole) if last else self._sure(whole), len(tokens))

    def _decoded(self, count: int) -> str:
        return str(self._tokenizer.decode(self._tokens[:count], skip_special_tokens=True))

    def _place(self, text: str) -> int | None:
        """Where the first stop string begins."""
        places = (place for stop in self._stops if (place := text.find(stop)) >= 0)
        return min(places, default=None)

    def _piece(self, whole: str, end: int, count: int) -> Piece:
        end = max(end, self._given)
        text, self._given = whole[self._given : end], end
        return Piece(text, self.stopped, count)

    def _sure(self, whole: str) -> int:
        """The end of the text before broken letters and a possible beginning of a stop string."""
        settled = whole.rstrip(_BROKEN)
        end = len(settled)
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(settled)), 0, -1):
                if settled.endswith(stop[:size]):
                    end = min(end, len(settled) - size)
                    break
        return end
