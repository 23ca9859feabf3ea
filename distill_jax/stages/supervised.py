"""Supervised batches as a function of (seed, step), and the step that trains on them."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill_jax.core import sharding
from distill_jax.core.errors import DataError
from distill_jax.data import batching, chat
from distill_jax.data.chat import Example, Prompts
from distill_jax.data.packing import check as check_packing
from distill_jax.data.problem import Problem
from distill_jax.data.rows import problem_of_row, read_rows
from distill_jax.run.run import Run
from distill_jax.stages import batch_shapes
from distill_jax.stages.loop import StepFn
from distill_jax.training.state import TrainState

# Few row lengths, few compiled programs.
MULTIPLE = 16
Draw = Callable[[int], tuple[dict[str, np.ndarray], int]]
# (row, problem) -> whether it is trained on.
Shows = Callable[[int, Problem], bool]


class Examples(Protocol):
    """What is trained on."""

    @property
    def examples(self) -> Sequence[Example]:
        """All rows."""

    def indices(self, step: int, size: int) -> np.ndarray:
        """Numbers of the examples of batch `step`, int64 [size]."""


class ExampleRows:
    """Rendered training examples, and which a batch takes; responses fit sampling.max_new_tokens.

    Args:
        run: tokenizer, training problems, settings.
        answer_only: fraction of the rows that show only the final answer, chosen by (seed, row).
        seed: of the stage.
        name: who learns on them, for an error.
        path: file of solutions; None: those of the training problems.
        only_right: of a file's rows with verdicts leave out the wrong ones.
        shows: which rows are trained on; None: all.
        window: see `batching.windowed_indices`, with packing `batching.dealt_indices`.
        packing: tokens of a packed row; 0: rows are not packed.

    Attributes:
        examples: the rows, rendered; longer ones are dropped and counted.
        problems: the problem of each.
        bare_answers: share of all rows that show the answer alone.

    Raises:
        DataError: no row fits; one is longer than a packed row.
    """

    def __init__(
        self,
        run: Run,
        *,
        answer_only: float,
        seed: int,
        name: str = "",
        path: Path | None = None,
        only_right: bool = True,
        shows: Shows | None = None,
        window: int = 1,
        packing: int = 0,
    ):
        pool = run.data.problems("train")
        if path is not None:
            pool = run.data.task.prompts(_of_file(run, path, only_right))
        problems, prompts, solutions = _given(run, answer_only, seed, pool, shows)
        max_response = run.config.sampling.max_new_tokens
        rendered = chat.render_examples(
            run.data.tokenizer, problems, solutions, run.data.task.chat, prompts
        )
        fits = [len(e.response) <= max_response for e in rendered]
        self.examples = list(itertools.compress(rendered, fits))
        self.problems = list(itertools.compress(problems, fits))
        dropped = len(rendered) - len(self.examples)
        if not self.examples:
            raise DataError(
                f"{name}{': ' * bool(name)}all {dropped} training responses are longer than "
                f"{max_response} tokens",
                fix="raise sampling.max_new_tokens",
            )
        if dropped:
            run.say(
                f"train, answer_only={answer_only}: {dropped} of {len(rendered)} rows dropped, "
                f"their responses are over sampling.max_new_tokens={max_response}"
            )
        without = sum(not p.solution for p in problems)
        if without:
            run.say(
                f"train: {without} of {len(problems)} problems have no worked solution, "
                "their rows show the bare answer"
            )
        plain = [run.data.task.response(problem, bare=True) for problem in problems]
        bare = sum(s == p for s, p in zip(solutions, plain, strict=True))
        self.bare_answers = bare / len(problems)
        lengths_N2 = batching.lengths_of(self.examples)
        if packing:
            check_packing(lengths_N2, packing, MULTIPLE)
        self._choose = batching.dealt_indices if packing else batching.windowed_indices
        self.seed, self.window, self._length_N = seed, window, lengths_N2[:, 0]

    def indices(self, step: int, size: int) -> np.ndarray:
        """Numbers of the examples of batch `step`, int64 [size]."""
        return self._choose(self.seed, step, size, self._length_N, self.window)


def _given(
    run: Run, answer_only: float, seed: int, pool: Prompts, shows: Shows | None
) -> tuple[list[Problem], list[list[int]], list[str]]:
    """The problems that the task has a response for, their prompts, the responses."""
    problems, prompts, _ = pool
    given, hidden = [], 0
    for row, (problem, prompt) in enumerate(zip(problems, prompts, strict=True)):
        if shows is not None and not shows(row, problem):
            hidden += 1
            continue
        bare = batching.is_answer_only(seed, row, answer_only)
        response = run.data.task.response(problem, bare=bare)
        if response is not None:
            given.append((problem, prompt, response))
    shown, task = len(problems) - hidden, f"task={run.config.task}"
    if not shown:
        raise DataError(
            f"none of {hidden} training problems is shown",
            fix="raise level_shares or add operations of the model",
        )
    left = shown - len(given)
    if not given:
        raise DataError(
            f"none of {left} training problems has a solution for {task}",
            wanted="worked solutions of that kind",
            fix="set data.problems.style=program for embedded problems, data.solution_column for "
            "others",
        )
    if left:
        run.say(f"train: {left} of {shown} problems skipped, no solution for {task}")
    return [p for p, _, _ in given], [ids for _, ids, _ in given], [text for _, _, text in given]


def _of_file(run: Run, path: Path, only_right: bool) -> list[Problem]:
    """The problems of a file of solutions, one a solution, each solution once.

    With only_right, of rows with column `kept` those that are kept count, else of rows with `right`
    the right ones.
    """
    rows = list(read_rows(path))
    right = [
        (where, row)
        for where, row in rows
        if not only_right or row.get("kept", row.get("right", True))
    ]
    found = [problem_of_row(row, where, where) for where, row in right]
    once = {(one.question, one.solution): one for one in reversed(found)}
    unlike = list(reversed(once.values()))
    held_out = run.data.held_out([one.question for one in unlike], str(path))
    kept = [one for one, drop in zip(unlike, held_out, strict=True) if not drop]
    run.say(
        f"{path}: {len(kept)} solutions of {len(rows)} rows; "
        f"{len(rows) - len(right)} wrong or not kept, {len(found) - len(once)} copies, "
        f"{len(once) - len(kept)} of a held-out split"
    )
    if not kept:
        raise DataError(f"{path}: no solution is left", wanted="right ones of other problems")
    return kept


def step_fn(run: Run, draw: Draw, update: Any, frozen: Any, *, size: int, of: int) -> StepFn:
    """The loop's step: draw a batch, put it on the mesh, update.

    draw: number of the step -> (batch, its tokens); size: rows of a batch; of: all rows.
    """
    where = sharding.batch_sharding(run.mesh)
    zero, one = np.int32(0), np.int32(1)

    def step(state: TrainState, number: int) -> Any:
        host, tokens = draw(number)
        state, metrics = update(state, frozen, sharding.place(host, where), zero, one)
        counts = {"step_tokens": tokens}
        if "response_len_B" in host or "segment_BT" in host:
            counts["step_response_tokens"] = batch_shapes.response_tokens_of(host)
        return state, {**metrics, "epoch": (number + 1) * size / of, **counts}, []

    return step


def examples_step(
    run: Run,
    rows: Examples,
    update: Any,
    frozen: Any,
    batch_size: int,
    *,
    steps: int,
    packing: int = 0,
    accumulate: int = 1,
) -> StepFn:
    """The step on rendered examples, in batches of few shapes.

    steps: of the whole stage. packing: tokens of a packed row; 0: one example a row. accumulate:
    microbatches, which packed rows divide into.
    """
    examples = rows.examples
    batches = (rows.indices(step, batch_size) for step in range(steps))
    if packing:
        made = batch_shapes.packed(
            run, examples, batches, budget=packing, accumulate=accumulate, multiple=MULTIPLE
        )
    else:
        made = batch_shapes.padded(run, examples, batches, multiple=MULTIPLE)

    def draw(number: int) -> tuple[dict[str, np.ndarray], int]:
        host = made.pack([examples[i] for i in rows.indices(number, batch_size)])
        return host, batch_shapes.tokens_of(host)

    update = batch_shapes.compiled_ahead(run, update, made.chosen)
    return step_fn(run, draw, update, frozen, size=batch_size, of=len(examples))
