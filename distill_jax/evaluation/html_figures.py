"""Figures of the HTML report: SVG in the page itself, each with a text that says what it shows."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill_jax.evaluation import trends
from distill_jax.evaluation.report_measures import label

# As Okabe and Ito chose them for the colour-blind; the blue is lighter, to be seen on black, too.
COLOURS = ("#1f83c6", "#d55e00", "#009e73", "#cc79a7", "#8c8c00", "#7f7f7f")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P")
# Drawn in this colour and then made the page's own, which is light on a dark page.
_INK = "#123456"
_THEME = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "distill_jax",  # the same data give the same bytes
    "font.sans-serif": ["DejaVu Sans"],  # a list of ten would stand at every word
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.framealpha": 0.0,
    "grid.color": "#888888",
    "grid.alpha": 0.3,
}


class Image(NamedTuple):
    """A figure: its caption, its text for who does not see it, and a data URI."""

    caption: str
    alt: str
    source: str


class Panel(NamedTuple):
    """A plot against the step: caption, metric -> label, whether it is a share."""

    caption: str
    lines: Mapping[str, str]
    share: bool = False


class Line(NamedTuple):
    """One line: label, points [K, 2] of (step, value), half the width of its band [K] or None."""

    label: str
    points_K2: np.ndarray
    spread_K: np.ndarray | None = None


# Each is drawn for the stages that have any of its metrics.
PANELS = (
    Panel(
        "accuracy",
        {"accuracy": "train, sampled", "eval/accuracy": "validation, greedy"},
        share=True,
    ),
    Panel("reward, weighted and normalised", {"reward": "mean", "reward_std": "std in a group"}),
    Panel("loss", {"loss": "loss", "eval/loss": "validation"}),
    Panel("KL to the reference", {"kl": "mean of a token", "objective/kl": "sum of a completion"}),
    Panel("KL to the rollout's policy, mean of ½l²", {"policy/approxkl_avg": "mean"}),
    Panel("entropy of the policy, nats a token", {"entropy": "entropy"}),
    Panel(
        "completion length, tokens",
        {"completions/mean_length": "mean", "completions/max_length": "longest"},
    ),
    Panel("completions without EOS", {"completions/clipped_ratio": "share"}, share=True),
    Panel(
        "tokens whose ratio is clipped",
        {"clip_ratio/region_mean": "share", "policy/clipfrac_avg": "share"},
        share=True,
    ),
    Panel("gradient norm", {"grad_norm": "norm"}),
)
_TERM = re.compile(r"rewards/([^/]+)/mean")


def curves(stage: str, rows: Sequence[Mapping[str, Any]]) -> list[Image]:
    """The learning curves of a stage; a panel without data is left out."""
    out = []
    for panel in PANELS:
        found = [Line(label, trends.values(rows, n)) for n, label in panel.lines.items()]
        lines = [line for line in found if len(line.points_K2)]
        if lines:
            out.append(_plot(f"{stage}: {panel.caption}", panel.caption, lines, panel.share))
    return out


def rewards(rows: Sequence[Mapping[str, Any]]) -> list[Image]:
    """Each term of the reward before its weight, mean ± standard deviation over a step's
    completions; then the weights where they adapt, and the running scale of the intrinsic one."""
    names = sorted({m[1] for row in rows for name in row if (m := _TERM.fullmatch(name))})
    out = []
    for name in names:
        # Both of a row, or neither: a band needs its middle.
        both = [f"rewards/{name}/mean", f"rewards/{name}/std"]
        whole = [row for row in rows if all(row.get(part) is not None for part in both)]
        middle, spread = (trends.values(whole, part) for part in both)
        if len(middle) and len(middle) == len(spread):
            line = Line(f"{name}, mean ± std", middle, spread[:, 1])
            out.append(_plot(f"reward term {name}", f"{name}, mean ± std", [line]))
    weights = [Line(name, trends.values(rows, f"rewards/{name}/weight")) for name in names]
    weights = [line for line in weights if len(line.points_K2)]
    if weights:
        out.append(_plot("adaptive weights", "adaptive weight of each term", weights))
    scale = trends.values(rows, "rewards/intrinsic/scale")
    if len(scale):
        caption = "running scale that the intrinsic reward is divided by"
        out.append(_plot(caption, caption, [Line("scale", scale)]))
    return out


def levels(results: Mapping[str, Any], kind: str) -> Image | None:
    """Accuracy of every model at every level, with 95% intervals; None without levels.

    Args:
        results: of `runner.evaluate`, by subject.
        kind: "greedy" or "sampled".
    """
    known = sorted({n for r in results.values() for n in r[kind]["levels"]}, key=int)
    if not known:
        return None
    caption = "greedy accuracy" if kind == "greedy" else "pass@1"
    said = []
    with matplotlib.rc_context(_STYLE):
        figure, axis = _axes(height=3.3)
        for number, (name, result) in enumerate(results.items()):
            at = [(i, result[kind]["levels"].get(level)) for i, level in enumerate(known)]
            found = [(i, e) for i, e in at if e is not None and e["mean"] is not None]
            if not found:
                continue
            shift = min(0.14, 0.7 / len(results)) * (number - (len(results) - 1) / 2)
            mean = np.array([100 * e["mean"] for _, e in found])
            low, high = (np.array([100 * e[k] for _, e in found]) for k in ("low", "high"))
            axis.errorbar(
                [i + shift for i, _ in found],
                mean,
                yerr=np.maximum(0, [mean - low, high - mean]),
                fmt=_MARKERS[number % len(_MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                capsize=2,
                markersize=4,
                label=label(name),
            )
            values = ", ".join(
                f"level {known[i]} {m:.1f}%" for (i, _), m in zip(found, mean, strict=True)
            )
            said.append(f"{label(name)}: {values}")
        axis.set_xticks(range(len(known)), known)
        axis.set_xlabel("level")
        axis.set_ylim(-3, 103)
        axis.set_ylabel("% right")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8)
        source = _uri(figure)
    alt = f"{caption} in percent. {'; '.join(said)}."
    return Image(f"{caption} at each level, 95% intervals", alt, source)


def _plot(said: str, caption: str, lines: Sequence[Line], share: bool = False) -> Image:
    with matplotlib.rc_context(_STYLE):
        figure, axis = _axes()
        for number, line in enumerate(lines):
            step_K, value_K = line.points_K2.T
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(
                step_K,
                value_K,
                _DASHES[number % len(_DASHES)],
                color=colour,
                label=line.label,
                marker="." if len(step_K) < 20 else "",
            )
            if line.spread_K is not None:
                low, high = value_K - line.spread_K, value_K + line.spread_K
                axis.fill_between(step_K, low, high, color=colour, alpha=0.25, linewidth=0)
        if share:
            axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("step")
        if len(lines) > 1:
            axis.legend(fontsize=8)
        source = _uri(figure)
    return Image(caption, f"{said}, against the step. " + " ".join(map(_told, lines)), source)


def _told(line: Line) -> str:
    (first_step, first), (last_step, last) = line.points_K2[0], line.points_K2[-1]
    if len(line.points_K2) == 1:
        return f"{line.label}: {first:.4g} at step {first_step:.0f}."
    return (
        f"{line.label}: {first:.4g} at step {first_step:.0f}, {last:.4g} at step {last_step:.0f}, "
        f"between {line.points_K2[:, 1].min():.4g} and {line.points_K2[:, 1].max():.4g}."
    )


def _axes(height: float = 2.7) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.0, height), layout="constrained")
    axis = figure.add_subplot()
    axis.grid(True)
    return figure, axis


def _uri(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(
        out,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    text = out.getvalue().replace(_INK, "currentColor")
    text = text[text.index("<svg") :]  # without prologue and document type
    end_of_tag = text.index(">") + 1
    text = text[:end_of_tag] + _THEME + text[end_of_tag:]
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
