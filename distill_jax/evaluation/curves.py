"""Learning curves of a run's stages, drawn from their metrics.jsonl."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display on a server
from matplotlib import pyplot as plt  # noqa: E402

# Stage directory -> panels, each with its title and the metrics drawn in it.
PANELS: dict[str, Sequence[tuple[str, Sequence[str]]]] = {
    "pretrain/teacher": (("loss", ("loss",)),),
    "pretrain/student": (("loss", ("loss",)),),
    "sft": (("loss", ("loss",)), ("gradient norm", ("grad_norm",))),
    "rl": (
        ("reward", ("reward",)),
        ("accuracy", ("accuracy", "eval/accuracy")),
        ("intrinsic reward", ("rewards/intrinsic/mean",)),
        ("entropy", ("entropy",)),
        ("tokens an answer", ("completions/mean_length",)),
        ("share of answers without EOS", ("completions/clipped_ratio",)),
    ),
}


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; none when it does not exist."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]


def draw_curves(workdir: Path, target: Path) -> list[Path]:
    """One PNG a stage that has records; returns their paths."""
    out = []
    for stage, panels in PANELS.items():
        found = read(workdir / stage / "metrics.jsonl")
        if found:
            target.mkdir(parents=True, exist_ok=True)
            path = target / (stage.replace("/", "_") + ".png")
            _draw(stage, found, panels, path)
            out.append(path)
    return out


def _draw(
    stage: str,
    found: Sequence[Mapping[str, Any]],
    panels: Sequence[tuple[str, Sequence[str]]],
    path: Path,
) -> None:
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(4.2 * across, 3 * down), squeeze=False)
    for axis, (title, names) in zip(axes.flat, panels, strict=False):
        for name in names:
            points = [(r["step"], r[name]) for r in found if r.get(name) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), label=name, marker="." * (len(points) < 20))
        axis.set_title(title)
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
