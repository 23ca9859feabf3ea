"""Runs of stage synthesis: problems with and without gold answers, and helpers of its tests."""

import json
from pathlib import Path
from typing import Any

from distill_jax.run.run import Run
from distill_jax.stages import runner, synthesis
from distill_jax.stages.synthesis_settings import SynthesisSettings
from tests.stages.traced import plan, read

# Gold answers are found in no question.
GOLD = [
    ("g/0", "Tom has 1200 pens and buys 345. How many has he?", "1545"),
    ("g/1", "What is 31 times 27?", "837"),
    ("g/2", "What is 5000 minus 1?", "4999"),
]

OPEN = [
    ("o/0", "What is 222 plus 111?", None),
    ("o/1", "What is 88 minus 11?", None),
    ("o/2", "What is 9 times 9?", None),
]

LONG = {"data__max_prompt_tokens": 512, "sampling__max_new_tokens": 128}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes rows of JSON; returns the path as settings take it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_questions(path: Path) -> Path:
    """GOLD and OPEN as a file of problems."""
    return Path(
        write_rows(
            path,
            [
                {"id": name, "question": text, "level": 2} | ({"answer": gold} if gold else {})
                for name, text, gold in GOLD + OPEN
            ],
        )
    )


def run(workdir: Path, s: SynthesisSettings, **changes: Any) -> Path:
    """Runs the stage alone; returns its directory."""
    config = plan({"synthesis": s}, **{**LONG, "task": "program", **changes})
    runner.run(config, workdir)
    return workdir / "synthesis"


def verified(directory: Path) -> list[dict[str, Any]]:
    """The rows without what is measured."""
    rows = read(directory / synthesis.VERIFIED_FILE)
    return [{name: v for name, v in row.items() if name != "runtime_s"} for row in rows]


def problems_of(made: dict[str, Any], tmp_path: Path) -> list[Any]:
    """The training problems of a run with these settings."""
    config = plan({"synthesis": SynthesisSettings()}, **made)
    return Run(config, tmp_path / "other").data.problems("train").problems
