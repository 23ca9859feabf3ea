r"""Finding the final answer in a text, by the policy in the package's README.

Marks (`\boxed{}`, `\fbox{}`, `####`, `<answer>`) are trusted most, and of them the last; then the
last "the answer is"; then a text that is nothing but a number. Time is linear in the text.
"""

import re
from dataclasses import dataclass

from distill_jax.answers.numbers import parse_number
from distill_jax.answers.spelling import MAX_ANSWER
from distill_jax.core.errors import DataError

# Answers are at the end; a longer text is read from its end only.
MAX_TEXT = 100_000
MAX_BOXES = 50

_HASHES = re.compile(r"####+[ \t]*((?:(?!####|</)[^\n])*)")
_TAG = re.compile(r"<answer>([^<]*(?:<(?!/?answer>)[^<]*)*)</answer>", re.IGNORECASE)
# "the answer is", "**Answer**: ", and a heading of its own, "### Final Answer"; what follows may
# be some lines below. Bounds keep runs of blanks from being walked again and again.
_BLANKS = r"[ \t*}]{0,9}"
_PHRASE = re.compile(
    rf"(?<!half of the )(?<!times the )(?<!of the )\banswers?(?:{_BLANKS}\s{{1,9}}"
    rf"(?:is|are|(?:would|will|should|must) be)\b|{_BLANKS}[:=])"
    r"(?:\s{1,9}(?:therefore|thus|then|equal to|given by|simply))?"
    rf"{_BLANKS}:?{_BLANKS}(?:\n[ \t]{{0,9}}){{0,3}}"
    rf"|^[#* \t]{{0,9}}(?:the\s)?(?:final\s)?answer{_BLANKS}\n"
    r"(?:[ \t]{0,9}\n){0,3}[ \t]{0,9}",
    re.IGNORECASE | re.MULTILINE,
)
# A formula on lines of its own ends with its sign, not with the line.
_DISPLAYED = re.compile(r"(?:\\\[(.{1,1000}?)\\\]|\$\$(.{1,1000}?)\$\$)", re.DOTALL)
# "#### 2. Verification", "#### Step 1: …" and "#### Final Answer" are headings.
_HEADING = re.compile(
    r"\d+[.)]\s+[A-Za-z]|(?:step|part|case|final answer|answer|solution|verification)\b", re.I
)
# "A: 18" as the last line, unless it is one of several choices.
_SHORT_LABEL = re.compile(rf"[#>* \t]{{0,9}}(?:A|Ans|ANS)\.?{_BLANKS}:{_BLANKS}")
_OTHER_CHOICE = re.compile(r"(?<!\w)[B-J]\s?[.:)]")
_ANSWER_LAST = re.compile(
    r"(?<!\S)([-+$\d(\[{\\.]\S{0,60}) is the (?:final |correct |right )?answer\b"
)
_SENTENCE_END = re.compile(
    r"\.(?=\s|$)|!(?=\s+[A-Z]|\s*$)"
    r"|(?<![\s,]),?\s+(?:because|since|not|which|where|when|as|so|but)\b",
    re.IGNORECASE,
)
_BOX = re.compile(
    r"\\f?box(?:ed)?\s{0,9}(\{|(?=[\s\d])\s*-?[\d.,/]*\d"
    r"|-?\\[dt]?frac\s?(?:\{[^{}]{1,50}\}|\d)\s?(?:\{[^{}]{1,50}\}|\d))"
)
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
_SOLVED = re.compile(r"\[?\{\s*\w{1,20}\s*:\s*([^{}:,]{1,200})\}\]?")  # sympy's solve: {x: 5}
_LABEL = re.compile(r"[A-Za-z)\]]\s{0,9}[:=](?!=)\s*(.+)")


@dataclass(frozen=True)
class Answer:
    """A final answer as written, without the marks around it."""

    text: str


def extract(text: str) -> Answer | None:
    """The final answer that a text gives, or None where it gives none.

    An answer longer than MAX_ANSWER characters counts as none.

    Raises:
        DataError: not a text.
    """
    if not isinstance(text, str):
        raise DataError(
            f"a {type(text).__name__}", wanted="text", fix="of a chat, the last message's content"
        )
    text = _spoken(text[-MAX_TEXT:])
    place, marked = _last_mark(text)
    phrase = _last_phrase(text, place)
    # Words behind #### are a weak mark: "#### Proof", and then "the answer is Tuesday".
    weak = marked is not None and text.startswith("#", place) and not _FORMULA_START.match(marked)
    if phrase is not None and (marked is None or weak or _FORMULA_START.match(phrase)):
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
    if single := _SOLVED.fullmatch(last):
        return _answer(single[1])
    label = _LABEL.search(last)
    # "a = 5, b = 6" and "{x: 5, y: 6}" are answers as they stand.
    several = last[0] in "([{" or (label is not None and re.search(r",[^=:]*[=:]", label[1]))
    if label and not several and not re.search(r"[<>=!]=|[<>]", last) and label[1].strip():
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
        if _HEADING.match(match[1]):
            continue
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
            if text[match.end() : end].strip():
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
    """The words behind the last "the answer is …" or "A: …" after a place."""
    after = max(after, 0)
    start = _labelled_line(text, after)
    if start is None:
        phrases = list(_PHRASE.finditer(text, after))
        if not phrases:
            found = list(_ANSWER_LAST.finditer(text, after))
            return found[-1][1] if found else None
        start = phrases[-1].end()
    rest = text[start:][: 2 * MAX_ANSWER]
    if displayed := _DISPLAYED.match(rest):
        return (displayed[1] or displayed[2]).strip().rstrip(".,;")
    words = re.split(r"\n|</", rest, maxsplit=1)[0].strip().strip("*").strip()
    # In $…$ a stop ends nothing.
    if words.startswith("$") and (closing := words.find("$", 1)) > 0:
        tail = _SENTENCE_END.split(words[closing + 1 :], maxsplit=1)[0]
        words = words[: closing + 1] + tail
    else:
        # "The answer is 3.5. Done." ends at the stop that is followed by space, not inside 3.5.
        words = _SENTENCE_END.split(words, maxsplit=1)[0]
    words = words.replace("**", "").strip().rstrip(".,;")
    if words.endswith(")") and words.count(")") > words.count("("):
        words = words[:-1].rstrip(".,;")  # "(… the answer is 800.)"
    return None if not words or _NO_ANSWER.match(words) else words


def _labelled_line(text: str, after: int) -> int | None:
    """Where the answer starts if the last line is "A: answer"."""
    lines = text[after:].rstrip().splitlines()[-2:]
    label = _SHORT_LABEL.match(lines[-1]) if lines else None
    if label is None:
        return None
    words = lines[-1][label.end() :]
    if _OTHER_CHOICE.match(lines[0].lstrip("-#>* \t(")) or _OTHER_CHOICE.search(words):
        return None
    if not (_FORMULA_START.match(words) or parse_number(words.rstrip("*.")) is not None):
        return None
    return len(text.rstrip()) - len(words)
