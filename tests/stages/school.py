"""Word problems in GSM8K's form, in words of our own, as long as GSM8K's are in Qwen's tokens."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Questions, solutions and answers, short ones and long ones.
_FORMS = (
    (
        "{name} has {a} shelves with {b} jars each. How many jars are there?",
        "Each of the {a} shelves has {b} jars, so there are {a}*{b}=<<{a}*{b}={ab}>>{ab} jars.",
        "ab",
    ),
    (
        "A ferry carries {a} cars on its lower deck and {b} more than that on its upper deck. Each "
        "car pays ${c}. How much money does one full crossing bring in?",
        "The upper deck carries {a}+{b}=<<{a}+{b}={s}>>{s} cars.\n"
        "Both decks carry {a}+{s}=<<{a}+{s}={t}>>{t} cars.\n"
        "A full crossing brings in {t}*{c}=$<<{t}*{c}={tc}>>{tc}.",
        "tc",
    ),
    (
        "{name} bakes {a} trays of rolls on Friday and {b} trays on Saturday. Every tray holds {c} "
        "rolls. On Sunday morning {d} rolls are given to the neighbours, and the rest are sold at "
        "the market for $2 apiece. How many dollars does {name} earn at the market?",
        "Over two days {name} bakes {a}+{b}=<<{a}+{b}={s}>>{s} trays of rolls.\n"
        "That makes {s}*{c}=<<{s}*{c}={sc}>>{sc} rolls altogether.\n"
        "After the neighbours have theirs, {sc}-{d}=<<{sc}-{d}={left}>>{left} rolls are left for "
        "the market.\n"
        "Selling them brings in {left}*2=$<<{left}*2={twice}>>{twice}.",
        "twice",
    ),
    (
        "The school library buys new books for three classes. The first class asks for {a} books, "
        "the second class asks for {b} books more than the first, and the third class asks for as "
        "many books as the first two classes together. A book costs ${c} on average. The parents' "
        "association pays ${d} of the bill, the town pays half of what remains, and the school has "
        "to find the other half by itself. What would all the books cost before anybody helps?",
        "To find the cost we first need the number of books that each of the classes asks for.\n"
        "The first class asks for {a} books, as the problem says.\n"
        "The second class asks for {b} more, which is {a}+{b}=<<{a}+{b}={s}>>{s} books.\n"
        "The third class asks for as many as both of them together, which is "
        "{a}+{s}=<<{a}+{s}={t}>>{t} books.\n"
        "The three classes therefore want {t}+{t}=<<{t}+{t}={tt}>>{tt} books in all.\n"
        "At an average of ${c} a book, the bill comes to {tt}*{c}=$<<{tt}*{c}={ttc}>>{ttc}.\n"
        "What the parents' association and the town pay later does not change the bill itself, "
        "since the question is about the cost before anybody helps, so nothing is taken away from "
        "it and ${ttc} is the whole cost of the books.",
        "ttc",
    ),
)  # fmt: skip
_NAMES = ("Amara", "Jonas", "Priya", "Mateo", "Ingrid", "Kofi", "Wen", "Salma")


def problems(count: int, seed: int) -> Iterator[dict[str, str]]:
    """Rows of question and answer, in GSM8K's form; shorter and longer forms in turn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        question, solution, answer = _FORMS[number % len(_FORMS)]
        a, b, c, d = (int(x) for x in rng.integers(3, 30, 4))
        s = a + b
        values = {"a": a, "b": b, "c": c, "d": d, "ab": a * b, "s": s, "t": a + s}
        values |= {"tc": (a + s) * c, "sc": s * c, "left": s * c - d, "twice": 2 * (s * c - d)}
        values |= {"tt": 2 * (a + s), "ttc": 2 * (a + s) * c}
        named = {**values, "name": _NAMES[rng.integers(len(_NAMES))]}
        text = solution.format(**named)
        yield {
            "question": question.format(**named),
            "answer": f"{text}\n#### {values[answer]}",
        }


def write(directory: Path, **counts: int) -> Path:
    """SPLIT.jsonl of so many rows each."""
    directory.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(counts.items()):
        lines = [json.dumps(row) for row in problems(count, seed)]
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory
