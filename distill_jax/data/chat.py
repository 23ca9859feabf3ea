"""The one prompt format: what supervised tuning, reinforcement learning and evaluation share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from jinja2 import TemplateError

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.core.text import encodable
from distill_jax.data.problem import Problem
from distill_jax.data.rows import problem_of_row, read_rows
from distill_jax.data.tokenizer import FastTokenizer, eos_id

# Llama 3's templates write a date: by default today's, which a resumed run would not repeat.
_DATE = "26 Jul 2024"


@dataclass(frozen=True)
class ChatSettings:
    """How a question becomes a prompt, and a worked solution the response to it."""

    system_prompt: str | None = setting(None, "System message before the question; None for none.")
    instruction: str = setting("", "Text put after the question, on a line of its own.")
    shots: str = setting(
        "",
        "Worked examples before each question, as earlier turns: all rows of a .jsonl, .json or "
        ".parquet file with question and solution (or answer with ####); empty: none.",
    )
    boxed: bool = setting(
        False,
        "Worked solutions end in \\boxed{ANSWER} instead of a line '#### ANSWER', as the "
        "instruction of the presets for real models asks.",
    )
    enable_thinking: bool = setting(False, "Handed to chat templates that know it (Qwen3).")


class Example(NamedTuple):
    """Token ids of a prompt and of its response, EOS included."""

    prompt: list[int]
    response: list[int]


class Prompts(NamedTuple):
    """Problems whose prompts fit, those prompts, and how many were dropped."""

    problems: list[Problem]
    prompts: list[list[int]]
    dropped: int

    def first(self, count: int) -> "Prompts":
        """The first `count` problems with their prompts; 0: all. `dropped` stays."""
        count = count or len(self.problems)
        return Prompts(self.problems[:count], self.prompts[:count], self.dropped)


def render_prompt(tok: FastTokenizer, problem: Problem, settings: ChatSettings) -> list[int]:
    """Token ids up to where the response begins."""
    return render_prompts(tok, [problem], settings)[0]


def render_prompts(
    tok: FastTokenizer, problems: Sequence[Problem], settings: ChatSettings
) -> list[list[int]]:
    """Token ids of many prompts; each is the same as `render_prompt` gives alone.

    Raises:
        DataError: the tokenizer has no chat template, or one that refuses these messages; a
            question holds a special token.
    """
    if not problems:
        return []
    if tok.chat_template is None:
        raise DataError(
            "the tokenizer has no chat template",
            wanted="chat_template in tokenizer_config.json, or <|im_start|> and <|im_end|>",
            fix="add the template of a chat model that has the same tokens",
        )
    check_no_specials(tok, [(p.id, "question", p.question) for p in problems])
    shots = _shots(settings)
    check_no_specials(tok, [(p.id, "text", p.question + p.solution) for p in shots])
    try:
        return render_messages(
            tok,
            [messages(problem, settings) for problem in problems],
            enable_thinking=settings.enable_thinking,
        )
    except TemplateError as error:
        raise DataError(
            f"the tokenizer's chat template refuses a prompt: {error}",
            wanted="messages that it knows: Mistral's first ones know no system message",
            fix="set data.chat.system_prompt=None and say it in data.chat.instruction, or use "
            "another template",
        ) from error


def render_messages(
    tok: FastTokenizer,
    conversations: Sequence[Sequence[dict[str, str]]],
    *,
    enable_thinking: bool,
) -> list[list[int]]:
    """Token ids of conversations of {role, content} up to where the next response begins.

    Raises:
        TemplateError: the template refuses one.
    """
    rendered = tok.apply_chat_template(
        list(map(list, conversations)),
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=enable_thinking,
        date_string=_DATE,
    )
    return tok([encodable(text) for text in rendered], add_special_tokens=False)["input_ids"]


def render_examples(
    tok: FastTokenizer,
    problems: Sequence[Problem],
    solutions: Sequence[str],
    settings: ChatSettings,
    prompts: list[list[int]] | None = None,
) -> list[Example]:
    """Prompts with responses, tokenised separately, as a sampler sees them.

    A response ends with EOS, a token that is trained on. `prompts`: as rendered before.

    Raises:
        DataError: a solution is empty or holds a special token.
    """
    prompts = render_prompts(tok, problems, settings) if prompts is None else prompts
    if not prompts:
        return []
    for problem, solution in zip(problems, solutions, strict=True):
        if not solution.strip():
            raise DataError(f"problem {problem.id} has no solution", fix="give one to train on")
    check_no_specials(
        tok, [(p.id, "solution", s) for p, s in zip(problems, solutions, strict=True)]
    )
    end = eos_id(tok)
    responses = tok([encodable(s) for s in solutions], add_special_tokens=False)["input_ids"]
    return [Example(p, [*r, end]) for p, r in zip(prompts, responses, strict=True)]


def fitting_prompts(
    tok: FastTokenizer,
    problems: Sequence[Problem],
    settings: ChatSettings,
    *,
    max_prompt_tokens: int,
    on_long_prompt: str,
) -> Prompts:
    """Renders prompts and applies the policy for long ones.

    Args:
        max_prompt_tokens: longest prompt allowed, chat format included.
        on_long_prompt: "drop" skips the problem and counts it; "error" refuses.

    Raises:
        DataError: a prompt is too long under "error", or nothing is left under "drop".
    """
    prompts = render_prompts(tok, problems, settings)
    fits = [len(prompt) <= max_prompt_tokens for prompt in prompts]
    if on_long_prompt == "error" and not all(fits):
        long = fits.index(False)
        raise DataError(
            f"problem {problems[long].id} has a prompt of {len(prompts[long])} tokens",
            wanted=f"at most max_prompt_tokens={max_prompt_tokens}",
            fix="raise data.max_prompt_tokens or set data.on_long_prompt=drop",
        )
    kept = list(compress(problems, fits))
    if problems and not kept:
        sizes = [len(prompt) for prompt in prompts]
        raise DataError(
            f"all {len(problems)} prompts are longer than {max_prompt_tokens} tokens: "
            f"{min(sizes)} to {max(sizes)}",
            fix=f"raise data.max_prompt_tokens to {max(sizes)} to keep them all",
        )
    return Prompts(kept, list(compress(prompts, fits)), len(problems) - len(kept))


def messages(problem: Problem, settings: ChatSettings) -> list[dict[str, str]]:
    """The {role, content} of a prompt, as chat templates and endpoints take them.

    Raises:
        ConfigError: no file settings.shots.
        DataError: that file, or a row of it, cannot be used.
    """

    def asked(one: Problem) -> dict[str, str]:
        rest = f"\n{settings.instruction}" if settings.instruction else ""
        return {"role": "user", "content": one.question + rest}

    found = []
    if settings.system_prompt is not None:
        found.append({"role": "system", "content": settings.system_prompt})
    for shot in _shots(settings):
        answered = solution_text(shot.solution, shot.answer, settings)
        found += [asked(shot), {"role": "assistant", "content": answered}]
    return [*found, asked(problem)]


def solution_text(solution: str, answer: str, settings: ChatSettings) -> str:
    r"""A worked solution as the settings want it written; answer: its final answer.

    With `boxed` a last line "#### 72" becomes "The final answer is \boxed{72}."; a solution with
    neither mark gets that line, one with a box stays.
    """
    if not settings.boxed or "\\boxed" in solution:
        return solution
    worked = solution.rpartition("####")[0] if "####" in solution else solution
    return f"{worked.rstrip()}\nThe final answer is \\boxed{{{answer}}}.".lstrip()


def _shots(settings: ChatSettings) -> tuple[Problem, ...]:
    path = Path(settings.shots).expanduser()
    if not settings.shots:
        return ()
    if not path.is_file():
        raise ConfigError(f"no file data.chat.shots={settings.shots}", wanted="worked examples")
    return _read_shots(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read_shots(path: Path, changed: int) -> tuple[Problem, ...]:
    """changed: when the file was, so that another content is read again."""
    del changed
    rows = enumerate(read_rows(path), 1)
    found = [problem_of_row(row, where, f"{path}/{i}") for i, (where, row) in rows]
    for one in found:
        if not one.solution.strip():
            raise DataError(f"{one.id} has no solution", wanted="a worked example in each row")
    return tuple(found)


def decode(tok: FastTokenizer, response: Sequence[int]) -> str:
    """The text of sampled tokens without special tokens."""
    return str(tok.decode(list(response), skip_special_tokens=True))


def check_no_specials(tok: FastTokenizer, texts: Sequence[tuple[str, str, str]]) -> None:
    """A special token inside data would end or open a turn: refuse it, naming the row.

    texts: (id of the row, name of the part, text).

    Raises:
        DataError: one holds a special token.
    """
    # all_special_tokens lists only those with a role (EOS, pad), not <|im_start|>.
    specials = [token.content for token in tok.added_tokens_decoder.values() if token.special]
    for problem_id, part, text in texts:
        for special in specials:
            if special in text:
                raise DataError(
                    f"problem {problem_id}: its {part} holds the special token {special}",
                    fix="remove the row or the token",
                )
