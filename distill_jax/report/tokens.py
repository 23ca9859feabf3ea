"""Tokens of a response as a page shows them: hidden characters made visible, a colour class."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Any, NamedTuple

# Lower bounds of the teacher's probability of a token, from blue (the teacher would write it too)
# to orange; below the last bound is one more class.
BOUNDS = (0.9, 0.5, 0.2, 0.05, 0.01)
_SHOWN = {"\n": "↵\n", "\t": "⇥\t"}
# Control, format and unassigned characters are invisible, or change the direction of the text.
_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}


class Cell(NamedTuple):
    """A token on the page: text shown; colour class, and "raw" where its bytes alone are not text;
    its figures; and, on the last of several tokens that share a letter, that letter."""

    shown: str
    colour: str
    title: str
    joined: str = ""


class Swatch(NamedTuple):
    """A line of the legend: class, the teacher's probabilities, the rewards."""

    colour: str
    probability: str
    reward: str


def visible(text: str) -> str:
    """The text with line breaks and tabs marked, and other hidden characters as escapes."""
    return "".join(
        _SHOWN.get(c) or (f"\\u{ord(c):04x}" if unicodedata.category(c) in _HIDDEN else c)
        for c in text
    )


def raw_bytes(token: Mapping[str, Any]) -> bytes:
    """The bytes of a token of tokens.json: its "text", or "bytes" in hexadecimal digits where they
    are not UTF-8 by themselves."""
    return token["text"].encode() if "text" in token else bytes.fromhex(token["bytes"])


def stored_text(raw: bytes) -> dict[str, str]:
    """The fields of tokens.json that `raw_bytes` reads."""
    try:
        return {"text": raw.decode()}
    except UnicodeDecodeError:
        return {"bytes": raw.hex()}


def colour(reward: float, alpha: float) -> str:
    """The class of a canonical intrinsic reward r = α·log π_T: "t0" (blue) to "t5" (orange)."""
    probability = math.exp(reward / alpha)
    return f"t{sum(probability < bound for bound in BOUNDS)}"


def legend(alpha: float) -> list[Swatch]:
    """The classes with their bounds, as probabilities and as rewards at this α."""
    limits = {bound: f"{alpha * math.log(bound):.2f}" for bound in (1.0, *BOUNDS)}
    out = [
        Swatch(f"t{number}", f"{low:g} to {high:g}", f"{limits[low]} to {limits[high]}")
        for number, (high, low) in enumerate(pairwise(limits))
    ]
    least = BOUNDS[-1]
    return [*out, Swatch(f"t{len(BOUNDS)}", f"below {least:g}", f"below {limits[least]}")]


def title(token: Mapping[str, Any], alpha: float) -> str:
    """A token's figures in one line."""
    names = ("r", "teacher's probability", "Q", "V", "writer's log-probability")
    return ", ".join(map(" ".join, zip(names, figures(token, alpha), strict=True)))


def figures(token: Mapping[str, Any], alpha: float) -> list[str]:
    """r, the teacher's probability, Q, V and the log-probability under who wrote the token."""
    share = f"{math.exp(token['reward'] / alpha):.3g}"
    q, value, logp = (number(token[name]) for name in ("q", "value", "logp"))
    return [number(token["reward"]), share, q, value, logp]


def number(x: float) -> str:
    """Three decimals, and no minus before a zero."""
    return f"{round(x, 3) + 0.0:.3f}"


def cells(tokens: Sequence[Mapping[str, Any]], alpha: float) -> list[Cell]:
    """One cell for each token of tokens.json: text or bytes, reward, q, value, logp."""
    raw = [raw_bytes(token) for token in tokens]
    joined = _joined(raw)
    return [
        Cell(
            visible(part.decode("utf-8", "backslashreplace")),
            colour(token["reward"], alpha) + ("" if _is_text(part) else " raw"),
            title(token, alpha),
            visible(joined.get(place, "")),
        )
        for place, (token, part) in enumerate(zip(tokens, raw, strict=True))
    ]


def _joined(raw: Sequence[bytes]) -> dict[int, str]:
    """Place of the last token of each run that is UTF-8 only as a whole -> its text."""
    out, start = {}, 0
    while start < len(raw):
        # Only tokens that are broken by themselves can mend one another.
        broken = takewhile(lambda k: not _is_text(raw[k]), range(start, len(raw)))
        last = next((k for k in broken if _is_text(b"".join(raw[start : k + 1]))), None)
        if last is not None:
            out[last] = b"".join(raw[start : last + 1]).decode()
            start = last
        start += 1
    return out


def _is_text(raw: bytes) -> bool:
    return "text" in stored_text(raw)
