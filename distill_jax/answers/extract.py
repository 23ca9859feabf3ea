r"""Finding the final answer in a text, by the policy in the package's README.

Marks (`\boxed{}`, `\fbox{}`, `####`, `<answer>`) are trusted most, and of them the last; then the
last "the answer is"; then a text that is nothing but a number. Time is linear in the text.
"""

import re
from dataclasses import dataclass

from distill_jax.answers.numbers import parse_number
from distill_jax.answers.spelling import MAX_ANSWER

# Answers stand at the end; a longer text is read from its end only.
MAX_TEXT = 100_000
MAX_BOXES = 50

_HASHES = re.compile(r"####+[ \t]*((?:(?!####)[^\n])*)")
_TAG = re.compile(r"<answer>([^<]*(?:<(?!/?answer>)[^<]*)*)</answer>", re.IGNORECASE)
_PHRASE = re.compile(
    r"\banswer(?:\s+is|\s*[:=])(?:\s+(?:therefore|thus|then|equal to|given by|simply))?"
    r"[ \t*]*:?[ \t*]*\n?[ \t]*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"\.(?=\s|$)|!(?=\s+[A-Z]|\s*$)"
    r"|(?<![\s,]),?\s+(?:because|since|not|which|where|when|as|so|but)\b",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\f?box(?:ed)?\s{0,9}(\{|(?=[\s\d])\s*-?[\d.,/]*\d)")
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$,;.]|\\\(|\\\)|\\[,;]|\\q?quad|\\text\{\s*(?:or|and)\s*\}|or|and|[a-z]\s*=)*"
)
_NO_ANSWER = re.compile(r"(?:because|since|not|which|where|when|as|so|but|in)\b", re.IGNORECASE)
_FORMULA_START = re.compile(r"[-+$\d(\[{\\.√π]")
_THOUGHT = re.compile(
    r"<think(?:ing)?>(?:(?!<think)[^<]|<(?!/?think))*</think(?:ing)?>", re.IGNORECASE
)
_THINK_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THINK = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z)\]]\s{0,9}[:=](?!=)\s*(.+)")


@dataclass(frozen=True)
class Answer:
    """A final answer as written, without the marks around it."""

    text: str


def extract(text: str) -> Answer | None:
    """The final answer that a text gives, or None where it gives none.

    An answer longer than MAX_ANSWER characters counts as none.
    """
    text = _spoken(text[-MAX_TEXT:])
    place, marked = _last_mark(text)
    phrase = _last_phrase(text, place)
    if phrase is not None and (marked is None or _FORMULA_START.match(phrase)):
        return _answer(phrase)
    if marked is not None:
        return _answer(marked)
    whole = text.strip()
    return Answer(whole) if len(whole) < 100 and parse_number(whole) is not None else None


def printed(stdout: str) -> Answer | None:
    """The answer that a program printed: a mark, or its last line, without "label:" before it."""
    lines = stdout[-MAX_TEXT:].strip().splitlines()
    if not lines:
        return None
    last = lines[-1].strip()[-2 * MAX_ANSWER :]
    _, marked = _last_mark(last)
    if marked is not None:
        return _answer(marked)
    label = _LABEL.search(last)
    if label and not re.search(r"[<>=!]=|[<>]", last) and label[1].strip():
        return _answer(label[1].rpartition("=")[2] if ":" not in label[1] else label[1])
    return _answer(last)


def _answer(text: str) -> Answer | None:
    text = text.strip()
    return Answer(text) if 0 < len(text) <= MAX_ANSWER else None


def _spoken(text: str) -> str:
    """What is said outside of thinking."""
    text = _THOUGHT.sub("", text)
    ends = [match.end() for match in _THINK_END.finditer(text)]
    text = text[ends[-1] :] if ends else text
    opened = _THINK.search(text)
    return text[: opened.start()] if opened else text


def _last_mark(text: str) -> tuple[int, str | None]:
    """(where it starts, what it holds) of the mark that starts last; (-1, None) without any."""
    place, found = -1, None
    boxes = _last_boxes(text)
    for match in _HASHES.finditer(text):
        # "#### Verification" is a heading, "#### yes" may be an answer.
        if _FORMULA_START.match(match[1]) or (not boxes and place < 0 and match[1]):
            place, found = match.start(), match[1]
    for match in _TAG.finditer(text):
        if match.start() > place:
            place, found = match.start(), match[1]
    if boxes and boxes[0] > place:
        return boxes
    return place, found


def _last_boxes(text: str) -> tuple[int, str] | None:
    """The last closed box, and those just before it that belong to one list with it."""
    starts = list(_BOX.finditer(text))
    # The bounds keep thousands of unclosed boxes from costing a full scan each.
    boxes: list[tuple[int, int, str]] = []
    for match in starts[-MAX_BOXES:]:
        if match[1] != "{":
            boxes.append((match.start(), match.end(), match[1].strip()))
            continue
        end = _closing(text, match.end())
        if end is not None:
            if boxes and boxes[-1][1] >= match.end():
                boxes.pop()  # of a box in a box the inner one counts
            boxes.append((match.start(), end + 1, text[match.end() : end]))
    if not boxes:
        return None
    place, _, found = boxes[-1]
    values = [found]
    for start, end, value in boxes[-2::-1]:
        between = text[end:place]
        if len(between) > 60 or not _BETWEEN_BOXES.fullmatch(between):
            break
        if not re.search(r",|or|and", between):
            break
        values.insert(0, value)
        place = start
    return place, ", ".join(values)


def _closing(text: str, start: int) -> int | None:
    depth = 1
    for place in range(start, min(len(text), start + MAX_ANSWER + 1)):
        char = text[place]
        if char in "{}" and text[place - 1] != "\\":
            depth += 1 if char == "{" else -1
        if depth == 0:
            return place
    return None


def _last_phrase(text: str, after: int) -> str | None:
    """The words of the last "the answer is …" behind a place."""
    phrases = list(_PHRASE.finditer(text, max(after, 0)))
    if not phrases:
        return None
    words = text[phrases[-1].end() :][: 2 * MAX_ANSWER].split("\n", 1)[0].strip().strip("*").strip()
    # In $…$ a stop ends nothing.
    if words.startswith("$") and (closing := words.find("$", 1)) > 0:
        tail = _SENTENCE_END.split(words[closing + 1 :], maxsplit=1)[0]
        words = words[: closing + 1] + tail
    else:
        # "The answer is 3.5. Done." ends at the stop that is followed by space, not inside 3.5.
        words = _SENTENCE_END.split(words, maxsplit=1)[0]
    words = words.replace("**", "").strip().rstrip(".,;")
    return None if not words or _NO_ANSWER.match(words) else words
