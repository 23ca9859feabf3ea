"""A report as data: sections of blocks, which every writer knows how to write."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distill_jax.evaluation.findings import Finding
from distill_jax.report.figures import Plot
from distill_jax.report.tokens import Swatch


class Bold(str):
    """A cell that is emphasised."""


class Text(NamedTuple):
    """A paragraph, in which `code` may occur; style is "", heading or warning."""

    text: str
    style: str = ""


class Bullets(NamedTuple):
    """A list of texts."""

    items: Sequence[str]


class Facts(NamedTuple):
    """Names with their values."""

    pairs: Sequence[tuple[str, str]]


class Table(NamedTuple):
    """A table; its first `names` columns are names, the others figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    names: int = 1


class Curves(NamedTuple):
    """Plots; in Markdown the image NAME.png, with (label, colour) for one legend above all."""

    name: str
    plots: Sequence[Plot]
    legend: Sequence[tuple[str, int]] = ()


class Findings(NamedTuple):
    """A diagnosis."""

    findings: Sequence[Finding]


class Legend(NamedTuple):
    """What the colours of tokens mean."""

    swatches: Sequence[Swatch]


class Step(NamedTuple):
    """A step of an answer: text, colour class of its score, and the score in words."""

    text: str
    colour: str
    title: str


class Answer(NamedTuple):
    """One model's answer: label, right or wrong, text, remarks; where they were scored, its tokens
    (of tokens.json) and the α of their rewards, or its steps."""

    name: str
    verdict: str
    text: str
    notes: Sequence[str] = ()
    tokens: Sequence[Mapping[str, Any]] = ()
    alpha: float = 1.0
    steps: Sequence[Step] = ()


class Answers(NamedTuple):
    """A problem with answers to it."""

    heading: str
    question: str
    gold: str
    answers: Sequence[Answer]


Block = Text | Bullets | Facts | Table | Curves | Findings | Legend | Answers


class Section(NamedTuple):
    """Part of a report.

    Attributes:
        id, title: unique in the report; its heading.
        text, blocks: in order; without blocks the section is skipped, or a page shows `missing`.
        missing: why there are no blocks.
        only: the one writer that shows it, html or markdown; "" for both.
    """

    id: str
    title: str
    blocks: Sequence[Block]
    text: str = ""
    missing: str = ""
    only: str = ""


class Report(NamedTuple):
    """A whole report: title, a sentence on the whole, sections; for a page, what is complete."""

    title: str
    lead: str
    sections: Sequence[Section]
    state: str = ""

    def shown(self, writer: str) -> list[Section]:
        """The sections that a writer shows."""
        return [
            s._replace(blocks=[Text(s.text), *s.blocks]) if s.text and s.blocks else s
            for s in self.sections
            if s.only in ("", writer) and (s.blocks or s.missing)
        ]
