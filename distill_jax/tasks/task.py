"""How problems are put to a model and answers judged: the interface of a task, and task text."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distill_jax import answers
from distill_jax.data import chat
from distill_jax.data.batching import bare_answer
from distill_jax.data.chat import ChatSettings, Prompts
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.reasoning import steps
from distill_jax.tasks.observed import NO_ANSWER, Observed


class Judged(NamedTuple):
    """Verdicts on B completions: right_B bool, undecided_B bool (never right as well).

    details: a JSON-able dict a completion, with what else the judge found; may be empty.
    stated: the final answer of each completion as written, None where it has none.
    """

    right_B: np.ndarray
    undecided_B: np.ndarray
    details: list[dict[str, Any]]
    stated: list[str | None]


class Reply(NamedTuple):
    """What the environment puts behind a turn; failed: what the turn asked for did not work."""

    text: str
    failed: bool = False


class Task(Protocol):
    """How problems become prompts and how completions are judged.

    A completion may have several turns, with a reply of the task between two of them. Whatever is
    judged is the model's own text, without the replies.

    Attributes:
        takes_turns: whether the task ever replies.
        repeatable: `observe` finds the same at every call.
        begins: whether `begin` does anything.
    """

    begins: bool
    takes_turns: bool
    repeatable: bool

    @property
    def chat(self) -> ChatSettings:
        """The prompt format, instructions of the task included."""

    def prompts(self, problems: Sequence[Problem], tokenizer: Any = None) -> Prompts:
        """The problems whose prompts fit, with their token ids; tokenizer: None is the run's.

        Raises:
            DataError: a prompt is too long where that is an error, or none fits.
        """

    def response(self, problem: Problem, *, bare: bool) -> str | None:
        """The completion to train on: the worked solution; if `bare`, the answer without its work.

        None where the task would accept none.
        """

    def begin(self, texts: Sequence[str]) -> None:
        """Starts, in the background, what `judge` will need of completions that have ended."""

    def judge(
        self, problems: Sequence[Problem], texts: Sequence[str], ended_B: np.ndarray
    ) -> Judged:
        """The verdict on each completion.

        Args:
            problems: one a completion.
            texts: completions without special tokens.
            ended_B: bool, whether the completion ended with EOS.
        """

    def asks(self, text: str) -> bool:
        """Whether a turn ends here, for the task to reply; true of every continuation, too."""

    def respond(self, texts: Sequence[str]) -> list[Reply | None]:
        """The reply to the last turn of each completion; None: there is none, it is finished.

        A reply is part of the prompt of what follows: it depends on no problem, so that no gold
        answer can enter it.

        Args:
            texts: the model's last turn without special tokens, cut off where `asks` was true.
        """

    def is_void(self, text: str) -> bool:
        """Whether a turn neither asks for a reply nor states an answer."""

    def observe(self, texts: Sequence[str], ended_B: np.ndarray | None = None) -> list[Observed]:
        """What each completion shows without gold: its answer, which votes, and its failures.

        ended_B: as of `judge`; None: every completion ended.
        """

    def shown(self, text: str) -> str:
        """The part of a completion that a model reads to revise it."""

    def key(self, text: str) -> str:
        """A key of the solution in a completion: equal for ones that differ in layout alone."""

    def guesses(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[bool]:
        """Whether each completion, judged right, gives its answer without the work."""

    def shortened(self, text: str) -> str | None:
        """The completion without what its answer does not need; None where it has none of that.

        Judge it before it counts: leaving out what looked needless may change the answer.
        """

    def flexible(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[bool | None]:
        """Whether the last number of each completion is its gold answer, whatever is around it.

        None where that says nothing. A figure to compare with others' evaluations, never a reward.
        """

    def metrics(self, judged: Judged) -> dict[str, float]:
        """Metrics of a training step besides its verdicts; {} where there are none."""

    def figures(
        self, problems: Sequence[Problem], texts: Sequence[str], judged: Judged
    ) -> dict[str, Any]:
        """JSON-able figures of an evaluation besides its verdicts; may cost as much as `judge`."""

    def close(self) -> None:
        """Ends whatever processes the task holds."""


class TextTask:
    """Task `text`: chat prompts; a worked solution in words, judged by its final answer."""

    repeatable = True
    takes_turns = False
    begins = False

    def __init__(
        self, settings: DataSettings, tokenizer: Any, programs: Any = None, rounds: int = 1
    ):
        del programs, rounds  # settings of task program
        self.settings, self.tokenizer = settings, tokenizer

    @property
    def chat(self) -> ChatSettings:
        """The prompt format of the data."""
        return self.settings.chat

    def prompts(self, problems: Sequence[Problem], tokenizer: Any = None) -> Prompts:
        """The problems whose prompts fit, with their prompts' token ids: see `Task.prompts`."""
        return chat.fitting_prompts(
            tokenizer or self.tokenizer,
            problems,
            self.chat,
            max_prompt_tokens=self.settings.max_prompt_tokens,
            on_long_prompt=self.settings.on_long_prompt,
        )

    def response(self, problem: Problem, *, bare: bool) -> str | None:
        """The worked solution; the answer alone if bare, or where there is none.

        As `chat.solution_text` writes it: `#### answer`, or in a box.
        """
        text = bare_answer(problem) if bare or not problem.solution else problem.solution
        return chat.solution_text(text, problem.answer, self.chat)

    def begin(self, texts: Sequence[str]) -> None:
        """Nothing: see `Task.begin`."""

    def judge(
        self, problems: Sequence[Problem], texts: Sequence[str], ended_B: np.ndarray
    ) -> Judged:
        """The answer check's verdict on each completion: see `Task.judge`."""
        del ended_B  # a stated answer counts, whether the text ended or not
        found = answers.check_batch([problem.answer for problem in problems], texts)
        right_B = np.array([one.verdict == "right" for one in found], bool)
        undecided_B = np.array([one.verdict == "undecided" for one in found], bool)
        stated = [one.answer for one in self.observe(texts)]
        return Judged(right_B, undecided_B, [{} for _ in found], stated)

    def asks(self, text: str) -> bool:
        """Never: see `Task.asks`."""
        del text
        return False

    def respond(self, texts: Sequence[str]) -> list[Reply | None]:
        """No reply to any turn: see `Task.respond`."""
        return [None] * len(texts)

    def is_void(self, text: str) -> bool:
        """Whether the text states no answer: see `Task.is_void`."""
        return answers.extract(text) is None

    def observe(self, texts: Sequence[str], ended_B: np.ndarray | None = None) -> list[Observed]:
        """The final answer that each text states, ended or not: see `Task.observe`."""
        del ended_B
        found = [answers.extract(text) for text in texts]
        return [Observed(one.text) if one else Observed(None, ((NO_ANSWER, ""),)) for one in found]

    def shown(self, text: str) -> str:
        """The whole completion."""
        return text

    def key(self, text: str) -> str:
        """The text's lines without blank ones, in lower case with single spaces."""
        lines = steps.split_text(text.lower(), steps.Format())
        return "\n".join(" ".join(line.split()) for line in lines)

    def guesses(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[bool]:
        """Whether each text is one line with no other number than its final answer."""
        del problems
        seen = zip(texts, self.observe(texts), strict=True)
        return [_is_guess(text, one.answer) for text, one in seen]

    def shortened(self, text: str) -> str | None:
        """None: each step of a worked solution may be needed."""
        del text
        return None

    def flexible(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[bool | None]:
        """As lm-evaluation-harness extracts; None where the gold answer is no number."""
        pairs = zip(problems, texts, strict=True)
        return [answers.flexible_right(problem.answer, text) for problem, text in pairs]

    def metrics(self, judged: Judged) -> dict[str, float]:
        """None: a text's verdict is all that is known of it."""
        del judged
        return {}

    def figures(
        self, problems: Sequence[Problem], texts: Sequence[str], judged: Judged
    ) -> dict[str, Any]:
        """None: as `metrics`."""
        del problems, texts, judged
        return {}

    def close(self) -> None:
        """Nothing to end: the answer check's workers belong to the process."""


def _is_guess(text: str, answer: str | None) -> bool:
    rest = text.strip().replace(answer or "", "", 1)
    return "\n" not in text.strip() and not any(letter.isdigit() for letter in rest)
