r"""How many lengths the batches of a file of solutions have, and how much of them is padding.

    python -m launch.bench.padding --tokenizer=DIR --rows=train.jsonl --windows=1,8,32
    python -m launch.bench.padding --tokenizer=DIR --rows=train.jsonl --windows=1,32 \
        --packing=1024,2048

The table has the lengths that each batch would need on its own, and those that stage sft chooses
(`distill_jax/data/padding.py`), without and with its setting `sort_window`. With `--packing` it has
the rows that batches are packed into (`distill_jax/data/packing.py`). No model is needed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from distill_jax.core.errors import DataError
from distill_jax.data import batching, chat, packing, padding
from distill_jax.data.rows import problem_of_row, read_rows
from distill_jax.data.tokenizer import load_tokenizer
from distill_jax.stages.supervised import MULTIPLE
from launch.arguments import OneLine, tool_parser

FIRST = 50


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("bench.padding", __doc__)
    parser.add_argument("--tokenizer", required=True, help="directory or hub id")
    parser.add_argument("--rows", type=Path, required=True, help=".jsonl, .json or .parquet")
    parser.add_argument("--windows", default="1", help="values of sort_window, by commas")
    parser.add_argument("--packing", default="", help="values of packing, by commas")
    parser.add_argument("--parts", type=int, default=4, help="accumulate times devices")
    for name, default in (("steps", 700), ("batch", 32), ("longest", 480), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser


def lengths(tokenizer: str, rows: Path, longest: int) -> np.ndarray:
    """Tokens of rows and of their responses, int64 [N, 2]; responses of at most `longest`.

    Raises:
        DataError: no row is that short.
    """
    problems = [problem_of_row(row, where, where) for where, row in read_rows(rows)]
    examples = chat.render_examples(
        load_tokenizer(tokenizer), problems, [p.solution for p in problems], chat.ChatSettings()
    )
    found = batching.lengths_of(examples)
    found = found[found[:, 1] <= longest]
    if not len(found):
        raise DataError(f"{rows}: no response of at most {longest} tokens")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, prints the table."""
    flags = _parser().parse_args(argv)
    with OneLine():
        found = lengths(flags.tokenizer, flags.rows, flags.longest)
        table = _packed(flags, found) if flags.packing else _padded(flags, found)
    Console(width=110).print(table)


def _padded(flags: argparse.Namespace, found: np.ndarray) -> Table:
    table = Table("sort_window", "lengths", f"in {FIRST} steps", "padding", "chosen", "padding ")
    for window in map(int, flags.windows.split(",")):
        batches = [
            batching.windowed_indices(flags.seed, step, flags.batch, found[:, 0], window)
            for step in range(flags.steps)
        ]
        planned = padding.plan(found, batches, multiple=MULTIPLE)
        first = padding.plan(found, batches[:FIRST], multiple=MULTIPLE)
        table.add_row(
            str(window),
            str(planned.needed),
            str(first.needed),
            f"{planned.padding_before:.1%}",
            _said(planned.chosen),
            f"{planned.padding:.1%}",
        )
    return table


def _packed(flags: argparse.Namespace, found: np.ndarray) -> Table:
    table = Table("packing", "sort_window", "rows", "chosen", "padding", "of responses")
    for budget in map(int, flags.packing.split(",")):
        for window in map(int, flags.windows.split(",")):
            batches = [
                batching.dealt_indices(flags.seed, step, flags.batch, found[:, 0], window)
                for step in range(flags.steps)
            ]
            how = {"budget": budget, "parts": flags.parts, "multiple": MULTIPLE}
            planned = packing.plan(found, batches, **how)
            table.add_row(
                str(budget),
                str(window),
                str(planned.rows),
                _said(planned.chosen),
                f"{planned.padding:.1%}",
                f"{planned.response_padding:.1%}",
            )
    return table


def _said(chosen: Sequence[padding.PaddedLengths]) -> str:
    return " ".join(f"{T}/{R}" for T, R in chosen)


if __name__ == "__main__":
    main()
