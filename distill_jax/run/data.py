"""A run's data: the tokenizer, the problems of each split, their prompts."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from distill_jax.core import digest, sharding
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.core.files import read_json, write_json
from distill_jax.core.settings import to_dict
from distill_jax.data import chat, sources, synthetic
from distill_jax.data import tokenizer as tokenizers
from distill_jax.data.ngrams import Overlap
from distill_jax.data.problem import Problem, content_hash, overlap
from distill_jax.data.sources import PUBLISHED, SPLITS
from distill_jax.data.synthetic import ProblemSettings
from distill_jax.models import hf_io
from distill_jax.rollout.rounds import Replies
from distill_jax.run.console import Say
from distill_jax.run.settings import Shared
from distill_jax.tasks import TASKS, Task

# Texts that the embedded tokenizer is trained on.
_TOKENIZER_PROBLEMS = 2000
_HELD_OUT = ("validation", "test")


class Data:
    """Tokenizer, problems and task of a run; each is made when first asked for.

    An embedded tokenizer is kept in `tokenizer/` of the work directory, unless `keep` is False.
    `trained_on` gives hashes of the questions of other rows that the run learns on, by their file.
    """

    keep = True

    def __init__(
        self,
        config: Shared,
        workdir: Path,
        say: Say,
        trained_on: Callable[[], Mapping[str, Collection[str]]] = dict,
    ):
        self.config, self.workdir, self.say, self.trained_on = config, workdir, say, trained_on
        self._raw: dict[str, list[Problem]] = {}
        self._prompts: dict[str, chat.Prompts] = {}
        self._tasks: dict[str, Task] = {}
        # Problems that a benchmark lost, to train and other rows, by its name.
        self.in_train: dict[str, int] = {}

    @cached_property
    def tokenizer(self) -> Any:
        """The student's tokenizer; for embedded data it is trained here and kept.

        Raises:
            TokenizerMismatchError: the teacher's differs.
            ConfigError: the work directory's stages were run with another one.
        """
        config = self.config
        if config.student.path:
            student = tokenizers.load_tokenizer(hf_io.model_dir(config.student.path))
            if config.teacher.path:
                teacher = tokenizers.load_tokenizer(hf_io.model_dir(config.teacher.path))
                tokenizers.check_same_tokenizer(teacher, student)
            if said := tokenizers.note_of_chatml(student, config.student.path):
                self.say(said)
            return student
        folder = self.workdir / "tokenizer"
        note = folder / "made_from.json"
        settings = config.data.problems
        wanted = {"seed": config.seed, "size": config.tokenizer_size, "problems": to_dict(settings)}
        # made_from.json is written last. Without it the tokenizer is incomplete; if it names other
        # settings, the tokenizer may be replaced until a stage has used it.
        found = read_json(note)
        if found is not None:  # settings that were added since have their defaults
            found["problems"] = to_dict(ProblemSettings()) | found["problems"]
        if found not in (None, wanted) and any(self.workdir.glob("*/settings.json")):
            raise ConfigError(
                f"the tokenizer in {folder} was made from {found}, now from {wanted}",
                fix="use the config and overrides of that run, or another --workdir",
            )
        if found != wanted and (jax.process_index() == 0 or not self.keep):
            texts = synthetic.texts(settings, config.seed, _TOKENIZER_PROBLEMS)
            made = tokenizers.train_tokenizer(texts, config.tokenizer_size)
            if not self.keep:
                return made
            note.unlink(missing_ok=True)
            tokenizers.save_tokenizer(made, folder)
            write_json(note, wanted)
        sharding.barrier("tokenizer")
        return tokenizers.load_tokenizer(folder)

    @property
    def vocab(self) -> int:
        """Number of tokens; a model's embedding may have more rows."""
        return len(self.tokenizer)

    @property
    def eos_id(self) -> int:
        """Ends a response; a token that is trained on."""
        return tokenizers.eos_id(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """Fills rows."""
        return tokenizers.pad_id(self.tokenizer)

    def text(self, tokens: Any, tokenizer: Any = None) -> str:
        """Decoded text without special tokens; tokenizer: None is the run's."""
        return chat.decode(tokenizer or self.tokenizer, tokens)

    @cached_property
    def task(self) -> Task:
        """How problems are put to a model and answers judged.

        Raises:
            ConfigError: several rounds with a task that never replies.
        """
        config, task = self.config, self.task_of(self.config.task)
        if config.sampling.rounds > 1 and not task.takes_turns:
            raise ConfigError(
                f"sampling.rounds={config.sampling.rounds} with task={config.task}",
                wanted="a task that replies to a turn: program",
                fix="set task=program or sampling.rounds=1",
            )
        return task

    def task_of(self, name: str) -> Task:
        """The task of a name, on this run's data; "" is the run's own."""
        name, config = name or self.config.task, self.config
        if name not in self._tasks:
            rounds = config.sampling.rounds
            made = TASKS[name](config.data, self.tokenizer, config.programs, rounds)
            self._tasks[name] = made
        return self._tasks[name]

    def replies(self, tokenizer: Any = None, task: str = "") -> Replies | None:
        """What a task replies to turns of completions; None: they have one turn.

        tokenizer: of the model that writes; None is the run's. task: as `task_of` takes it.
        """
        one = self.task if not task else self.task_of(task)
        if self.config.sampling.rounds == 1 or not one.takes_turns:
            return None
        return Replies(one, tokenizer or self.tokenizer)

    def close(self) -> None:
        """Ends whatever processes the tasks hold."""
        for task in self._tasks.values():
            task.close()

    def problems(self, split: str) -> chat.Prompts:
        """Problems of a split, or of a benchmark, whose prompts fit, with those prompts.

        Args:
            split: train, validation or test; else a benchmark, as `sources.benchmark` names it.

        Raises:
            DataError: of the source; or a held-out problem is also in train.
        """
        if split not in self._prompts:
            prompts = self.task.prompts(self.separate(split))
            if prompts.dropped:
                count = prompts.dropped + len(prompts.problems)
                limit = f"data.max_prompt_tokens={self.config.data.max_prompt_tokens}"
                self.say(
                    f"{split}: {prompts.dropped} of {count} problems dropped, "
                    f"their prompts are over {limit}"
                )
            self._prompts[split] = prompts
        return self._prompts[split]

    def dropped(self) -> dict[str, int]:
        """Problems dropped for their long prompts, of each split that was asked for."""
        return {split: prompts.dropped for split, prompts in self._prompts.items()}

    def digest(self, split: str) -> str:
        """Digest of the contents of a split's problems."""
        found = self.problems(split).problems
        return digest.of_all(f"{p.question}\0{p.solution}\0{p.answer}\0" for p in found)

    def source_of(self, split: str) -> str:
        """The source of a split, or of a benchmark."""
        return self.config.data.source if split in SPLITS else split

    def in_held_out_split(self, question: str) -> bool:
        """Whether a question is one of validation or test, by its content hash."""
        return content_hash(question) in self._held_out

    def held_out(self, questions: Sequence[str], where: str) -> list[bool]:
        """Whether each question of a file is in validation or test, or nearly: see data.ngram.

        Says how many are not the same and share their words; where: the file, or the stage.
        """
        same = [self.in_held_out_split(one) for one in questions]
        n = self.config.data.ngram
        if not n:
            return same
        near = [not hit and one in self._near for hit, one in zip(same, questions, strict=True)]
        self.say(
            f"{where}: {sum(near)} of {len(same)} rows dropped, their questions share {n} words in "
            f"a row with validation or test problems; {sum(same)} are the same"
        )
        return [a or b for a, b in zip(same, near, strict=True)]

    @cached_property
    def _held_out(self) -> frozenset[str]:
        return frozenset(p.content_hash for name in _HELD_OUT for p in self._load(name))

    @cached_property
    def _near(self) -> Overlap:
        held_out = (p.question for name in _HELD_OUT for p in self._load(name))
        return Overlap(held_out, self.config.data.ngram)

    def _load(self, split: str) -> list[Problem]:
        if split not in self._raw:
            settings, of_source = self.config.data, split
            if split not in SPLITS:
                settings, of_source = sources.benchmark(settings, split), "test"
            self._raw[split] = sources.load(settings, of_source, self.config.seed, self.say)
        return self._raw[split]

    def separate(self, split: str) -> list[Problem]:
        """The problems of a split, long ones too; none is both in train and in a held-out split.

        Published sources repeat a few questions: those are dropped from train. In a user's own
        file a repeated question is an error. A benchmark loses the questions of train.

        Raises:
            DataError: of the source; or a held-out problem is also in train.
        """
        found, source = self._load(split), self.config.data.source
        if split not in SPLITS:
            return self._not_in_train(split, found)
        if source in PUBLISHED:
            if split != "train":
                return found
            both = {p.id for name in _HELD_OUT for p in overlap(self._load(name), found)}
            if both:
                self.say(f"train: {len(both)} problems dropped, they are also in a held-out split")
            return [p for p in found if p.id not in both]
        if split != "train" and source != "embedded":  # embedded splits are disjoint as made
            shared = overlap(self._load("train"), found)
            if shared:
                raise DataError(
                    f"{len(shared)} {split} problems are also in train, first {shared[0].id}",
                    fix="remove them from one of the files",
                )
        return found

    def _not_in_train(self, name: str, found: list[Problem]) -> list[Problem]:
        """A benchmark's problems without those that the students of this run may have seen."""
        places: dict[str, Collection[str]] = dict(self.trained_on())
        if sources.has_train(self.config.data):
            places["train"] = {p.content_hash for p in self._load("train")}
        elif not places:
            return found
        lost: set[str] = set()
        for place, hashes in places.items():
            both = {p.id for p in found if p.content_hash in hashes}
            lost |= both
            if both:
                said = f"{len(both)} of {len(found)} problems dropped, they are in {place}"
                self.say(f"{name}: {said}")
        self.in_train[name] = len(lost)
        if len(lost) == len(found):
            got = f"all {len(found)} problems of {name} are in {', '.join(places)}"
            raise DataError(got, wanted="others")
        return [p for p in found if p.id not in lost]
