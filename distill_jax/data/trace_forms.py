"""Published forms of chain-of-thought traces, brought to the usual columns."""

import re
from collections.abc import Mapping
from typing import Any

from distill_jax.core.errors import DataError
from distill_jax.data import fences

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
# Marks of Sky-T1 and Bespoke-Stratos; Qwen's and DeepSeek's models write <think>.
_MARKS = (
    (re.compile(r"\s*<\|(?:begin|end)_of_solution\|>\s*"), ""),
    (re.compile(r"\s*<\|begin_of_thought\|>\s*"), "<think>\n"),
    (re.compile(r"\s*<\|end_of_thought\|>\s*"), "\n</think>\n\n"),
)
# OpenR1-Math: several generations of a problem, and what two checks found of each.
_GENERATIONS = "generations"
_CHECKS = ("correctness_math_verify", "correctness_llama", "is_reasoning_complete")


def usual_columns(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The row with its trace as messages, or as column solution.

    {prompt, completion} of texts or of messages; {question, completion} of stage traces; {system,
    conversations} of Bespoke-Stratos, whose system prompt is dropped (the run has its own);
    `generations` of OpenR1-Math, of which the first complete and right one is taken;
    {cot_program, final_answer} of verified programs, which are fenced if they are not. Marks of a
    thought become <think> and </think>: the thought is trained on, and the answer check reads only
    what follows it. Other rows stay as they are.

    Raises:
        DataError: such a column is of the wrong type, or no generation is right.
    """
    if "conversations" in row:
        return _of_conversations(row, where)
    if "cot_program" in row:
        return _of_program(row, where)
    if _GENERATIONS in row:
        return _of_generations(row, where)
    if "completion" in row and "solution" not in row and "prompt" in row:
        return _of_completion(row, where)
    if "completion" in row and "solution" not in row and "question" in row:
        return {**_without(row, "completion"), "solution": row["completion"]}
    return row


def marked(text: str) -> str:
    """The text with its marks of a thought as <think> and </think>."""
    for mark, ours in _MARKS:
        text = mark.sub(ours, text)
    return text.strip()


def _of_conversations(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise _wrong(where, "conversations", turns, "a list of {from, value}")
    messages = []
    for turn in turns:
        role, text = _ROLES.get(str(turn.get("from"))), turn.get("value")
        if role is None or not isinstance(text, str):
            raise _wrong(where, "conversations", turn, "{from: user or assistant, value: a text}")
        messages.append({"role": role, "content": marked(text)})
    return {**_without(row, "conversations", "system"), "messages": messages}


def _of_generations(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    texts = row[_GENERATIONS]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _wrong(where, _GENERATIONS, texts, "a list of texts")
    checks = [row[name] for name in _CHECKS if isinstance(row.get(name), list)]
    for number, text in enumerate(texts):
        if all(len(check) > number and check[number] for check in checks):
            rest = _without(row, _GENERATIONS, "messages", *_CHECKS)
            return {**rest, "solution": marked(text)}
    raise DataError(
        f"{where}: none of {len(texts)} generations is complete and right by {', '.join(_CHECKS)}",
        fix="drop the row",
    )


def _of_program(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    program = row["cot_program"]
    if not isinstance(program, str) or not program.strip():
        raise _wrong(where, "cot_program", program, "a text, not empty")
    solution = program if "```" in program else fences.fenced(program)
    rest = _without(row, "cot_program", "final_answer")
    return {"answer": row.get("final_answer"), **rest, "solution": solution}


def _of_completion(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        turns = [*prompt, *completion]
        if not all(isinstance(t, Mapping) and isinstance(t.get("content"), str) for t in turns):
            raise _wrong(where, "prompt", turns, "messages of {role, content}")
        messages = [{**turn, "content": marked(turn["content"])} for turn in turns]
        return {**_without(row, "prompt", "completion"), "messages": messages}
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise _wrong(where, "completion", completion, "a text, as prompt, or messages both")
    return {**_without(row, "completion"), "solution": marked(completion)}


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _wrong(where: str, column: str, value: Any, wanted: str) -> DataError:
    return DataError(f"{where}: field {column} is {value!r:.60}", wanted=wanted)
