"""Where problems come from: the embedded generator, published sets by name, or local files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from absl import logging

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread
from distill_jax.data import synthetic
from distill_jax.data.chat import ChatSettings
from distill_jax.data.problem import Problem
from distill_jax.data.rows import Columns, odd_gold, problem_of_row, read_rows

SPLITS = synthetic.SPLITS

# A split that a source lacks is carved out of its training rows by a hash of the question.
_CARVED_PERCENT = 5


class Published(NamedTuple):
    """A set on the hub: repository, its configs, and the hub's name of each split that it has."""

    repository: str
    configs: Sequence[str] = ("default",)
    splits: Mapping[str, str] = {"test": "test"}


# No validation split on the hub. Sets without a train split are benchmarks: nothing trains on them.
PUBLISHED = {
    "gsm8k": Published("openai/gsm8k", ["main"], {"train": "train", "test": "test"}),
    "math": Published(
        "EleutherAI/hendrycks_math",
        "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra"
        " precalculus".split(),
        {"train": "train", "test": "test"},
    ),
    "math500": Published("HuggingFaceH4/MATH-500"),
    "aime2024": Published("HuggingFaceH4/aime_2024", splits={"test": "train"}),
    "aime2025": Published("math-ai/aime25"),
    "amc": Published("AI-MO/aimo-validation-amc", splits={"test": "train"}),
}
NAMES = ("embedded", *PUBLISHED)
_SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class DataSettings:
    """Which problems, and how they become prompts."""

    # Not `problems`: a benchmark may be embedded where the source is not.
    UNREAD: ClassVar = (
        Unread(
            ("train", "validation", "test", "question_column", "solution_column", "answer_column"),
            ("source",),
            lambda source: source == "embedded",
        ),
    )

    source: str = setting(
        "embedded", "embedded, gsm8k, math, or a path: .jsonl, .json, .parquet or a directory."
    )
    problems: synthetic.ProblemSettings = setting(
        synthetic.ProblemSettings(), "The embedded problem generator."
    )
    chat: ChatSettings = setting(ChatSettings(), "The prompt format.")
    train: str = setting("train", "Name of the training split, or path of its file.")
    validation: str = setting(
        "validation", "Name or file of the validation split; carved out of train if missing."
    )
    test: str = setting("test", "Name or file of the test split; carved out of train if missing.")
    limit: int | None = setting(None, "At most so many problems of a split, drawn by seed.", low=1)
    max_prompt_tokens: int = setting(512, "Longest prompt, chat format included.", low=1)
    on_long_prompt: str = setting(
        "drop", "Longer prompts are dropped and counted, or refused.", choices=("drop", "error")
    )
    ngram: int = setting(
        0,
        "Rows of a file (questions of synthesis, traces, steps, solutions) are also dropped where "
        "their question shares so many words in a row with a validation or test problem, e.g. 13; "
        "0: where it is the same question. Generated problems share their sentences: leave it 0.",
        low=0,
    )
    question_column: str | None = setting(None, "Column of the question; None finds it.")
    solution_column: str | None = setting(None, "Column of the worked solution; None finds it.")
    answer_column: str | None = setting(None, "Column of the gold answer; None finds it.")

    def columns(self) -> Columns:
        """The columns asked for."""
        return Columns(self.question_column, self.solution_column, self.answer_column)


def load(
    settings: DataSettings, split: str, seed: int, say: Callable[[str], None] = logging.warning
) -> list[Problem]:
    """The problems of a split, in a fixed order.

    Args:
        split: "train", "validation" or "test".
        seed: steers the embedded generator, and the draw when `limit` is set.
        say: takes the warning of a local file's gold answers that look wrong.

    Raises:
        ConfigError: unknown split.
        DataError: the source cannot be reached or read, a row is malformed (file, line and
            field are named), or nothing is left.
    """
    if split not in SPLITS:
        raise ConfigError(f"split={split!r}", wanted=f"one of {', '.join(SPLITS)}")
    if settings.source == "embedded":
        count = min(settings.problems.size(split), settings.limit or settings.problems.size(split))
        return synthetic.problems(split, count, settings.problems, seed)
    found = _hub(settings, split) if settings.source in PUBLISHED else _local(settings, split, say)
    if not found:
        raise DataError(f"{settings.source} has no {split} problems", fix="check data.source")
    if settings.limit is not None and settings.limit < len(found):
        order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(found))
        found = [found[index] for index in sorted(order[: settings.limit])]
    return found


def benchmark(settings: DataSettings, name: str) -> DataSettings:
    """The settings whose test split is a benchmark: a name of NAMES, a file or a directory.

    A file is taken whole. Names of splits and columns are the usual ones, whatever `settings` has.
    """
    path, plain = Path(name).expanduser(), DataSettings()
    usual = ("train", "validation", "limit", "question_column", "solution_column", "answer_column")
    return replace(
        settings,
        source=name,
        test=path.name if path.suffix in _SUFFIXES else plain.test,
        **{one: getattr(plain, one) for one in usual},
    )


def check_benchmark(name: str) -> None:
    """Raises ConfigError where the name is a split's."""
    if name in SPLITS:
        raise ConfigError(f"benchmark={name}", wanted=f"{', '.join(NAMES)}, or a path")


def has_train(settings: DataSettings) -> bool:
    """Whether the source has training problems."""
    found = PUBLISHED.get(settings.source)
    return found is None or "train" in found.splits


def carved_split(problem: Problem, missing: tuple[str, ...]) -> str:
    """The split of a training row where the source lacks some splits: 5% each, by hash.

    Rows with one question land in one split, so the splits cannot share a question.
    """
    part = int(problem.content_hash, 16) % 100 // _CARVED_PERCENT
    return missing[part] if part < len(missing) else "train"


def _carve(rows: Mapping[str, list[Problem] | None], split: str) -> list[Problem]:
    """The rows of a split, carved out of the training rows where the source lacks it."""
    own = rows[split]
    if split != "train" and own is not None:
        return own
    missing = tuple(name for name in ("validation", "test") if rows[name] is None)
    train = rows["train"] or []
    found = [p for p in train if carved_split(p, missing) == split]
    if train and not found:
        raise DataError(
            f"of {len(train)} training rows none falls to {split}",
            wanted=f"enough of them: where {split} has no file of its own, a hash of the question "
            f"takes {_CARVED_PERCENT}%",
            fix=f"give more rows, or set data.{split} to a file",
        )
    return found


def _local(settings: DataSettings, split: str, say: Callable[[str], None]) -> list[Problem]:
    root = Path(settings.source).expanduser()
    if not root.exists():
        raise DataError(
            f"{settings.source!r} as a source of problems: no such file or directory",
            wanted=f"{', '.join(NAMES)}, or a path",
        )
    files: dict[str, Path | None] = {
        name: _split_file(root, getattr(settings, name), name) for name in SPLITS
    }
    if root.is_dir() and files["train"] is None and files[split] is None:
        raise DataError(
            f"{root} holds no file for the {split} split",
            wanted=" or ".join(f"{getattr(settings, split)}{suffix}" for suffix in _SUFFIXES),
            fix=f"set data.{split} to its file",
        )
    # Only the files that this split needs are read: its own, or the one it is carved from.
    needed = split if files[split] is not None else "train"
    rows: dict[str, list[Problem] | None] = {
        name: None if file is None else [] for name, file in files.items()
    }
    file = files[needed]
    if file is not None:
        name = root.stem if root.is_file() else root.name
        columns = settings.columns()
        read = list(read_rows(file))
        rows[needed] = found = [
            problem_of_row(row, where, f"{name}/{needed}/{index}", columns)
            for index, (where, row) in enumerate(read)
        ]
        # Once a file: a split that is carved from it reads it again.
        odd = odd_gold(found, [where for where, _ in read]) if needed == split else ""
        if odd:
            say(odd)
    return _carve(rows, split)


def _split_file(root: Path, wanted: str, split: str) -> Path | None:
    """The file of a split; None where there is none of that name."""
    base = root if root.is_dir() else root.parent
    if Path(wanted).suffix in _SUFFIXES:
        file = base / Path(wanted).expanduser()
        if not file.is_file():
            raise DataError(f"data.{split}={wanted!r}: no such file", wanted=f"a file at {file}")
        return file
    if root.is_file():
        return root if split == "train" else None
    candidates = [base / f"{wanted}{suffix}" for suffix in _SUFFIXES]
    return next((file for file in candidates if file.is_file()), None)


def _hub(settings: DataSettings, split: str) -> list[Problem]:
    repository, configs, splits = PUBLISHED[settings.source]
    needed = "train" if split == "validation" else split
    if needed not in splits:
        raise DataError(
            f"{settings.source} has no {split} problems",
            wanted="a source with training problems",
            fix=f"set data.source to one, and evaluate.benchmark={settings.source}",
        )
    given = getattr(settings, needed)
    out: list[Problem] = []
    for config in configs:
        rows = _hub_rows(repository, config, splits.get(given, given))
        for index, row in enumerate(rows):
            prefix = settings.source if len(configs) == 1 else f"{settings.source}/{config}"
            where = f"{repository} {config} {needed} row {index}"
            out.append(problem_of_row(row, where, f"{prefix}/{needed}/{index}", settings.columns()))
    return _carve({"train": [], "validation": None, "test": [], needed: out}, split)


def _hub_rows(repository: str, config: str, split: str) -> Iterator[Mapping[str, Any]]:
    import datasets  # a second to import, so only where the hub is asked for

    try:
        table = datasets.load_dataset(repository, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        why = (str(error) or repr(error)).splitlines()[0]
        raise DataError(
            f"{repository} ({config}, {split}) cannot be loaded: {why}",
            fix="download it once with the hub in reach, or set data.source to a local directory "
            "with train.jsonl and test.jsonl; HF_HUB_OFFLINE=1 skips the wait when offline",
        ) from error
    yield from table
