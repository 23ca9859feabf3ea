"""The chosen problems as the page shows them: answers side by side, their tokens in colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_jax.evaluation import chosen, html_tokens
from distill_jax.evaluation.html_data import RunData
from distill_jax.evaluation.report_measures import label

# Shown without tokens, where nobody scored any.
_WITHOUT_TOKENS = 9


@dataclass(frozen=True)
class Answer:
    """One model's answer: its name, verdict and notes; tokens with a table of them, or its text."""

    name: str
    verdict: str
    notes: Sequence[str]
    text: str
    cells: Sequence[html_tokens.Cell] = ()
    header: Sequence[str] = ("#", "token", "r", "π teacher", "Q", "V", "log π writer")
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Shown:
    """A problem with its answers."""

    heading: str
    question: str
    gold: str
    answers: Sequence[Answer]


def problems(data: RunData) -> list[Shown]:
    """With their tokens where they were scored; else as the evaluation's results have them."""
    if data.tokens is not None:
        alpha = data.tokens["made_from"]["alpha"]
        return [
            _shown(p, [_scored(name, a, alpha) for name, a in p["responses"].items()])
            for p in data.tokens["problems"]
        ]
    compared = chosen.compared(data.results)
    if compared is None:
        return []
    earlier, later = (data.results[name]["problems"] for name in compared)
    names = [*dict.fromkeys(compared), *(["teacher"] if "teacher" in data.results else [])]
    out = []
    for index, kind in chosen.choose(earlier, later, _WITHOUT_TOKENS):
        problem = later[index]
        facts = {**problem, "gold": problem["answer"], "kind": kind}
        answers = [_plain(name, data.results[name]["problems"][index]) for name in names]
        out.append(_shown(facts, answers))
    return out


def rule(data: RunData) -> str:
    """How they were chosen, and from how many of each kind."""
    compared = chosen.compared(data.results)
    if compared is None:
        return chosen.RULE
    found = chosen.by_kind(*(data.results[name]["problems"] for name in compared))
    counts = ", ".join(f"{len(places)} {kind}" for kind, places in found.items() if places)
    total = sum(len(places) for places in found.values())
    first, last = (label(name) for name in compared)
    between = f"from {first} to {last}" if first != last else f"of {first}"
    return f"Of {total} problems, {between}: {counts}. {chosen.RULE}"


def scale(data: RunData) -> str:
    """What the colours say."""
    alpha = data.tokens["made_from"]["alpha"] if data.tokens is not None else 1.0
    return (
        "The colour of a token is its intrinsic reward r = α·log π(token | all before it) under "
        f"the teacher, in canonical form, α = {alpha:g}; π = softmax(Q/α) and r = Q − V. Blue: "
        "the teacher, reading along, would likely have written it, too. Orange and underlined: "
        "hardly. The legend gives the teacher's probability and r. ↵ marks a line break, "
        "\\x… in italics a byte of a letter that several tokens make together."
    )


def notes(data: RunData) -> list[str]:
    """What to know before trusting the tokens."""
    if data.tokens is None:
        return [
            "No tokens were scored (stage evaluate does it at its end with report.problems above "
            "0 and evaluate.teacher on; later: python -m launch.report with --config)."
        ]
    made_from = data.tokens["made_from"]["subjects"]
    other = [
        label(name)
        for name, weights in made_from.items()
        if name in data.results and data.results[name]["made_from"] != weights
    ]
    if other:
        return [
            f"The tokens are of another evaluation than the one above: {', '.join(other)}. "
            "Run python -m launch.report with --config to score them again."
        ]
    return []


def _shown(problem: Mapping[str, Any], answers: Sequence[Answer]) -> Shown:
    level = f", level {problem['level']}" if problem.get("level") is not None else ""
    heading = f"{problem['kind'].capitalize()}{level} ({problem['id']})"
    return Shown(heading, problem["question"], str(problem["gold"]), answers)


def _plain(name: str, problem: Mapping[str, Any]) -> Answer:
    verdict = "right" if problem["greedy_right"] else "wrong"
    return Answer(label(name), verdict, (), html_tokens.visible(problem["greedy"]))


def _scored(name: str, response: Mapping[str, Any], alpha: float) -> Answer:
    tokens = response["tokens"]
    cells = html_tokens.cells(tokens, alpha)
    told = [f"{len(tokens)} tokens, {'ended' if response['ended'] else 'cut off'}"]
    if tokens:
        rewards = [token["reward"] for token in tokens]
        mean, lowest = map(html_tokens.number, (sum(rewards) / len(rewards), min(rewards)))
        told.append(f"r: mean {mean}, lowest {lowest}")
    rows = [
        [
            str(place),
            cell.shown.replace("\n", "").replace(" ", "␣"),
            *html_tokens.figures(token, alpha),
        ]
        for place, (cell, token) in enumerate(zip(cells, tokens, strict=True), 1)
    ]
    shown = html_tokens.visible(response["text"])
    return Answer(label(name), response["verdict"], told, shown, cells, rows=rows)
