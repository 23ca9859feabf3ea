"""The problems that a report shows, with answers: tokens where they were scored, else text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distill_jax.report import chosen, tokens
from distill_jax.report.run_data import RunData
from distill_jax.report.sections import Answer, Answers, Block, Legend, Text
from distill_jax.report.view import TEACHER

_WITHOUT_TOKENS, _EXAMPLES = 9, 5  # problems shown


def blocks(data: RunData) -> list[Block]:
    """The chosen problems, how they were chosen, and what colours mean; [] without results."""
    found = _scored_problems(data) if data.tokens is not None else _problems(data)
    if not found:
        return []
    out: list[Block] = [Text(rule(data))]
    if data.tokens is not None:
        alpha = data.tokens["made_from"]["alpha"]
        out += [Text(_scale(alpha)), Legend(tokens.legend(alpha))]
    return [*out, *_warnings(data), *found]


def examples(data: RunData) -> list[Block]:
    """Greedy answers of every subject to the first problems."""
    first = list(data.results.values())[:1]
    return [
        Answers("", problem["question"], problem["answer"], _plain(data, data.results, place))
        for result in first
        for place, problem in enumerate(result["problems"][:_EXAMPLES])
    ]


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


def _warnings(data: RunData) -> Iterable[Block]:
    """What to know before trusting the tokens."""
    if data.tokens is None:
        yield Text(
            "No tokens were scored (stage evaluate does it at its end with report.problems above "
            "0 and evaluate.teacher on; later: python -m launch.report --problems=9).",
            "warning",
        )
        return
    other = [
        data.view.label(name)
        for name, weights in data.tokens["made_from"]["subjects"].items()
        if name in data.results and data.results[name]["made_from"] != weights
    ]
    if other:
        yield Text(
            f"The tokens are of another evaluation than the results above: {', '.join(other)}. "
            "Run python -m launch.report --problems=9 to score them again.",
            "warning",
        )


def _problems(data: RunData) -> list[Answers]:
    compared = chosen.compared(data.results, data.view)
    if compared is None:
        return []
    earlier, later = (data.results[name]["problems"] for name in compared)
    names = [*dict.fromkeys(compared), *([TEACHER] if TEACHER in data.results else [])]
    out = []
    for place, kind in chosen.choose(earlier, later, _WITHOUT_TOKENS):
        problem = {**later[place], "gold": later[place]["answer"], "kind": kind}
        out.append(_shown(problem, _plain(data, names, place)))
    return out


def _scored_problems(data: RunData) -> list[Answers]:
    assert data.tokens is not None
    alpha, label = data.tokens["made_from"]["alpha"], data.view.label
    return [
        _shown(p, [_scored(label(name), one, alpha) for name, one in p["responses"].items()])
        for p in data.tokens["problems"]
    ]


def _shown(problem: Mapping[str, Any], answers: Sequence[Answer]) -> Answers:
    level = f", level {problem['level']}" if problem.get("level") is not None else ""
    heading = f"{problem['kind'].capitalize()}{level} ({problem['id']})"
    return Answers(heading, problem["question"], str(problem["gold"]), answers)


def _plain(data: RunData, names: Iterable[str], place: int) -> list[Answer]:
    found = [(name, data.results[name]["problems"][place]) for name in names]
    return [
        Answer(data.view.label(name), "right" if p["greedy_right"] else "wrong", p["greedy"])
        for name, p in found
    ]


def _scored(name: str, response: Mapping[str, Any], alpha: float) -> Answer:
    found = response["tokens"]
    notes = [f"{len(found)} tokens, {'ended' if response['ended'] else 'cut off'}"]
    if found:
        rewards = [token["reward"] for token in found]
        mean, lowest = map(tokens.number, (sum(rewards) / len(rewards), min(rewards)))
        notes.append(f"r: mean {mean}, lowest {lowest}")
    return Answer(name, response["verdict"], response["text"], notes, found, alpha)
