"""Every block in both writers: what each shows, and that text is never markup."""

from pathlib import Path

import numpy as np
import pytest

from distill_jax.evaluation.findings import BAD, Finding
from distill_jax.report import figures, html, markdown, tokens
from distill_jax.report.figures import Plot, Series
from distill_jax.report.sections import (
    Answer,
    Answers,
    Bold,
    Bullets,
    Curves,
    Facts,
    Findings,
    Legend,
    Report,
    Section,
    Table,
    Text,
)

EVIL = "<b>&|</b>"
LINE = Plot("loss", [Series("train", np.array([1.0, 2.0]), np.array([4.0, 2.0]))])
FINDING = Finding("entropy", BAD, "it falls", None, {"rl.optimizer.learning_rate": "lower"})
REPORT = Report(
    "Title",
    f"Made by `run {EVIL}`.",
    [
        Section(
            "all",
            "All blocks",
            [
                Text("Part", "heading"),
                Text(f"take {EVIL} care", "warning"),
                Bullets(["first", f"second {EVIL}"]),
                Facts([("seed", f"3 {EVIL}")]),
                Table(["arm", "x"], [[f"a {EVIL}", Bold("1.0 [0.5, 1.5]")]], "rows"),
                Curves("one", [LINE], [("train", 0)]),
                Findings([FINDING]),
                Legend(tokens.legend(1.0)),
                Answers("Head", "Why?", "42", [Answer("teacher", "right", "a\nb `c`")]),
            ],
            "Before all.",
        ),
        Section("none", "Nothing", [], "Unseen.", "No rows yet."),
        Section("silent", "Silent", []),
        Section("page", "For pages", [Text("in the page")], only="html"),
        Section("file", "For files", [Text("in the file")], only="markdown"),
    ],
    "Complete: all.",
)


def test_markdown(tmp_path: Path) -> None:
    markdown.write(REPORT, tmp_path / "r.md", tmp_path / "images")
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert text == (
        f"# Title\n\nMade by `run {EVIL}`.\n\n## All blocks\n\nBefore all.\n\n### Part\n\n"
        f"take {EVIL} care\n\n- first\n- second {EVIL}\n\n- seed: 3 {EVIL}\n\n"
        "| arm | x |\n| --- | --- |\n| a <b>&\\|</b> | **1.0 [0.5, 1.5]** |\n\n*rows*\n\n"
        "![one](images/one.png)\n\n"
        "| what | status | found |\n| --- | --- | --- |\n"
        "| entropy | bad | it falls; `rl.optimizer.learning_rate`: lower |\n\n"
        "**Why?** (gold 42)\n\n- teacher (right): `a ⏎ b 'c'`\n\n"
        "## For files\n\nin the file\n"
    )
    assert (tmp_path / "images" / "one.png").read_bytes().startswith(b"\x89PNG")


def test_html() -> None:
    text = html.render(REPORT)
    safe = "&lt;b&gt;&amp;|&lt;/b&gt;"
    assert EVIL not in text and text.count(safe) == 5
    for part in (
        f"<p>Made by <code>run {safe}</code>.</p>",
        "<p>Complete: all.</p>",
        "<p>Before all.</p>",
        "<h3>Part</h3>",
        f'<p class="missing">take {safe} care</p>',
        f"<li>second {safe}</li>",
        f"<dt>seed</dt><dd>3 {safe}</dd>",
        '<strong>1.0<span class="interval">[0.5, 1.5]</span></strong>',
        '<img alt="loss, against the step. train: 4 at step 1, 2 at step 2, between 2 and 4."',
        "<li><code>rl.optimizer.learning_rate</code>: lower</li>",
        '<li class="t t5">below 0.01<br>',
        '<div class="said">a↵\nb `c`</div>',
        '<p class="missing">No rows yet.</p>',
        "in the page",
    ):
        assert part in text, part
    assert "Silent" not in text and "in the file" not in text and "Unseen" not in text
    assert text.count("<section id=") == 3 == text.count('<li><a href="#')


@pytest.mark.parametrize("style", ["line", "points", "joined", "bars", "area"])
def test_every_style_is_drawn(tmp_path: Path, style: str) -> None:
    x, y = np.arange(3.0), np.array([1.0, 2.0, 4.0])
    ticks = ("a", "b", "c") if style in ("points", "bars") else ()
    series = [Series(name, x, y + k, y, y + 2, style) for k, name in enumerate("pq")]
    plot = Plot("title", series, ticks=ticks, xlabel="arm", unit="%")
    figures.png([plot], tmp_path / "new" / "drawn.png")
    empty = plot._replace(series=[s._replace(y_K=y * np.nan, low_K=y, high_K=y) for s in series])
    figures.png([empty], tmp_path / "empty.png")
    drawn = (tmp_path / "new" / "drawn.png").read_bytes()
    assert drawn != (tmp_path / "empty.png").read_bytes()
    said = figures.describe(plot)
    assert "q: arm a 2.0%, arm b 3.0%" in said if ticks else "p: 1 at arm 0, 4 at arm 2" in said
    assert figures.svg(plot) == figures.svg(plot)
