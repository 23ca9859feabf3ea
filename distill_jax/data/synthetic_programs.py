"""Embedded programs: the chain of an embedded problem as Python, in several styles.

STYLES maps a style's name to what writes it. Two further kinds are flawed on purpose, as what a
model writes is: `wrong`, a step changed, and `constant`, the answer without its computation.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

_VERBS = {"+": "adds", "-": "takes"}


class Story(NamedTuple):
    """The parts of a problem: who has what things, how many at the start, steps (sign, operand)."""

    name: str
    things: str
    start: int
    steps: Sequence[tuple[str, int]]

    @property
    def answer(self) -> int:
        """The value after all steps."""
        return self.start + sum(
            operand if sign == "+" else -operand for sign, operand in self.steps
        )


def _sum(story: Story) -> str:
    return " ".join([str(story.start), *(f"{sign} {operand}" for sign, operand in story.steps)])


def inline(story: Story) -> list[str]:
    """One line."""
    return [f"print({_sum(story)})"]


def concise(story: Story) -> list[str]:
    """A line a step, a short name."""
    return [f"n = {story.start}", *(f"n {sign}= {x}" for sign, x in story.steps), "print(n)"]


def checked(story: Story) -> list[str]:
    """A line a step, named after the things, and an assertion."""
    things = story.things
    steps = [f"{things} {sign}= {operand}" for sign, operand in story.steps]
    return [f"{things} = {story.start}", *steps, f"assert {things} >= 0", f"print({things})"]


def commented(story: Story) -> list[str]:
    """A comment before each step, an assertion at the end."""
    name, things = story.name, story.things
    lines = [f"# {name} has {story.start} {things}", f"{things} = {story.start}"]
    for sign, operand in story.steps:
        lines += [f"# {_VERBS[sign]} {operand}", f"{things} {sign}= {operand}"]
    return [*lines, "# check", f"assert {things} >= 0", f"print({things})"]


def verbose(story: Story) -> list[str]:
    """A name, a comment and an assertion for each step."""
    lines, last = [f"# {story.name} has {story.start}", f"n0 = {story.start}"], "n0"
    for number, (sign, operand) in enumerate(story.steps, 1):
        order = ">" if sign == "+" else "<"
        lines += [
            f"# {_VERBS[sign]} {operand}",
            f"n{number} = {last} {sign} {operand}",
            f"assert n{number} {order} {last}",
        ]
        last = f"n{number}"
    return [*lines, f"print({last})"]


STYLES: dict[str, Callable[[Story], list[str]]] = {
    "inline": inline,
    "concise": concise,
    "checked": checked,
    "commented": commented,
    "verbose": verbose,
}


def write(story: Story, flawed: float, below: Callable[[int], int]) -> tuple[str, str]:
    """(the program, its kind: the name of a style, wrong or constant).

    Args:
        story: of the problem.
        flawed: share of problems whose program is wrong or constant, half of them each.
        below: draws an integer below another.
    """
    style = list(STYLES)[below(len(STYLES))]
    if below(1000) >= 1000 * flawed:
        return _text(STYLES[style](story)), style
    if below(2):
        return _text([f"{story.things} = {story.answer}", f"print({story.things})"]), "constant"
    steps, changed = list(story.steps), below(len(story.steps))
    sign, operand = steps[changed]
    steps[changed] = ({"+": "-", "-": "+"}[sign], operand) if below(2) else (sign, operand + 1)
    return _text(STYLES[style](story._replace(steps=steps))), "wrong"


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines)
