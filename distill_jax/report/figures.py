"""Plots as data, and their two forms: SVG for a page, PNG for Markdown."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core import files

# Okabe and Ito's palette for the colour-blind; the blue is lighter, to be seen on black too.
COLOURS = ("#1f83c6", "#d55e00", "#009e73", "#cc79a7", "#8c8c00", "#7f7f7f", "#56b4e9", "#e69f00")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P")
# Drawn in this colour, then replaced by the page's own, which is light on a dark page.
_INK = "#123456"
_THEME = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>"
_SHAPE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.limits": (-3, 4),  # others need more room than is left of the axes
    "legend.framealpha": 0.0,
    "grid.color": "#888888",
    "grid.alpha": 0.3,
}
_SVG: Any = {
    **_SHAPE,
    "svg.fonttype": "none",
    "svg.hashsalt": "distill_jax",  # the same data give the same bytes
    "font.sans-serif": ["DejaVu Sans"],  # a list of ten would be repeated at every word
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
    ),
}


class Series(NamedTuple):
    """One line, set of points or set of bars.

    Attributes:
        label: in the legend.
        x_K, y_K: steps, or places in the plot's ticks; values.
        low_K, high_K: ends of a line's band, of error bars or of an area; None without.
        style: line, points, joined (points with a line), bars or area (from low to high).
        colour: index of COLOURS; None: the place among the plot's series.
    """

    label: str
    x_K: np.ndarray
    y_K: np.ndarray
    low_K: np.ndarray | None = None
    high_K: np.ndarray | None = None
    style: str = "line"
    colour: int | None = None


class Plot(NamedTuple):
    """A plot.

    Attributes:
        title, xlabel, ylabel: above it and at its axes.
        series: drawn in this order.
        subject: how its description begins; "" takes the title.
        ticks: names of x = 0, 1, …, at which the series are grouped; () for numbers.
        limits: of y; None fits the data.
        unit: of y in the description.
        legend: draws one if there is more than one series.
    """

    title: str
    series: Sequence[Series]
    subject: str = ""
    xlabel: str = "step"
    ylabel: str = ""
    ticks: Sequence[str] = ()
    limits: tuple[float, float] | None = None
    unit: str = ""
    legend: bool = True


SHARE = (-0.03, 1.03)


def describe(plot: Plot) -> str:
    """The plot in words, for a reader who cannot see it."""
    subject, said = plot.subject or plot.title, []
    for label, x_K, y_K, *_ in plot.series:
        if plot.ticks:
            points = zip(x_K.astype(int), y_K, strict=True)
            parts = [f"{plot.xlabel} {plot.ticks[x]} {y:.1f}{plot.unit}".strip() for x, y in points]
        else:
            ends = sorted({0, len(x_K) - 1})
            parts = [f"{y_K[k]:.4g} at {plot.xlabel} {x_K[k]:.0f}" for k in ends]
            parts += [f"between {y_K.min():.4g} and {y_K.max():.4g}"] * (len(ends) - 1)
        said.append(f"{label}: {', '.join(parts)}")
    if plot.ticks:
        return f"{subject}. {'; '.join(said)}."
    return " ".join([f"{subject}, against the {plot.xlabel}.", *(f"{one}." for one in said)])


# Inches: the axes, what is around them, a line of a legend. A layout engine would measure every
# text and draw twice.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM, _LINE = 3.2, 2.1, 0.95, 0.2, 0.3, 0.5, 0.18


def svg(plot: Plot) -> str:
    """A data URI of the plot without its title, in the page's colours."""
    import matplotlib  # not above: it takes half a second, and most stages draw nothing

    with matplotlib.rc_context(_SVG):
        out, figure = io.StringIO(), _grid([plot._replace(title="")])
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    text = out.getvalue().replace(_INK, "currentColor")
    text = text[text.index("<svg") :]  # without prologue and document type
    end = text.index(">") + 1
    text = text[:end] + _THEME + text[end:]
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def png(plots: Sequence[Plot], path: Path, legend: Sequence[tuple[str, int]] = ()) -> None:
    """Writes a grid of plots to a .png; its folder is made.

    legend: (label, colour) above the grid, for plots that share their colours.
    """
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_SHAPE), files.whole(path) as partial:
        _grid(plots, legend).savefig(partial, format="png", dpi=110)


def _grid(plots: Sequence[Plot], legend: Sequence[tuple[str, int]] = ()) -> Any:
    """A figure of the plots, three in a row, all axes of one size."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [plots[k : k + 3] for k in range(0, len(plots), 3)]
    heights = [_HEIGHT + _TOP + max(map(_below, row)) for row in rows]
    width, across = _LEFT + _WIDTH + _RIGHT, len(rows[0])
    top = sum(heights)
    longest = max((len(label) for label, _ in legend), default=0)
    columns = max(1, min(2 * across, int(width * across / (0.7 + 0.08 * longest))))
    head = 0.12 + 0.2 * -(-len(legend) // columns) if legend else 0.0
    figure = Figure(figsize=(width * across, top + head))
    for row, height in zip(rows, heights, strict=True):
        for column, plot in enumerate(row):
            _draw(figure, plot, width * column + _LEFT, top - _TOP - _HEIGHT)
        top -= height
    if legend:
        patches = [Patch(color=_colour(number), label=label) for label, number in legend]
        figure.legend(handles=patches, loc="upper center", ncols=columns)
    return figure


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _below(plot: Plot) -> float:
    """Inches below the axes, for ticks, label and legend."""
    longest = max(map(len, plot.ticks), default=0)
    lines = len(plot.series) if plot.ticks and plot.legend else 0
    return _BOTTOM + (0.07 * longest if longest > 8 else 0.0) + _LINE * lines


def _draw(figure: Any, plot: Plot, x: float, y: float) -> None:
    """Draws axes whose lower left corner is at (x, y), in inches."""
    wide, high = figure.get_size_inches()
    axis = figure.add_axes((x / wide, y / high, _WIDTH / wide, _HEIGHT / high))
    axis.set_title(plot.title, fontsize=10)
    axis.grid(True, axis="y" if plot.ticks else "both")
    count = len(plot.series)
    for place, series in enumerate(plot.series):
        number = place if series.colour is None else series.colour
        width = min(0.14, 0.7 / count) if series.style == "points" else 0.8 / count
        shift = width * (place - (count - 1) / 2) if plot.ticks else 0.0
        _draw_series(axis, series, number, series.x_K + shift, width)
    if plot.ticks:
        slanted: Any = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
        style = slanted if max(map(len, plot.ticks)) > 8 else {}
        axis.set_xticks(range(len(plot.ticks)), list(plot.ticks), **style)
    if plot.limits is not None:
        axis.set_ylim(*plot.limits)
    axis.set_xlabel(plot.xlabel)
    axis.set_ylabel(plot.ylabel)
    if plot.legend and count > 1:
        # Next to bars and error bars there is no room inside the axes.
        below: Any = {
            "loc": "lower center",
            "bbox_to_anchor": (x + _WIDTH / 2, y - _below(plot)),
            "bbox_transform": figure.dpi_scale_trans,
        }
        axis.legend(fontsize=8, **(below if plot.ticks else {}))


def _draw_series(axis: Any, series: Series, number: int, x_K: np.ndarray, width: float) -> None:
    y_K, low_K, high_K = series.y_K, series.low_K, series.high_K
    style: Any = {"color": _colour(number), "label": series.label}
    errors = None
    if low_K is not None and high_K is not None:
        # A mean of equal values can be off by one rounding.
        errors = np.maximum(0.0, [y_K - low_K, high_K - y_K])
        if series.style in ("line", "area"):
            band: Any = {**style, "alpha": 0.85} if series.style == "area" else {"alpha": 0.25}
            axis.fill_between(x_K, low_K, high_K, linewidth=0, **{"color": style["color"], **band})
    if series.style == "bars":
        axis.bar(x_K, y_K, width, yerr=errors, error_kw={"linewidth": 0.8}, **style)
    elif series.style in ("points", "joined"):
        form = _MARKERS[number % len(_MARKERS)] + ("-" if series.style == "joined" else "")
        axis.errorbar(x_K, y_K, yerr=errors, fmt=form, capsize=2, markersize=4, **style)
    elif series.style == "line":
        marker = "." if len(x_K) < 20 else ""
        axis.plot(x_K, y_K, _DASHES[number % len(_DASHES)], marker=marker, **style)
