"""Drawn with fixed margins: no text leaves the figure, legends cover nothing."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from distill_jax.report import figures
from distill_jax.report.figures import Plot, Series

X_K = np.arange(5.0)


def lines(*scales: float) -> list[Series]:
    return [Series(f"series {scale}", X_K, scale * (X_K - 2.5)) for scale in scales]


PLOTS = {
    "large": Plot("a loss", lines(1.0, 123_456.0), ylabel="loss"),
    "small": Plot("a rate", lines(1.2e-7), ylabel="rate"),
    "negative": Plot("a reward", lines(-9_999.0, 0.012_345)),
    "near": Plot("a value", [Series("value", X_K, 1_234.5 + 1e-4 * X_K)]),
    "levels": Plot(
        "% right", lines(1, 2, 3, 4, 5, 6), ticks=tuple("12345"), xlabel="level", ylabel="%"
    ),
    "names": Plot("% right", lines(1, 2), ticks=("a long name of an arm",) * 5, ylabel="%"),
}


@pytest.mark.parametrize("title", [True, False])
@pytest.mark.parametrize("names", [(name,) for name in PLOTS] + [tuple(PLOTS)])
def test_no_text_is_cut_off_or_covered(names: tuple[str, ...], title: bool) -> None:
    legend = [(f"arm {k}", k) for k in range(7)] if title else []
    plots = [PLOTS[name] if title else PLOTS[name]._replace(title="") for name in names]
    with matplotlib.rc_context(figures._SHAPE):
        figure = figures._grid(plots, legend)
        FigureCanvasAgg(figure).draw()
        boxes = {}
        for place, axis in enumerate(figure.axes):
            boxes[place, "title"] = axis.title.get_window_extent()
            for one in (axis.xaxis, axis.yaxis):
                boxes[place, one.axis_name] = one.label.get_window_extent()
                shown = one.get_ticklabels()
                low, high = sorted(one.get_view_interval())
                boxes |= {
                    (place, one.axis_name, label.get_text()): label.get_window_extent()
                    for label, at in zip(shown, one.get_ticklocs(), strict=True)
                    if low <= at <= high
                }
            boxes[place, "offset"] = axis.yaxis.get_offset_text().get_window_extent()
            if axis.get_legend() and plots[place].ticks:
                boxes[place, "legend"] = axis.get_legend().get_window_extent()
        boxes |= {("figure", k): one.get_window_extent() for k, one in enumerate(figure.legends)}
    whole = figure.bbox
    drawn = {name: box for name, box in boxes.items() if box.width > 1 and box.height > 1}
    for name, box in drawn.items():
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1, (name, box)
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1, (name, box)
    for (a, one), (b, other) in itertools.combinations(drawn.items(), 2):
        slanted = len(a) == len(b) == 3  # their boxes overlap, their letters do not
        assert slanted or not one.overlaps(other), (a, b, one, other)
