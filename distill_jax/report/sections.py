"""A report as data: sections of blocks, which every writer knows how to write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_jax.evaluation.findings import Finding
from distill_jax.report.figures import Plot
from distill_jax.report.tokens import Swatch


class Bold(str):
    """A cell that is emphasised."""


@dataclass(frozen=True)
class Heading:
    """Begins a part of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A text, in which `code` may occur; a warning is set off."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of texts."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table; its first `names` columns are names, the others figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    names: int = 1


@dataclass(frozen=True)
class Curves:
    """Plots: figures of a page, or the image NAME.png with one legend or a legend each."""

    name: str
    plots: Sequence[Plot]
    legend: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Findings:
    """A diagnosis."""

    findings: Sequence[Finding]


@dataclass(frozen=True)
class Legend:
    """What the colours of tokens mean."""

    swatches: Sequence[Swatch]


@dataclass(frozen=True)
class Answer:
    """One model's answer to a problem.

    Attributes:
        name: label of the model.
        verdict: right or wrong.
        text: as decoded.
        notes: short remarks.
        tokens: of tokens.json: text or bytes, reward, q, value, logp; () where not scored.
        alpha: soft temperature of the rewards.
    """

    name: str
    verdict: str
    text: str
    notes: Sequence[str] = ()
    tokens: Sequence[Mapping[str, Any]] = ()
    alpha: float = 1.0


@dataclass(frozen=True)
class Answers:
    """A problem with answers to it."""

    heading: str
    question: str
    gold: str
    answers: Sequence[Answer]


Block = Heading | Paragraph | Bullets | Facts | Table | Curves | Findings | Legend | Answers


@dataclass(frozen=True)
class Section:
    """Part of a report.

    Attributes:
        id: unique in the report.
        title: its heading.
        blocks: in order; without any the section is left out, or says what is missing.
        missing: for a page, where there are no blocks: why.
        only: the one writer that shows it, html or markdown; "" for both.
    """

    id: str
    title: str
    blocks: Sequence[Block] = ()
    missing: str = ""
    only: str = ""


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: above all.
        lead: a sentence on the whole.
        sections: in order.
        state: for a page: what is complete.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    state: str = ""

    def shown(self, writer: str) -> list[Section]:
        """The sections that a writer shows."""
        return [s for s in self.sections if s.only in ("", writer) and (s.blocks or s.missing)]
