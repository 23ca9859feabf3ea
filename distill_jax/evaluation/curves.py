"""Learning curves of a run's stages, drawn from their metrics.jsonl."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

from distill_jax.training.records import METRICS_FILE, read_rows

matplotlib.use("Agg")  # no display on a server
from matplotlib import pyplot as plt  # noqa: E402


class Panel(NamedTuple):
    """One plot: its title, the metrics drawn in it with their labels, and whether it is a share."""

    title: str
    lines: Mapping[str, str]
    share: bool = False


_LOSS = Panel("loss", {"loss": "loss"})
# Stage directory -> its panels.
PANELS: dict[str, Sequence[Panel]] = {
    "pretrain/teacher": (_LOSS,),
    "pretrain/student": (_LOSS,),
    "sft": (_LOSS, Panel("gradient norm", {"grad_norm": "gradient norm"})),
    "distill": (
        _LOSS,
        Panel("divergence a token, nats", {"kl": "KL", "jsd": "JSD"}),
        Panel("validation, forward KL to the teacher", {"eval/forward_kl": "KL"}),
        Panel(
            "accuracy",
            {"accuracy": "train, sampled", "eval/accuracy": "validation, greedy"},
            share=True,
        ),
    ),
    "rl": (
        Panel(
            "accuracy",
            {"accuracy": "train, sampled", "eval/accuracy": "validation, greedy"},
            share=True,
        ),
        Panel("intrinsic reward, unscaled", {"rewards/intrinsic/mean": "mean"}),
        # A running scale that shrinks makes the same intrinsic reward count for more.
        Panel("reward, intrinsic part over its running scale", {"reward": "reward"}),
        Panel("entropy", {"entropy": "entropy"}),
        Panel("tokens an answer", {"completions/mean_length": "mean"}),
        Panel("answers without EOS", {"completions/clipped_ratio": "share"}, share=True),
    ),
}


class Bars(NamedTuple):
    """Means over steps with their intervals, in [0, 1]."""

    steps: Sequence[int]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def draw_bars(lines: Mapping[str, Bars], path: Path, title: str) -> Path:
    """A PNG of shares over steps, each line with its intervals as bars; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    for name, bars in lines.items():
        below = [max(0.0, mean - low) for mean, low in zip(bars.means, bars.lows, strict=True)]
        above = [max(0.0, high - mean) for mean, high in zip(bars.means, bars.highs, strict=True)]
        axis.errorbar(bars.steps, bars.means, (below, above), label=name, marker=".", capsize=3)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("step")
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_curves(workdir: Path, target: Path) -> list[Path]:
    """One PNG a stage that has records; returns their paths."""
    out = []
    for stage, panels in PANELS.items():
        found = read_rows(workdir / stage / METRICS_FILE)
        if found:
            target.mkdir(parents=True, exist_ok=True)
            path = target / (stage.replace("/", "_") + ".png")
            _draw(stage, found, panels, path)
            out.append(path)
    return out


def _draw(
    stage: str,
    found: Sequence[Mapping[str, Any]],
    panels: Sequence[Panel],
    path: Path,
) -> None:
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(4.2 * across, 3 * down), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        for name, label in panel.lines.items():
            points = [(r["step"], r[name]) for r in found if r.get(name) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), label=label, marker="." * (len(points) < 20))
        axis.set_title(panel.title, fontsize=10)
        if panel.share:
            axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend(fontsize=8)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(stage)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
