"""What stage prm learns on: solutions encoded with their labels, some problems held out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.batching import round_up
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import batching, step_rows
from distill_jax.data.problem import Problem, content_hash, half_of
from distill_jax.data.step_rows import COUNTS, PRM800K, Labels, StepRow
from distill_jax.models.reward_model_io import PRMConfig
from distill_jax.reasoning import step_labels, steps
from distill_jax.reasoning.step_labels import Counts
from distill_jax.reasoning.steps import Encoded
from distill_jax.run.run import Run, Stage
from distill_jax.stages.prm_settings import PRMSettings

_STEPS = 8


class LabelledSolution(NamedTuple):
    """An encoded solution, a label (or None) for each of its steps that has room, and whether it is
    right: 1, 0 or None."""

    row: Encoded
    labels: Labels
    outcome: float | None


class LabelledRows:
    """The rows of a stage prm.

    Args:
        run, stage: settings; the rows' files must be there.

    Attributes:
        train, held_out: solutions, each with a labelled step; a problem is in one of them.
        step_id: of the step token.
        counted: whether the labels come from counts.
        salt: of the hash that splits the problems; see `is_held_out`.
        figures: numbers of rows and labels, for done.json and for people.

    Raises:
        DataError: a file cannot be read, no row is left, or all labels are of one class.
        ConfigError: a setting that these rows do not read; a step token that does not exist.
    """

    def __init__(self, run: Run, stage: Stage[PRMSettings]):
        s = self.settings = stage.settings
        self.seed, self.pad_id = run.seed(stage), run.data.pad_id
        self.step_id = steps.step_token_id(run.data.tokenizer, s.step_format.token)
        self.salt = str(run.config.seed)
        paths = [run.rows(source) for source in s.sources]
        names = ", ".join(map(str, paths))
        given = [row for path in paths for row in self._read(run, path)]
        held_out = run.data.held_out([row.question for row in given], names)
        found = [row for row, drop in zip(given, held_out, strict=True) if not drop]
        usable, found = found, [r for r in found if s.half in (0, half_of(r.question))]
        forms = {row.form for row in given}
        refuse_other_split(given, s.step_format.split, f"{stage.name}.step_format.split")
        self.counted = COUNTS in forms
        _refuse_unread(stage, forms)
        if not found:
            other = f", or of the half that {stage.name}.half={s.half} leaves" if usable else ""
            raise DataError(
                f"{names}: all {len(given)} rows are of problems of validation or test{other}",
                wanted="rows of training problems",
            )
        kept, self.figures = _encode(run, found, self.step_id, s, self._teaches)
        self.figures["rows_dropped_held_out"] = len(given) - len(usable)
        if s.half:
            self.figures["rows_dropped_other_half"] = len(usable) - len(found)
        if self.figures["rows_without_label"] == len(found):
            raise DataError(
                f"{names}: none of {len(found)} rows has a labelled step",
                wanted="right and wrong steps; a problem that no completion solves labels none",
                fix=f"let a better student write and complete them, or set {stage.name}.data to "
                "other rows",
            )
        self.train = [row for question, row in kept if not self.is_held_out(question)]
        self.held_out = [row for question, row in kept if self.is_held_out(question)]
        share = s.validation_share
        if not self.train or (share and not self.held_out):
            raise DataError(
                f"{names}: {len(self.train)} rows to train on, {len(self.held_out)} held out",
                wanted="some of both" if share else "some",
                fix=f"change {stage.name}.validation_share, raise {stage.name}.max_length, or "
                "give more problems",
            )
        self._right = self._share_right(names)
        self.figures |= {
            "train_rows": len(self.train),
            "held_out_rows": len(self.held_out),
            "share_right": self._right,
        }
        run.say(f"{stage.name}: " + ", ".join(f"{k} {v:.4g}" for k, v in self.figures.items()))

    def is_held_out(self, question: str) -> bool:
        """Whether a problem is held out: by a hash of salt and text, so the same in every file."""
        return is_held_out(question, self.salt, self.settings.validation_share)

    def batch(self, step: int) -> tuple[dict[str, np.ndarray], int]:
        """(batch `step`, as `training.process_losses.step_labels` wants it, its tokens)."""
        size = self.settings.batch_size
        index = batching.batch_indices(self.seed, step, size, len(self.train))
        chosen = [self.train[i] for i in index]
        T = batching.bucket(max(len(one.row.tokens) for one in chosen), self._lengths)
        tokens_BT = np.full((size, T), self.pad_id, np.int32)
        end_BS = np.zeros((size, self._most_steps), np.int32)
        label_BS = np.full(end_BS.shape, np.nan, np.float32)
        for number, (row, labels, _) in enumerate(chosen):
            tokens_BT[number, : len(row.tokens)] = row.tokens
            end_BS[number, : len(row.ends)] = row.ends
            label_BS[number, : len(labels)] = [np.nan if y is None else y for y in labels]
        there_BS = np.isfinite(label_BS)
        label_BS = np.nan_to_num(label_BS)
        weight_BS = self._weights(label_BS) * there_BS
        arrays = {
            "tokens_BT": tokens_BT, "end_BS": end_BS, "label_BS": label_BS, "weight_BS": weight_BS,
        }  # fmt: skip
        return arrays, sum(len(one.row.tokens) for one in chosen)

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        """Few row lengths, few compiled programs."""
        return batching.bucket_sizes(max(len(one.row.tokens) for one in self.train), multiple=16)

    @cached_property
    def _most_steps(self) -> int:
        return round_up(max(len(one.row.ends) for one in self.train), _STEPS)

    def _weights(self, label: np.ndarray) -> np.ndarray:
        """Weights of labels in [0, 1]; with `balanced` each class has half of the total."""
        if not self.settings.balanced:
            return np.ones_like(label)
        return label / (2 * self._right) + (1 - label) / (2 * (1 - self._right))

    def _teaches(self, row: StepRow, encoded: Encoded | None) -> bool:
        """Whether a row has a label; with `encoded`, on one of the steps that have room."""
        labels = row.labels if encoded is None else row.labels[: len(encoded.ends)]
        return any(y is not None for y in labels)

    def _read(self, run: Run, path: Path) -> list[StepRow]:
        del run
        return step_rows.read(path, neutral=self.settings.neutral, derive=self._labels)

    def _share_right(self, name: str) -> float:
        """Mean of the labels that are trained on."""
        return share_right([y for one in self.train for y in one.labels], f"{name}: all", "steps")

    def _labels(
        self, mc: Sequence[Mapping[str, int] | None], root: Mapping[str, int]
    ) -> list[float | None]:
        def counts(one: Mapping[str, int]) -> Counts:
            return Counts(one["right"], one["wrong"], one["undecided"])

        given = [None if one is None else counts(one) for one in mc]
        s = self.settings
        return step_labels.labels(given, counts(root), s.labels, s.threshold)


def is_held_out(question: str, salt: str, share: float) -> bool:
    """Whether a problem is in the held-out share, by a hash of salt and text."""
    text = f"{salt}/{content_hash(question)}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def may_have_seen(about: PRMConfig, question: str) -> bool | None:
    """Whether a reward model's training may have shown it solutions of a problem.

    True where its rows were of all problems, its half's or another file's; None: it does not say.
    """
    known = about.trained_on
    if "problem_hash_salt" not in known:
        return None
    salt, share = str(known["problem_hash_salt"]), float(known["validation_share"])
    own_half = known.get("half", 0) in (0, half_of(question))
    return own_half and not is_held_out(question, salt, share)


def refuse_other_split(rows: Sequence[StepRow], split: str, name: str) -> None:
    """Raises ConfigError where a row's steps are cut in another way than `name` says."""
    for row in rows:
        if row.step_split not in (None, split):
            raise ConfigError(
                f"{row.where}: rows of step_split={row.step_split} with {name}={split}",
                wanted="one split: a reward model reads steps as they were labelled",
            )


def _refuse_unread(stage: Stage[PRMSettings], forms: set[str]) -> None:
    plain, s = PRMSettings(), stage.settings
    readers = {"labels": COUNTS, "threshold": COUNTS, "neutral": PRM800K}
    for name, form in readers.items():
        if getattr(s, name) != getattr(plain, name) and form not in forms:
            raise ConfigError(
                f"{stage.name}.{name}={getattr(s, name)} with rows of form {', '.join(forms)}",
                wanted=f"rows of form {form}: others do not read it",
            )


def _encode(
    run: Run,
    rows: Sequence[StepRow],
    step_id: int,
    s: PRMSettings,
    teaches: Callable[[StepRow, Encoded | None], bool],
) -> tuple[list[tuple[str, LabelledSolution]], dict[str, float]]:
    """(question, encoded row) of each row that keeps a label, and what became of the others."""
    problems = {row.question: Problem(row.where, row.question, "", "") for row in rows}
    fitting = run.data.task.prompts(list(problems.values()))
    prompts = dict(zip([p.question for p in fitting.problems], fitting.prompts, strict=True))
    kept, cut, lost, holding = [], 0, 0, 0
    labelled = [row for row in rows if teaches(row, None)]
    for row, tokens in zip(labelled, step_tokens(run, labelled), strict=True):
        prompt = prompts.get(row.question)
        encoded = Encoded([], [], len(tokens))
        if prompt is not None:
            encoded = steps.encode(prompt, tokens, step_id, s.max_length)
        cut += bool(encoded.dropped)
        if not teaches(row, encoded):
            lost += 1
            continue
        # Scoring would cut such a step in two.
        how = s.step_format.how
        holding += row.tokens is None and any(
            len(steps.split_text(step, how)) > 1 for step in row.steps
        )
        kept.append(
            (row.question, LabelledSolution(encoded, row.labels[: len(encoded.ends)], row.outcome))
        )
    return kept, {
        "rows": len(rows),
        "rows_without_label": len(rows) - len(labelled),
        "rows_cut": cut,
        "rows_dropped_too_long": lost,
        "rows_with_separator_in_step": holding,
    }


def step_tokens(run: Run, rows: Sequence[StepRow]) -> list[list[list[int]]]:
    """Token ids of the steps of each row: as the row gives them, else of the steps' texts.

    Raises:
        DataError: a special token in a step, or an unknown id.
    """
    # All texts in one call: many times faster than row by row.
    texts = [step for row in rows if row.tokens is None for step in row.steps]
    tokenised = iter(steps.tokenise(run.data.tokenizer, texts) if texts else [])
    out = [row.tokens or [next(tokenised) for _ in row.steps] for row in rows]
    for row, tokens in zip(rows, out, strict=True):
        _refuse_tokens(run, row, tokens)
    return out


def _refuse_tokens(run: Run, row: StepRow, tokens: Sequence[Sequence[int]]) -> None:
    """Raises DataError for a special token, which would end the turn, or an unknown id."""
    added, vocab = run.data.tokenizer.added_tokens_decoder, run.data.vocab
    for number, step in enumerate(tokens):
        for index in step:
            if not isinstance(index, int) or not 0 <= index < vocab:
                wanted = f"ids of the run's tokenizer, 0..{vocab - 1}"
                raise DataError(f"{row.where}: token {index!r} in step {number}", wanted=wanted)
            if index in added and added[index].special:
                got = f"{row.where}: step {number} holds the special token {added[index].content}"
                raise DataError(got, fix="remove the row or the token")


def share_right(given: Sequence[float | None], name: str, what: str) -> float:
    """Mean label; raises DataError where all labels are 0 or all are 1."""
    labels = [y for y in given if y is not None]
    share = float(np.mean(labels))
    if share in (0.0, 1.0):
        raise DataError(
            f"{name} {len(labels)} labelled {what} are {'right' if share else 'wrong'}",
            wanted="right and wrong ones: a constant would be the best model",
            fix="add rows of the other class",
        )
    return share


def figures_for(labelled: Sequence[LabelledSolution]) -> tuple[list[Encoded], list[Labels]]:
    """(encoded rows, labels), for scoring."""
    return [one.row for one in labelled], [one.labels for one in labelled]


def about(run: Run, stage: Stage[PRMSettings], rows: LabelledRows, **more: Any) -> PRMConfig:
    """The content of prm_config.json, with the salt that says which problems were held out."""
    s = stage.settings
    digests = [run.digest(run.rows(source)) for source in s.sources]
    return PRMConfig(
        head=s.head,
        step_split=s.step_format.split,
        step_separator=s.step_format.separator,
        step_token=s.step_format.token,
        step_token_id=rows.step_id,
        aggregation=s.aggregation,
        system_prompt=run.config.data.chat.system_prompt,
        max_length=s.max_length,
        trained_on={
            **rows.figures,
            **dict(zip(("rows_digest", "also_digest"), digests, strict=False)),
            "validation_share": s.validation_share,
            "problem_hash_salt": rows.salt,
            **({"half": s.half} if s.half else {}),
        },
        **more,
    )
