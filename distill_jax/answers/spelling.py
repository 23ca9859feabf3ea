r"""One spelling for answers: Unicode, LaTeX and Markdown variants of a sign become one.

The result is text that the readers of numbers, shapes and formulas share: ASCII operators, LaTeX
commands for what ASCII lacks, `\text{}` opened, math delimiters gone, dollars of money as DOLLAR.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

MAX_ANSWER = 1_000

DOLLAR = "\x01"

_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "0123456789+-()n")
_SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ", "0123456789+-()n")
_SUPER_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ]+")
_SUB_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ]+")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\u00ad]")
_MONEY_BEFORE = re.compile(r"([€£¥])\s*(\d[\d.,]*)")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_SIGNS = {
    "\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\ufe63": "-",
    "×": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "⁄": "/", "∕": "/",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "√": r"\sqrt ", "∛": r"\sqrt[3]",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "φ": r"\phi ", "λ": r"\lambda ",
    "…": r"\ldots ", "∶": ":", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "ℝ": r"\mathbb{R}", "€": " euros ",
    "£": " pounds sterling ", "¢": " cents ", "¥": " yen ",
    "“": '"', "”": '"', "‘": "'", "’": "'", "′": "'",
}  # fmt: skip
_SIGN = re.compile("[" + "".join(map(re.escape, _SIGNS)) + "]")

# Commands that only place or size things; then those with several names.
_NOTHING = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|mathopen|mathclose)"
    r"(?![A-Za-z])\.?|\\!"
)
_SPACE = re.compile(r"\\[,;:> ]|\\q?quad(?![A-Za-z])|~|\\\n|\\(?:hspace|phantom)\{[^{}]*\}")
_FONTS = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|tt|normal)?|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname\*?|bm"
    r"|boldsymbol|emph|rm|bf)\s*\{([^{}]*)\}"
)
_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "leq": "le", "leqslant": "le", "lt": "<", "geq": "ge", "geqslant": "ge", "gt": ">",
    "neq": "ne", "times": "cdot", "ast": "cdot", "div": "/", "lbrace": r"\{", "rbrace": r"\}",
    "lbrack": "[", "rbrack": "]", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
    "varnothing": "emptyset", "degree": r"^\circ", "degrees": r"^\circ", "arcdeg": r"^\circ",
    "union": "cup", "colon": ":", "dots": "ldots", "cdots": "ldots", "simeq": "approx",
    "sim": "approx", "varphi": "phi", "varepsilon": "epsilon", "land": r" and ", "lor": r" or ",
    "wedge": r" and ", "vee": r" or ", "percent": "%", "euro": " euros ", "And": " and ",
    "langle": "⟨", "rangle": "⟩", "rm": "", "bf": "", "it": "",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_CIRCLE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
# `11,\! 111` and `11{,}111` group digits; `11, 111` and `11,\, 111` list two numbers.
_THOUSANDS = re.compile(r"(?<=\d)(?:\s|\\!)*(?:\{,\}(?:\s|\\[!,;:])*|,\s*(?:\\!\s*)+)(?=\d)")
_MONEY = re.compile(r"\$(?=\s*-?[\d.]*\d)")
_BOLD = re.compile(r"(^|[\s(])\*\*([^\s*](?:[^*]*[^\s*])?)\*\*")  # Markdown's
_POWER = re.compile(r"(?<=[\w)\]}!])\s*\*\*\s*(?=[\w(+{\\.-])")
_PLAIN = re.compile(r"[+-]?\d+(?:\.\d+)?")


@lru_cache(maxsize=65_536)
def tidy(text: str) -> str:
    """The answer in one spelling; single spaces, none outside, no final stop."""
    if _PLAIN.fullmatch(text):
        return text
    if not text.isascii():
        text = _ascii(text)
    if "\\" in text or "~" in text or "{,}" in text:
        text = _latex(text)
    if "**" in text:
        text = _POWER.sub("^", _BOLD.sub(r"\1\2", text)).replace("**", "")
    text = text.replace("`", "")
    text = _dollars(text)
    return _bare(" ".join(text.split()))


def _ascii(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    text = _MONEY_BEFORE.sub(r"\2 \1", text)
    text = _SUPER_RUN.sub(lambda m: "^{" + m[0].translate(_SUPER) + "}", text)
    text = _SUB_RUN.sub(lambda m: "_{" + m[0].translate(_SUB) + "}", text)
    # NFKC opens ½ to 1⁄2: apart from a whole number before it, "1½" is 1 1/2.
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]), text)
    text = _SIGN.sub(lambda m: _SIGNS[m[0]], text)
    return unicodedata.normalize("NFKC", text)


def _same(match: re.Match[str]) -> str:
    new = _SAME.get(match[1])
    if new is None:
        return match[0]
    return "\\" + new if new.isalpha() else new


def _latex(text: str) -> str:
    text = text.replace("\\$", DOLLAR).replace("\\%", "%").replace("\\#", "#").replace("\\&", "&")
    text = re.sub(r"\\[()]", "", text)
    text = re.sub(r"^[\s$]*\\f?box(?:ed)?\s*\{(.*)\}[\s$.]*$", r"\1", text, flags=re.DOTALL)
    # \[ \] are delimiters of a whole answer only: "\\[1ex]" in matrices is a row's end.
    text = re.sub(r"^\s*\\\[(.*)\\\]\s*$", r"\1", text, flags=re.DOTALL)
    text = _THOUSANDS.sub(",", text)
    text = text.replace("\\\\", "\\cr ")
    text = _SPACE.sub(" ", _NOTHING.sub("", text))
    for _ in range(4):
        opened = _FONTS.sub(_open, text)
        if opened == text:
            break
        text = opened
    text = _COMMAND.sub(_same, text)
    return _CIRCLE.sub(r"^\\circ ", text)


def _open(match: re.Match[str]) -> str:
    r"""`10\text{ cm}` is 10 cm; a lone letter, as in `3\text{ m}`, must not look like algebra."""
    inner = match[1]
    before = match.string[match.start() - 1 : match.start()]
    apart = " " if before.isalnum() or before in "})" else ""
    return f"{apart}{inner} "


def _dollars(text: str) -> str:
    count = text.count("$")
    if not count:
        return text
    if count % 2:
        text = _MONEY.sub(DOLLAR, text)
    elif not (text.strip(" .").startswith("$") and text.strip(" .").endswith("$")):
        # "$5 and $7" is money, "the value $x$" is not.
        pieces = text.split("$")[1:]
        if all(re.match(r"\s*[\d.]*\d", piece) for piece in pieces):
            text = _MONEY.sub(DOLLAR, text)
    return text.replace("$", "")


def _bare(text: str) -> str:
    """Without a final stop or comma and without quotes around the whole."""
    while True:
        new = text.strip()
        if new.endswith((".", ",", ";", ":")) and not new.endswith(("...", r"\.", r"\,")):
            new = new[:-1]
        if len(new) > 1 and new[0] == new[-1] and new[0] in "\"'":
            new = new[1:-1]
        if new == text:
            return text
        text = new


def squeeze(text: str) -> str:
    """Without spaces, save between digits: "1 2" is not 12."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


_OPENING, _CLOSING = "([{⟨", ")]}⟩"
COMMA = re.compile(r"(?<!\d),|,(?!\d{3}(?!\d))")  # that of 1,000 splits nothing
COLON = re.compile(":")


def outside_brackets(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The matches of a pattern outside all brackets."""

    def level(before: str) -> int:
        return sum(map(before.count, _OPENING)) - sum(map(before.count, _CLOSING))

    return [match for match in pattern.finditer(text) if level(text[: match.start()]) == 0]


def cut(text: str, matches: Sequence[re.Match[str]]) -> list[str]:
    """The pieces of a text between matches."""
    ends = [0, *(match.end() for match in matches)]
    starts = [*(match.start() for match in matches), len(text)]
    return [text[a:b] for a, b in zip(ends, starts, strict=True)]


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    """Splits at separators outside all brackets."""
    return cut(text, outside_brackets(separator, text))


def closes(body: str) -> bool:
    """Whether each bracket inside is closed inside."""
    level = 0
    for char in body:
        level += (char in _OPENING) - (char in _CLOSING)
        if level < 0:
            return False
    return level == 0
