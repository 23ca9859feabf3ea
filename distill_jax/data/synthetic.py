"""Embedded problems: short word problems with worked solutions in GSM8K's form.

A problem is a chain such as 23+4-7 written as a story. Its split is a hash of that chain, so no
chain of the training split is in another split, whatever the names, things, verbs or seed.
"""

import dataclasses
import hashlib
from dataclasses import dataclass

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import setting
from distill_jax.data import fences, synthetic_programs
from distill_jax.data.problem import Problem
from distill_jax.data.synthetic_programs import Story

SPLITS = ("train", "validation", "test")

NAMES = ("Tom", "Ann", "Ben", "Eva", "Sam", "Mia", "Leo", "Zoe")
THINGS = ("pens", "books", "cards", "coins", "cups", "hats", "balls", "toys")
VERBS = {"+": ("buys", "finds", "gets", "wins"), "-": ("loses", "sells", "uses", "drops")}
ENDINGS = ("How many {things} now?", "How many are left?", "How many does {name} have?")

# How long a search for a problem of one split goes on before the settings are called too narrow.
_ATTEMPTS = 2000


@dataclass(frozen=True)
class ProblemSettings:
    """The embedded problem generator."""

    levels: int = setting(5, "Difficulty levels; level n has n steps.", low=1, high=12)
    max_value: int = setting(50, "Every value in a problem lies in 0..max_value.", low=4, high=999)
    max_operand: int = setting(9, "Every step adds or takes 1..max_operand.", low=1, high=999)
    operations: tuple[str, ...] = setting(("+", "-"), "Kinds of steps.", choices=("+", "-"))
    style: str = setting(
        "brief",
        "Solution: brief (`<<23+4=27>>` a line), full (`Tom has 23+4=<<23+4=27>>27 pens.`), or "
        "program, for task=program.",
        choices=("brief", "full", "program"),
    )
    flawed: float = setting(
        0.2,
        "Share of programs (style=program) that are wrong or hard-coded, as models write them.",
        low=0.0,
        high=1.0,
    )
    train_size: int = setting(20_000, "Problems in the training split.", low=1)
    validation_size: int = setting(500, "Problems in the validation split.", low=1)
    test_size: int = setting(1_000, "Problems in the test split.", low=1)

    def __post_init__(self) -> None:
        if not self.operations:
            raise ConfigError("operations=()", wanted="at least one of + and -")
        if self.operations == ("-",) and self.levels >= self.max_value:
            raise ConfigError(
                f"levels={self.levels} with subtraction alone and max_value={self.max_value}",
                fix="raise max_value or lower levels",
            )

    def size(self, split: str) -> int:
        """Problems in a split."""
        return int(getattr(self, f"{split}_size"))


def split_of(chain: str) -> str:
    """The split that owns a chain such as "23+4-7": 80% train, 10% validation, 10% test."""
    digest = hashlib.blake2b(chain.encode(), digest_size=8, person=b"split").digest()
    bucket = int.from_bytes(digest, "little") % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def problem(split: str, index: int, settings: ProblemSettings, seed: int) -> Problem:
    """Problem `index` of a split: a pure function of its arguments.

    The level is 1 + index mod levels, so every run of `levels` indices is balanced.

    Raises:
        ConfigError: the settings leave the split (nearly) no chains.
    """
    level = 1 + index % settings.levels
    for attempt in range(_ATTEMPTS):
        draw = _Draw(f"{seed}/{split}/{index}/{attempt}")
        chain = _draw_chain(draw, level, settings)
        if chain is not None and split_of(_chain_text(chain)) == split:
            found, story = _write(f"embedded/{split}/{index}", chain, draw, settings)
            if settings.style != "program":
                return found
            # Draws of its own: the question is that of the other styles.
            return _with_program(found, story, _Draw(f"{seed}/{found.id}/program"), settings)
    raise ConfigError(
        f"no {split} problem of level {level} found in {_ATTEMPTS} draws",
        fix="widen problems.max_value or problems.max_operand",
    )


def problems(split: str, count: int, settings: ProblemSettings, seed: int) -> list[Problem]:
    """`count` problems of a split with distinct questions, levels in turn (1, 2, …, 1, 2, …).

    Raises:
        ConfigError: the settings do not give that many distinct questions.
    """
    seen: set[str] = set()
    out: list[Problem] = []
    rounds = [0] * settings.levels
    while len(out) < count:
        level = len(out) % settings.levels
        for _ in range(_ATTEMPTS):
            one = problem(split, level + settings.levels * rounds[level], settings, seed)
            rounds[level] += 1
            if one.question not in seen:
                break
        else:
            raise ConfigError(
                f"only {len(out)} distinct {split} problems of {count}",
                fix=f"lower problems.{split}_size or widen problems.max_value",
            )
        seen.add(one.question)
        out.append(one)
    return out


def texts(settings: ProblemSettings, seed: int, n: int) -> list[str]:
    """Questions and solutions of n training problems, for training a tokenizer."""
    rows = [problem("train", index, settings, seed) for index in range(n)]
    return [text for row in rows for text in (row.question, row.solution)]


_Chain = tuple[int, list[tuple[str, int]]]


class _Draw:
    """Small integers out of one hash: the same on every platform and library version."""

    def __init__(self, name: str):
        self._pool = int.from_bytes(hashlib.blake2b(name.encode()).digest(), "little")

    def below(self, count: int) -> int:
        """An integer in 0..count-1; 512 bits last for every problem that settings allow."""
        self._pool, value = divmod(self._pool, count)
        return value


def _draw_chain(draw: _Draw, level: int, settings: ProblemSettings) -> _Chain | None:
    """Start value and steps (sign, operand), or None where no step is possible."""
    start = value = 2 + draw.below(settings.max_value - 1)  # from 2 on: "1 pens" is no English
    steps = []
    for _ in range(level):
        room = {"+": settings.max_value - value, "-": value}
        signs = [sign for sign in settings.operations if room[sign] > 0]
        if not signs:
            return None
        sign = signs[draw.below(len(signs))]
        operand = 1 + draw.below(min(settings.max_operand, room[sign]))
        value += operand if sign == "+" else -operand
        steps.append((sign, operand))
    return start, steps


def _chain_text(chain: _Chain) -> str:
    return str(chain[0]) + "".join(f"{sign}{operand}" for sign, operand in chain[1])


def _write(
    name_of: str, chain: _Chain, draw: _Draw, settings: ProblemSettings
) -> tuple[Problem, Story]:
    """The chain as a problem with its worked solution, and the parts of its story."""
    start, steps = chain
    name, things = NAMES[draw.below(len(NAMES))], THINGS[draw.below(len(THINGS))]
    ending = ENDINGS[draw.below(len(ENDINGS))].format(name=name, things=things)
    clauses = [f"has {start} {things}"]
    lines = []
    value = start
    for sign, operand in steps:
        clauses.append(f"{VERBS[sign][draw.below(len(VERBS[sign]))]} {operand}")
        result = value + operand if sign == "+" else value - operand
        expression = f"{value}{sign}{operand}"
        if settings.style == "brief":
            lines.append(f"<<{expression}={result}>>")
        else:
            lines.append(f"{name} has {expression}=<<{expression}={result}>>{result} {things}.")
        value = result
    text = ", ".join(clauses[:-1]) + f" and {clauses[-1]}"
    written = Problem(
        id=name_of,
        question=f"{name} {text}. {ending}",
        solution="\n".join([*lines, f"#### {value}"]),
        answer=str(value),
        level=len(steps),
        subject="arithmetic",
        extra={"chain": _chain_text(chain)},
    )
    return written, Story(name, things, start, steps)


def _with_program(given: Problem, story: Story, draw: _Draw, settings: ProblemSettings) -> Problem:
    """The problem with a program as its worked solution."""
    text, kind = synthetic_programs.write(story, settings.flawed, draw.below)
    extra = {**given.extra, "program": kind}
    return dataclasses.replace(given, solution=fences.fenced(text), extra=extra)
