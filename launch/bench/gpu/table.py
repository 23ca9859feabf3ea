"""Prints gpu.jsonl as two tables: speeds with their fraction of the roofline, and the steps.

python -m launch.bench.gpu.table DIR/gpu.jsonl
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launch.arguments import tool_parser


def tables(rows: list[dict[str, Any]]) -> list[Table]:
    """Of the lines of a run: figures with seconds, steps."""
    speeds = Table("arm", "figure", "seconds", "tokens a second", "of roofline", "first call, s")
    for row in rows:
        if "median" in row:
            share = row.get("mfu", row.get("roofline_fraction"))
            speeds.add_row(
                row["arm"],
                row["figure"],
                f"{row['median']:.4g} \\[{row['min']:.4g}, {row['max']:.4g}]",
                f"{row['tokens_per_s']:,.0f}" if "tokens_per_s" in row else "–",
                f"{100 * share:.3g}%" if share is not None else "–",
                f"{row['first_call_s']:.3g}" if "first_call_s" in row else "–",
            )
    steps = Table("step", "exit code", "seconds")
    for row in rows:
        if "step" in row:
            steps.add_row(row["step"], str(row["rc"]), str(row["seconds"]))
    return [speeds, steps]


def main() -> None:
    """Reads the file that the command line names; other lines are printed as they are."""
    parser = tool_parser("bench.gpu.table", __doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="gpu.jsonl of gpu_run.sh")
    lines = parser.parse_args().file.read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    console = Console(width=120)
    for row in rows:
        if "median" not in row and "step" not in row:
            console.print_json(json.dumps(row), indent=None)
    for table in tables(rows):
        console.print(table)


if __name__ == "__main__":
    main()
