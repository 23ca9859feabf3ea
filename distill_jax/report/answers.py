"""The problems that a report shows, with answers: tokens where they were scored, else text."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill_jax.report import chosen, tokens
from distill_jax.report.run_data import RunData
from distill_jax.report.sections import Answer, Answers, Block, Legend, Paragraph
from distill_jax.report.view import TEACHER

# Shown without tokens.
_PROBLEMS = 9
_EXAMPLES = 5


def blocks(data: RunData) -> list[Block]:
    """The chosen problems, how they were chosen, and what colours mean; [] without results."""
    found = _scored_problems(data) if data.tokens is not None else _problems(data)
    if not found:
        return []
    out: list[Block] = [Paragraph(rule(data))]
    if data.tokens is not None:
        alpha = data.tokens["made_from"]["alpha"]
        out += [Paragraph(_scale(alpha)), Legend(tokens.legend(alpha))]
    return [*out, *(Paragraph(text, warning=True) for text in _warnings(data)), *found]


def examples(data: RunData) -> list[Block]:
    """Greedy answers of every subject to the first problems."""
    if not data.results:
        return []
    first = next(iter(data.results.values()))["problems"][:_EXAMPLES]
    found = [
        Answers("", problem["question"], problem["answer"], _plain(data, data.results, place))
        for place, problem in enumerate(first)
    ]
    return [Paragraph("Greedy answers to the first problems."), *found]


def rule(data: RunData) -> str:
    """How the problems were chosen, and from how many of each kind."""
    compared = chosen.compared(data.results, data.view)
    if compared is None:
        return chosen.RULE
    found = chosen.by_kind(*(data.results[name]["problems"] for name in compared))
    counts = ", ".join(f"{len(places)} {kind}" for kind, places in found.items() if places)
    total = sum(len(places) for places in found.values())
    first, last = (data.view.label(name) for name in compared)
    between = f"from {first} to {last}" if first != last else f"of {first}"
    return f"Of {total} problems, {between}: {counts}. {chosen.RULE}"


def _scale(alpha: float) -> str:
    return (
        "The colour of a token is its intrinsic reward r = α·log π(token | all before it) under "
        f"the teacher, in canonical form, α = {alpha:g}; π = softmax(Q/α) and r = Q − V. Blue: "
        "the teacher would probably have written it too. Orange and underlined: hardly. The "
        "legend gives the teacher's probability and r. ↵ marks a line break, \\x… in italics a "
        "byte of a letter that several tokens make together."
    )


def _warnings(data: RunData) -> list[str]:
    """What to know before trusting the tokens."""
    if data.tokens is None:
        return [
            "No tokens were scored (stage evaluate does it at its end with report.problems above "
            "0 and evaluate.teacher on; later: python -m launch.report with --config)."
        ]
    other = [
        data.view.label(name)
        for name, weights in data.tokens["made_from"]["subjects"].items()
        if name in data.results and data.results[name]["made_from"] != weights
    ]
    if other:
        return [
            f"The tokens are of another evaluation than the results above: {', '.join(other)}. "
            "Run python -m launch.report with --config to score them again."
        ]
    return []


def _problems(data: RunData) -> list[Answers]:
    compared = chosen.compared(data.results, data.view)
    if compared is None:
        return []
    earlier, later = (data.results[name]["problems"] for name in compared)
    names = [*dict.fromkeys(compared), *([TEACHER] if TEACHER in data.results else [])]
    return [
        _shown({**later[place], "kind": kind}, later[place]["answer"], _plain(data, names, place))
        for place, kind in chosen.choose(earlier, later, _PROBLEMS)
    ]


def _scored_problems(data: RunData) -> list[Answers]:
    assert data.tokens is not None
    alpha = data.tokens["made_from"]["alpha"]
    return [
        _shown(
            problem,
            problem["gold"],
            [
                _scored(data.view.label(name), response, alpha)
                for name, response in problem["responses"].items()
            ],
        )
        for problem in data.tokens["problems"]
    ]


def _shown(problem: Mapping[str, Any], gold: Any, answers: Sequence[Answer]) -> Answers:
    level = f", level {problem['level']}" if problem.get("level") is not None else ""
    heading = f"{problem['kind'].capitalize()}{level} ({problem['id']})"
    return Answers(heading, problem["question"], str(gold), answers)


def _plain(data: RunData, names: Any, place: int) -> list[Answer]:
    out = []
    for name in names:
        problem = data.results[name]["problems"][place]
        verdict = "right" if problem["greedy_right"] else "wrong"
        out.append(Answer(data.view.label(name), verdict, problem["greedy"]))
    return out


def _scored(name: str, response: Mapping[str, Any], alpha: float) -> Answer:
    found = response["tokens"]
    notes = [f"{len(found)} tokens, {'ended' if response['ended'] else 'cut off'}"]
    if found:
        rewards = [token["reward"] for token in found]
        mean, lowest = map(tokens.number, (sum(rewards) / len(rewards), min(rewards)))
        notes.append(f"r: mean {mean}, lowest {lowest}")
    return Answer(name, response["verdict"], response["text"], notes, found, alpha)
