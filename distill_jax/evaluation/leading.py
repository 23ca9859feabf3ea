"""Which of a run's stages that evaluate a report leads with."""

from pathlib import Path

EVALUATION_RESULTS = "evaluation_results.json"


def rank(directory: Path, benchmark: str) -> tuple[bool, bool]:
    """The key of a stage's directory: a report leads with the last stage of the highest one.

    A stage that has evaluated comes before one that will; then the run's own problems before a
    benchmark (benchmark: "" for the own ones).
    """
    return any(directory.glob(f"*/{EVALUATION_RESULTS}")), not benchmark
