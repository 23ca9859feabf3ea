"""A report as one HTML file that needs no network and no script."""

import re
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from distill_jax.report import figures, tokens
from distill_jax.report.sections import Answer, Report

_HERE = Path(__file__).parent
_CODE = re.compile(r"`([^`]*)`")


def render(report: Report) -> str:
    """The page; the same report gives the same bytes. All text of the report is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "code": lambda text: Markup(_CODE.sub(r"<code>\1</code>", str(escape(text)))),
        "visible": tokens.visible,
        "svg": figures.svg,
        "describe": figures.describe,
        "kind": lambda block: type(block).__name__,
    }
    return environment.get_template("report.jinja").render(
        css=Markup((_HERE / "report.css").read_text("utf-8")),
        report=report,
        sections=report.shown("html"),
        cells=lambda answer: tokens.cells(answer.tokens, answer.alpha),
        token_rows=_token_rows,
        token_header=("#", "token", "r", "π teacher", "Q", "V", "log π writer"),
    )


def _token_rows(answer: Answer) -> list[list[str]]:
    """The figures of each token, as a table for readers who cannot point at one."""
    cells = tokens.cells(answer.tokens, answer.alpha)
    return [
        [
            str(place),
            cell.shown.replace("\n", "").replace(" ", "␣"),
            *tokens.figures(token, answer.alpha),
        ]
        for place, (cell, token) in enumerate(zip(cells, answer.tokens, strict=True), 1)
    ]
