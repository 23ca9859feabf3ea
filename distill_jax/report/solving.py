"""The part of a report on stages that solve with many candidates: selectors, curves, problems."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from distill_jax.reasoning.program_fences import fences
from distill_jax.reasoning.steps import Format, split_text
from distill_jax.report import programs, revision
from distill_jax.report.run_data import RunData
from distill_jax.report.sections import Answer, Answers, Block, Bullets, Section, Step, Table, Text
from distill_jax.report.tables import number_cell

# Lower bounds of a step's score for each colour, from blue to orange; lower scores have a sixth.
BOUNDS = (0.9, 0.7, 0.5, 0.3, 0.1)
# Separators tried in this order to cut a text into its scored steps.
_SEPARATORS = ("\n\n", "\n")
# Problems shown of each kind, see `problems`.
_SHOWN = 3


def sections(data: RunData) -> Iterable[Section]:
    """For each stage with a results.json."""
    for name, found in data.solved.items():
        yield Section(
            f"solve-{name}",
            f"Candidates and selection ({name})",
            [
                selectors(found),
                *_plain(found),
                *([curves(found)] if found["curves"] else []),
                *_calibration(found),
                *revision.blocks(found),
                *programs.solved(found),
                Bullets(list(remarks(found))),
            ],
            "Every selector reads the same candidates. An interval is Wilson's at 95%; a "
            "difference is paired by problem.",
        )
        yield Section(
            f"solve-{name}-problems",
            f"Problems with their candidates ({name})",
            list(problems(found)),
            "The colour of a step is its score under the reward model, from blue (at least "
            f"{BOUNDS[0]:g}) to orange (below {BOUNDS[-1]:g}).",
            only="html",
        )


def selectors(found: Mapping[str, Any]) -> Table:
    """Accuracy of each selector, its tokens, and the difference to the majority."""
    rows = [
        [
            name,
            _percent(one),
            f"{one['tokens']:.0f}",
            "–" if name == "majority" else _percent(one["minus_majority"]),
        ]
        for name, one in found["selectors"].items()
    ]
    rows.append(["pass@N (any is right)", _percent(found["pass_at_n"]), "", ""])
    return Table(
        ["selector", "% right", "tokens a problem", "less majority, points"],
        rows,
        f"{found['num_problems']} problems of {_solved_on(found)}, "
        f"{found['candidates']:.4g} candidates each, of "
        f"{', '.join(found['agents'])} [95% interval]",
    )


def _plain(found: Mapping[str, Any]) -> Iterable[Table]:
    plain = found["plain"]
    if plain is None:
        return
    rows = [
        [name, _percent(one), _percent(plain["difference"].get(name))]
        for name, one in plain["selectors"].items()
    ]
    yield Table(
        ["selector", "% right of plain samples", "the stage's less these, points"],
        rows,
        f"one agent at equal tokens: {plain['samples']:.1f} plain samples and "
        f"{plain['tokens']:.0f} tokens a problem [95% interval]",
    )


def _calibration(found: Mapping[str, Any]) -> Iterable[Table]:
    """A table: how often the winner of a vote is right, by its share of the votes."""
    known = found.get("calibration", {})
    names = [name for name in (found["selector"], "weighted", "majority") if name in known]
    if not names or known[names[0]]["ece"] is None:
        return
    name = names[0]
    one = known[name]
    rows = [
        [
            f"{row['low']:.1f}–{row['high']:.1f}",
            str(row["count"]),
            _number(row["confidence"]),
            _number(row["right"]),
        ]
        for row in one["bins"]
    ]
    yield Table(
        ["share of the votes", "problems", "mean share", "share right"],
        rows,
        f"confidence of {name}: ECE {one['ece']:.3f} = Σ problems/{one['count']} · |mean share − "
        f"share right| over ten bins of equal width, on {_solved_on(found)}",
    )


def curves(found: Mapping[str, Any]) -> Table:
    """Expected accuracy with k of the candidates."""
    lines = [name for name in next(iter(found["curves"].values())) if name != "subsets"]
    rows = [
        [k, *(_percent(one[name]) for name in lines), str(one["subsets"])]
        for k, one in found["curves"].items()
    ]
    header = ["k", *(f"{name}@k" for name in lines), "subsets"]
    return Table(header, rows, "% right with k candidates, over subsets of them [95% interval]")


def remarks(found: Mapping[str, Any]) -> Iterable[str]:
    """Remarks that a reader of the figures needs."""
    low, high = found["accuracy_interval"]
    yield (
        f"{100 * found['accuracy']:.1f}% with {found['selector']}: with {found['num_problems']} "
        f"problems a single figure is known to about ±{50 * (high - low):.0f} points."
    )
    gap = found["oracle_gap"]
    yield (
        f"Oracle gap (pass@N less {found['selector']}): {_percent(gap)} points; "
        f"{100 * found['answer_rate']:.1f}% of the problems got an answer, "
        f"{100 * found['truncation_rate']:.1f}% of the candidates were cut off"
        f"{f' at {limit} tokens' if (limit := found.get('max_new_tokens')) else ''}."
    )
    if found["unscored_steps"]:
        yield (
            f"The reward model had no room for {found['unscored_steps']} steps, the last of their "
            "candidates: these are scored without them."
        )
    if found.get("score_auc") is not None:
        yield (
            f"Among the candidates of one problem a right one scores above a wrong one in "
            f"{100 * found['score_auc']:.1f}% of the pairs (by chance: 50%)."
        )
    yield from _searched(found)
    yield from _confidence(found)
    if found["verified"]:
        named = ("precision", "recall", "f1")
        scores = ", ".join(f"{name} {_number(found[f'verification_{name}'])}" for name in named)
        yield (
            f"Verifier: {found['verified']} candidates, {found['verified_unsure']} without a clear "
            f"verdict; {scores} as a classifier of right candidates."
        )


def _confidence(found: Mapping[str, Any]) -> Iterable[str]:
    known = found.get("calibration")
    if known:
        said = ", ".join(f"{name} {_number(one['ece'])}" for name, one in known.items())
        other = (found["plain"] or {}).get("calibration", {})
        plain = ", ".join(f"{name} {_number(one['ece'])}" for name, one in other.items())
        held = "seen in training" if _solved_on(found) == "train" else "held out"
        yield (
            "Confidence is the winning group's share of the votes, and a probability only if its "
            f"ECE is small. ECE: {said}{f'; of plain samples {plain}' if plain else ''}; on "
            f"{found['num_problems']} problems of {_solved_on(found)} ({held}), "
            f"{known['majority']['without']} of them in no bin: no answer, or an undecided check. "
            "With few problems ECE is too high."
        )


def _searched(found: Mapping[str, Any]) -> Iterable[str]:
    one = found.get("search")
    if one:
        yield (
            f"Search {one['method']}, width {one['width']}, {found['attempts']} beams: "
            f"{one['iterations']:.1f} iterations, {one['steps']:.1f} steps and "
            f"{one['tokens']:.0f} tokens a problem, those of {one['dropped']:.1f} dropped beams "
            f"included; {one['duplicates']:.1f} steps repeat another of their iteration."
        )


def problems(found: Mapping[str, Any]) -> Iterable[Block]:
    """Some problems with all candidates: right one not selected, no right one, right."""
    rows = found["results"]
    kinds = {
        "a right candidate, another selected": lambda row: row["pass_at_n"] and not row["correct"],
        "no right candidate": lambda row: not row["pass_at_n"],
        "right": lambda row: row["correct"],
    }
    for kind, holds in kinds.items():
        some = [row for row in rows if holds(row)]
        if some:
            yield Text(f"{kind.capitalize()} ({len(some)} of {len(rows)})", "heading")
        yield from (problem(row) for row in some[:_SHOWN])


def problem(row: Mapping[str, Any]) -> Answers:
    """One problem: votes, then each candidate with its steps."""
    chosen = row["selected"][row["selector"]]
    found = [_candidate(one, place == chosen) for place, one in enumerate(row["candidates"])]
    heading = f"{row['id']}: votes {votes(row) or 'none'}"
    return Answers(heading, row["problem"], str(row["reference_answer"]), found)


def votes(row: Mapping[str, Any]) -> str:
    """Answers with their candidates, the most first, e.g. "24: 3, 20: 1"."""
    ranked = sorted(row["votes"].items(), key=lambda pair: -pair[1])
    return ", ".join(f"{answer}: {count}" for answer, count in ranked)


def steps(text: str, scores: Sequence[float]) -> list[Step]:
    """The steps of a text, coloured by score; [] where the text splits into another number."""
    for parts in _cuts(text):
        if scores and len(parts) == len(scores):
            return [
                Step(part.strip("\n"), colour(score), f"step {number}: {score:.3f}")
                for number, (part, score) in enumerate(zip(parts, scores, strict=True), 1)
            ]
    return []


def _cuts(text: str) -> Iterator[list[str]]:
    """The ways in which reward models cut a text into steps, those of programs first."""
    if any(fence.python for fence in fences(text)):
        yield split_text(text, Format("program"))
    for separator in _SEPARATORS:
        yield [part for part in text.split(separator) if part.strip()]


def colour(score: float) -> str:
    """The class of a score: "t0" (blue) to "t5" (orange)."""
    return f"t{sum(score < bound for bound in BOUNDS)}"


def _candidate(one: Mapping[str, Any], chosen: bool) -> Answer:
    verdict = {True: "right", False: "wrong", None: "undecided"}[one["correct"]]
    notes = [f"{one['tokens']} tokens"]
    notes += [f"score {one['score']:.3f}"] if one["score"] is not None else []
    notes += [f"verifier: {one['verdict']}"] if one["verdict"] else []
    notes += ["cut off"] if one["truncated"] else []
    notes += [] if one["kept"] else ["not kept"]
    revised = f", revision {one['round']}" if one["round"] else ""
    name = f"{'★ ' if chosen else ''}{one['agent']} {one['attempt']}{revised}"
    return Answer(name, verdict, one["text"], notes, steps=steps(one["text"], one["steps"]))


def _solved_on(found: Mapping[str, Any]) -> str:
    """The split or the benchmark; results of earlier versions name the split alone."""
    return str(found.get("benchmark") or found["split"])


def _percent(estimate: Mapping[str, Any] | None) -> str:
    return number_cell(estimate, 100.0, 1)


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.3f}"
