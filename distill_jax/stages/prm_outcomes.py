"""What stage prm learns on with head=implicit: whole solutions, right or wrong."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from distill_jax.core import digest
from distill_jax.core.errors import DataError
from distill_jax.data import batching, padding, rows, trace_rows
from distill_jax.data.chat import Example
from distill_jax.data.padding import PaddedLengths
from distill_jax.data.step_rows import PRM800K, Labels, StepRow
from distill_jax.reasoning import steps
from distill_jax.reasoning.steps import Encoded
from distill_jax.run.run import Run
from distill_jax.stages import prm_rows
from distill_jax.stages.prm_rows import LabelledSolution
from distill_jax.stages.supervised import MULTIPLE

TRACES = "traces"


class OutcomeRows(prm_rows.LabelledRows):
    """The rows of a stage prm with head=implicit.

    Rows of stage traces with their verdict, undecided ones dropped; or labelled solutions: right as
    the row says (ProcessBench's final_answer_correct, trace_right of counts), else as their last
    labelled step. A solution that max_length would cut is dropped: the sum is over all its tokens.

    Attributes:
        reference: Σ log π_ref of the steps of each row, in the order of `everything`; None until
            the stage sets it.
        labelled: whether some rows have labels of steps.
    """

    reference: Sequence[np.ndarray] | None = None
    labelled = False

    @property
    def everything(self) -> list[LabelledSolution]:
        """`train`, then `held_out`."""
        return [*self.train, *self.held_out]

    @property
    def digest(self) -> str:
        """Digest of the rows' tokens."""
        parts = ([len(one.row.tokens), *one.row.tokens, *one.row.ends] for one in self.everything)
        return digest.of_all(np.array(part, np.int32).tobytes() for part in parts)

    def batch(self, step: int) -> tuple[dict[str, np.ndarray], int]:
        """(batch `step`, as `training.process_losses.outcomes` wants it, its tokens)."""
        assert self.reference is not None
        index = self._index(step)
        chosen = [self.train[i] for i in index]
        examples = [
            Example(one.row.tokens[: one.row.start], one.row.tokens[one.row.start :])
            for one in chosen
        ]
        packed = batching.pack_examples(
            examples, pad_id=self.pad_id, multiple=MULTIPLE, chosen=self.chosen
        )
        label_B = np.array([one.outcome for one in chosen], np.float32)
        packed |= {
            "reference_B": np.array([self.reference[i].sum() for i in index], np.float32),
            "label_B": label_B,
            "weight_B": self._weights(label_B),
        }
        return packed, sum(len(one.row.tokens) for one in chosen)

    def _index(self, step: int) -> np.ndarray:
        return batching.batch_indices(self.seed, step, self.settings.batch_size, len(self.train))

    @cached_property
    def chosen(self) -> tuple[PaddedLengths, ...]:
        """What the stage's batches are padded to."""
        rows = [one.row for one in self.train]
        lengths_N2 = np.array([(len(row.tokens), len(row.tokens) - row.start) for row in rows])
        steps = (self._index(step) for step in range(self.settings.steps))
        return padding.plan(lengths_N2, steps, multiple=MULTIPLE).chosen

    def _read(self, run: Run, path: Path) -> list[StepRow]:
        _, first = next(iter(rows.read_rows(path)), ("", {}))
        if {"completion", "right"} <= first.keys():
            return self._of_traces(run, path)
        self.labelled = True
        found = super()._read(run, path)
        if any(row.form == PRM800K for row in found):
            raise DataError(
                f"{path}: rows of {PRM800K} with head=implicit",
                wanted="whole solutions: most of PRM800K's end before the answer",
            )
        return found

    def _of_traces(self, run: Run, path: Path) -> list[StepRow]:
        out, how = [], self.settings.step_format.how
        for number, one in enumerate(trace_rows.read(path), 1):
            split = steps.split_tokens(run.data.tokenizer, one.tokens, how)
            texts = [run.data.text(step.tokens) for step in split]
            right = None if one.undecided else one.right
            where = f"{path} row {number}"
            tokens = [step.tokens for step in split]
            nothing: Labels = [None] * len(split)
            out.append(StepRow(where, TRACES, one.question, texts, nothing, tokens, right))
        return out

    def _teaches(self, row: StepRow, encoded: Encoded | None) -> bool:
        if encoded is None:
            return row.outcome is not None and bool(row.steps)
        return bool(encoded.ends) and not encoded.dropped

    def _share_right(self, name: str) -> float:
        outcomes = [one.outcome for one in self.train]
        return prm_rows.share_right(outcomes, f"{name}: all", "solutions")
