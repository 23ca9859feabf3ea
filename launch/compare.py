"""Two results on the same problems: is one better, and by how much?

    python -m launch.compare --workdir=runs/tiny                # what stage evaluate left there
    python -m launch.compare --workdir=runs/tiny teacher rl
    python -m launch.compare A.json B.jsonl --json=difference.json

A and B are results of stage evaluate or exports of launch.export_answers, as files or as names
inside --workdir: teacher, base, a stage that makes a student, STAGE_step_N, student (the last one).
Without them: the teacher and the last student, each student and its start, the base and the last
student, as far as they were evaluated. Greedy answers by an exact McNemar test with Newcombe's
interval, pass@1 of sampled ones by a paired t-test over problems. p-values are also adjusted by
Holm over all tests of a call.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill_jax.core.errors import ConfigError
from distill_jax.core.files import check_local
from distill_jax.evaluation import intervals, paired
from launch import compare_inputs
from launch.arguments import OneLine, tool_parser, write_json
from launch.compare_inputs import Pair, Result

SHOWN = 3


def compare(pair: Pair) -> dict[str, Any]:
    """All figures of a pair, for JSON; differences are b − a, shares in [0, 1].

    `tests` holds "answers" and, where both were sampled, "pass@1"; p_holm is added by `adjust`.
    """
    a, b = pair.a, pair.b
    tests: dict[str, Any] = {"answers": _answers(pair, pair.ids)}
    scores = [_sampled(side, pair.ids) for side in (a, b)]
    if scores[0] is not None and scores[1] is not None:
        tests["pass@1"] = {
            "a": intervals.mean_interval(scores[0])._asdict(),
            "b": intervals.mean_interval(scores[1])._asdict(),
            "difference": intervals.paired(scores[0], scores[1])._asdict(),
        }
    changed = [k for k in pair.ids if a.rows[k].right != b.rows[k].right]
    return {
        "a": {"name": a.name, "file": str(a.path), "temperature": a.temperature},
        "b": {"name": b.name, "file": str(b.path), "temperature": b.temperature},
        "num_problems": len(pair.ids),
        "left_out_for_errors": pair.failed,
        "left_out_for_one_side": len({*a.rows, *b.rows}) - len(pair.ids) - pair.failed,
        "tests": tests,
        "tokens_right_in_both": _lengths(pair),
        "levels": _levels(pair),
        "only_a": [k for k in changed if a.rows[k].right],
        "only_b": [k for k in changed if b.rows[k].right],
    }


def _sampled(side: Result, ids: Sequence[str]) -> np.ndarray | None:
    """Share of right samples of each problem; None unless every problem was sampled."""
    if not all(side.rows[k].sampled for k in ids):
        return None
    return np.array([np.mean(side.rows[k].sampled) for k in ids])


def _answers(pair: Pair, ids: Sequence[str]) -> dict[str, Any]:
    right = [[bool(side.rows[k].right) for k in ids] for side in (pair.a, pair.b)]
    found = paired.compare(*right)
    a, b = (intervals.wilson(found.both + only, len(ids)) for only in (found.only_a, found.only_b))
    return {"a": a._asdict(), "b": b._asdict(), **found.as_dict()}


def _lengths(pair: Pair) -> dict[str, Any] | None:
    """Tokens of the answers that are right in both; None without such, or without tokens."""
    sides = [
        [row.tokens if row.right else None for row in (side.rows[k] for k in pair.ids)]
        for side in (pair.a, pair.b)
    ]
    found = paired.lengths(*sides)
    return None if found is None else found.as_dict()


def _levels(pair: Pair) -> dict[str, Any]:
    out = {}
    for level in sorted({r.level for k in pair.ids if (r := pair.a.rows[k]).level is not None}):
        ids = [k for k in pair.ids if pair.a.rows[k].level == level]
        found = _answers(pair, ids)
        kept = {name: found[name] for name in ("a", "b", "only_a", "only_b")}
        out[str(level)] = {"num_problems": len(ids), **kept}
    return out


def adjust(comparisons: Sequence[dict[str, Any]]) -> int:
    """Adds Holm's p-values over all tests of all comparisons; how many there are."""
    tests = [test for comparison in comparisons for test in comparison["tests"].values()]
    adjusted = intervals.holm([test["difference"]["p_value"] for test in tests])
    for test, p_value in zip(tests, adjusted, strict=True):
        test["difference"]["p_holm"] = p_value
    return len(tests)


# --- for people ----------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> Table:
    """The figures of a pair in percent, narrow enough for 80 columns."""
    names = [escape(found[side]["name"]) for side in ("a", "b")]
    out = Table(title=f"{names[0]} → {names[1]}, {found['num_problems']} problems")
    out.add_column("accuracy, %", overflow="fold")
    for name in (*names, "difference", "p (Holm)"):
        out.add_column(name, justify="right", overflow="fold")
    for name, test in found["tests"].items():
        d = test["difference"]
        difference = f"{100 * d['mean']:+.1f}\n\\[{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
        p_values = f"{_p(d['p_value'])}\n({_p(d['p_holm'])})"
        label = "one answer each" if name == "answers" else name
        out.add_row(label, _share(test["a"]), _share(test["b"]), difference, p_values)
    for level, part in found["levels"].items():
        difference = f"{100 * (part['b']['mean'] - part['a']['mean']):+.1f}"
        changed = f"\n{part['only_b']} won, {part['only_a']} lost"
        label = f"level {level}\n({part['num_problems']})"
        out.add_row(label, _share(part["a"]), _share(part["b"]), difference + changed, "")
    return out


def _share(estimate: dict[str, float]) -> str:
    mean, low, high = (100 * estimate[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f}\n\\[{low:.1f}, {high:.1f}]"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"


def lines(pair: Pair, found: dict[str, Any], show: int) -> list[str]:
    """The text below the table: counts, skipped problems, problems that changed."""
    a, b, test = pair.a, pair.b, found["tests"]["answers"]
    out = [
        f"right: both {test['both']}, only {a.name} {test['only_a']}, "
        f"only {b.name} {test['only_b']}, neither {test['neither']}"
    ]
    if known := found["tokens_right_in_both"]:
        d = known["difference"]
        out.append(
            f"tokens of the {known['problems']} answers right in both: {known['before']:.1f} → "
            f"{known['after']:.1f}, {d['mean']:+.1f} [{d['low']:+.1f}, {d['high']:+.1f}]"
        )
    if pair.failed:
        out.append(f"{pair.failed} problems skipped: no answer (error)")
    if found["left_out_for_one_side"]:
        out.append(f"{found['left_out_for_one_side']} problems skipped: in one result only")
    if None not in (a.temperature, b.temperature) and a.temperature != b.temperature:
        out.append(
            f"beware: {a.name} was decoded at temperature {a.temperature:g}, "
            f"{b.name} at {b.temperature:g}; 0 is greedy"
        )
    for name in ("only_b", "only_a"):
        side = b if name == "only_b" else a
        for key in found[name][:show]:
            row = a.rows[key]
            level = f", level {row.level}" if row.level is not None else ""
            said = f"gold {row.gold}, {a.name} {row.said}, {b.name} {b.rows[key].said}"
            out.append(f"  only {side.name}: {key}{level}: {said}")
        if len(found[name]) > show > 0:
            out.append(f"  … and {len(found[name]) - show} more that only {side.name} got right")
    return out


def _pairs(flags: argparse.Namespace) -> list[Pair]:
    if flags.results and len(flags.results) != 2:
        got = f"{len(flags.results)} result{'s' if len(flags.results) > 1 else ''} named"
        raise ConfigError(got, wanted="two, or none with --workdir")
    if not flags.results and flags.workdir is None:
        raise ConfigError("nothing to compare", fix="name two results, or give --workdir=DIR")
    names = [tuple(flags.results)] if flags.results else None

    @functools.cache
    def read(name: str) -> Result:
        return compare_inputs.read(compare_inputs.find(name, flags.workdir), name)

    return [
        compare_inputs.pair(read(a), read(b), shared=flags.shared)
        for a, b in names or compare_inputs.default_pairs(flags.workdir)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, compares, prints."""
    parser = tool_parser("compare", __doc__)
    parser.add_argument("results", nargs="*", metavar="A B", help="files, or names in --workdir")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="work directory of a run")
    shared = "compare the problems that both have, if others too"
    parser.add_argument("--shared", action="store_true", help=shared)
    shown = f"changed problems each way ({SHOWN})"
    parser.add_argument("--show", type=int, default=SHOWN, metavar="N", help=shown)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    flags = parser.parse_args(argv)
    with OneLine():
        if flags.workdir is not None:
            check_local(flags.workdir, "--workdir")
        pairs = _pairs(flags)
        found = [compare(pair) for pair in pairs]
        count = adjust(found)
        console = Console()
        for pair, figures in zip(pairs, found, strict=True):
            console.print(table(figures))
            for line in lines(pair, figures, flags.show):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        tests = f"{count} tests" if count > 1 else "one test"
        said = f"{tests} in this call: Holm's p is over {tests}; intervals are 95%, each for itself"
        console.print(said, highlight=False, soft_wrap=True)
        if flags.json:
            write_json(flags.json, {"tests": count, "adjustment": "Holm", "comparisons": found})


if __name__ == "__main__":
    main()
