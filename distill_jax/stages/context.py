"""What all stages of a run share: settings, mesh, tokenizer, problems, models, directories."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import jax
from rich.console import Console

from distill_jax.core import files, rng, sharding
from distill_jax.core.errors import CheckpointError, ConfigError, DataError
from distill_jax.core.files import read_json
from distill_jax.core.settings import to_dict
from distill_jax.data import chat, sources, synthetic
from distill_jax.data import tokenizer as tokenizers
from distill_jax.data.problem import Problem, overlap
from distill_jax.models import hf_io, peft_io, quantised
from distill_jax.models.lora import LoraConfig
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.rollout.sampler import Sampler
from distill_jax.stages.settings import ModelSettings, RunConfig
from distill_jax.stages.stop import StopSignal
from distill_jax.training.state import param_shardings

# Texts that the embedded tokenizer is trained on.
_TOKENIZER_PROBLEMS = 2000
# Sources whose rows are not ours to mend: see Context.problems.
_PUBLISHED = ("gsm8k", "math")
_LOG_WIDTH = 120
_HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Loaded:
    """A model with its weights on the mesh: params is {"base", "lora"}."""

    model: QwenModel
    params: dict[str, Any]


class Context:
    """Run-wide things, made when first asked for.

    Args:
        config: checked settings.
        workdir: all of a run's files lie below it.
    """

    def __init__(self, config: RunConfig, workdir: Path):
        self.config, self.workdir = config, Path(workdir).absolute()
        self.config_dict = to_dict(config)
        # A log file has no width: tables are as wide there as the widest of them.
        self.console = Console(stderr=True, width=None if sys.stderr.isatty() else _LOG_WIDTH)
        self.mesh = sharding.make_mesh(config.mesh)
        self.stop = StopSignal()
        self._raw: dict[str, list[Problem]] = {}
        self._problems: dict[str, chat.Prompts] = {}
        self._kept: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gave when this key was first asked for: checks and stages share it."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def say(self, text: str) -> None:
        """A line on the console of process 0."""
        if jax.process_index() == 0:
            self.console.print(text, highlight=False, markup=False)

    def directory(self, *parts: str) -> Path:
        """workdir/parts..., made when missing."""
        path = self.workdir.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    # --- data ---------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Any:
        """The student's tokenizer; trained here and kept when the data are embedded.

        Raises:
            TokenizerMismatchError: the teacher's differs.
            ConfigError: the work directory's stages were run with another one.
        """
        config = self.config
        if config.student.path:
            student = tokenizers.load_tokenizer(hf_io.model_dir(config.student.path))
            teacher = tokenizers.load_tokenizer(hf_io.model_dir(config.teacher.path))
            tokenizers.check_same_tokenizer(teacher, student)
            return student
        where, note = self.workdir / "tokenizer", self.workdir / "tokenizer" / "made_from.json"
        settings = config.data.problems
        made_from = {
            "seed": config.seed,
            "size": config.tokenizer_size,
            "problems": to_dict(settings),
        }
        # The note is written last: without it the files are of no use; with another one they are
        # of none as long as no stage has used them.
        found, wanted = read_json(note), json.loads(json.dumps(made_from))
        if found not in (None, wanted) and any(self.workdir.glob("*/settings.json")):
            raise ConfigError(
                f"the tokenizer in {where} was made from {found}, now from {wanted}",
                fix="use the config and overrides of that run, or another --workdir",
            )
        if jax.process_index() == 0 and found != wanted:
            texts = synthetic.texts(settings, config.seed, _TOKENIZER_PROBLEMS)
            note.unlink(missing_ok=True)
            made = tokenizers.train_tokenizer(texts, config.tokenizer_size)
            tokenizers.save_tokenizer(made, where)
            write_json(note, made_from)
        sharding.barrier("tokenizer")
        return tokenizers.load_tokenizer(where)

    @property
    def vocab(self) -> int:
        """Tokens that exist; a model's embedding may have more rows."""
        return len(self.tokenizer)

    @property
    def eos_id(self) -> int:
        """Ends a response; a token that is trained on."""
        return tokenizers.eos_id(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """Fills rows."""
        return tokenizers.pad_id(self.tokenizer)

    def problems(self, split: str) -> chat.Prompts:
        """Problems of a split whose prompts fit, with those prompts.

        Raises:
            DataError: of the source; or a held-out problem also stands in train.
        """
        if split not in self._problems:
            prompts = chat.fitting_prompts(
                self.tokenizer,
                self.separate(split),
                self.config.data.chat,
                max_prompt_tokens=self.config.data.max_prompt_tokens,
                on_long_prompt=self.config.data.on_long_prompt,
            )
            if prompts.dropped:
                count = prompts.dropped + len(prompts.problems)
                limit = f"data.max_prompt_tokens={self.config.data.max_prompt_tokens}"
                self.say(
                    f"{split}: {prompts.dropped} of {count} problems dropped, "
                    f"their prompts are over {limit}"
                )
            self._problems[split] = prompts
        return self._problems[split]

    def dropped(self) -> dict[str, int]:
        """Problems left out for their long prompts, of each split that was asked for."""
        return {split: prompts.dropped for split, prompts in self._problems.items()}

    def _load(self, split: str) -> list[Problem]:
        if split not in self._raw:
            self._raw[split] = sources.load(self.config.data, split, self.config.seed)
        return self._raw[split]

    def separate(self, split: str) -> list[Problem]:
        """The problems of a split, long ones too; none stands in train and in a held-out split.

        Published sources repeat a few questions: those leave train. In a file of the user's own
        it is a mistake.

        Raises:
            DataError: of the source; or a held-out problem also stands in train.
        """
        found, source = self._load(split), self.config.data.source
        if source in _PUBLISHED:
            if split != "train":
                return found
            both = {p.id for name in _HELD_OUT for p in overlap(self._load(name), found)}
            if both:
                self.say(f"train: {len(both)} problems dropped, they stand in a held-out split")
            return [p for p in found if p.id not in both]
        if split != "train" and source != "embedded":  # embedded splits are disjoint as made
            shared = overlap(self._load("train"), found)
            if shared:
                raise DataError(
                    f"{len(shared)} {split} problems also stand in train, first {shared[0].id}",
                    fix="remove them from one of the files",
                )
        return found

    # --- models -------------------------------------------------------------------------------

    def settings_of(self, role: str) -> ModelSettings:
        """Settings of "teacher" or "student"."""
        return self.config.teacher if role == "teacher" else self.config.student

    def model_path(self, role: str) -> Path:
        """Where the weights of a role lie: its own path, or what pretrain made.

        Raises:
            CheckpointError: pretrain has not made them yet.
        """
        path = self.settings_of(role).path
        if path:
            return hf_io.model_dir(path)
        made = self.workdir / "pretrain" / role / "model"
        if not self.made_here(role):
            raise CheckpointError(f"no {role} model in {made}", fix=self.run_first("pretrain"))
        return made

    def made_here(self, role: str) -> bool:
        """Whether pretrain has made this role's model here."""
        made = self.workdir / "pretrain" / role / "model" / "config.json"
        return not self.settings_of(role).path and made.is_file()

    def run_first(self, stage: str) -> str:
        """What to tell a user whose work directory lacks what a stage makes."""
        config = f"configs/{stage}.py:{self.config.preset}"
        command = f"python -m launch.main --config={config} --workdir={self.workdir}"
        return f"run stage {stage} first: {command}"

    def adapter(self, stage: str) -> Path | None:
        """The student's adapter that stage sft, distill or rl made here, or None."""
        made = self.workdir / stage / "adapter"
        return made if (made / "adapter_config.json").is_file() else None

    def start_adapter(self) -> Path | None:
        """The adapter that rl starts from: that of sft; None begins with a fresh one.

        Raises:
            CheckpointError: sft is to come before rl and has not made it.
        """
        made = self.adapter("sft")
        if made is None and ("sft" in self.config.stages or not self.config.student.path):
            raise CheckpointError(
                f"no adapter in {self.workdir / 'sft' / 'adapter'}",
                fix=self.run_first("sft"),
            )
        return made

    def distill_adapter(self) -> Path | None:
        """The adapter that stage distill starts from; None is the bare student.

        Raises:
            CheckpointError: that of sft is wanted and is not there.
        """
        if self.config.distill.start == "base":
            return None
        made = self.adapter("sft")
        if made is None:
            raise CheckpointError(
                f"no adapter in {self.workdir / 'sft' / 'adapter'}, distill.start=sft wants it",
                fix=f"{self.run_first('sft')}, or set distill.start=base",
            )
        return made

    def distilled(self) -> Path | None:
        """What stage distill made here: an adapter, or a whole model; None when neither."""
        model = self.workdir / "distill" / "model"
        return model if (model / "config.json").is_file() else self.adapter("distill")

    def build(self, role: str, geometry: QwenConfig, *, lora: LoraConfig | None) -> QwenModel:
        """The model object of a role."""
        s = self.settings_of(role)
        return QwenModel.create(
            geometry,
            lora,
            compute_dtype=s.compute_dtype,
            param_dtype=s.param_dtype,
            unroll=s.unroll,
            remat=s.remat,
            attention_impl=cast(Any, s.attention),  # a Literal there; `choices` hold it here
            fuse=self.mesh.shape["tensor"] == 1,
            rows=sharding.batch_sharding(self.mesh),
        )

    def lora_of(self, role: str) -> LoraConfig | None:
        """The student's adapter; the teacher has none."""
        return self.config.lora if role == "student" else None

    def base_shardings(self, geometry: QwenConfig) -> Any:
        """NamedShardings of a base tree."""
        model = QwenModel.create(geometry)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        return param_shardings({"base": shapes["base"]}, self.mesh)["base"]

    def check_rows(self, role: str, geometry: QwenConfig, tokenizer: Any = None) -> None:
        """Raises ConfigError when the model has fewer embedding rows than there are tokens.

        Args:
            role: "teacher", "student", or "model" (of evaluate.model).
            geometry: of the model.
            tokenizer: None is the run's.
        """
        tokens = len(tokenizer or self.tokenizer)
        if tokens > geometry.vocab_size:
            name = "evaluate.model" if role == "model" else f"{role}.path"
            raise ConfigError(
                f"the tokenizer has {tokens} tokens, the {role} {geometry.vocab_size} rows",
                wanted="a row for every token",
                fix=f"set {name} to a model of this tokenizer",
            )

    def load(self, role: str, adapter: Path | None = None) -> Loaded:
        """A role's weights, split over the mesh.

        Args:
            role: "teacher" (never with LoRA) or "student".
            adapter: PEFT directory for the student, or a whole model that takes its weights'
                place; None gives it a fresh adapter, which changes nothing.

        Raises:
            CheckpointError: missing or damaged files, or an adapter of other settings.
            MissingExtraError: quantise=int8 without qwix.
        """
        settings, path = self.settings_of(role), self.model_path(role)
        if adapter is not None and (adapter / "config.json").is_file():
            path, adapter = adapter, None

        def held(path: tuple[str, ...], leaf: jax.Array) -> Any:
            if settings.quantise == "none" or not quantised.is_quantised(path):
                return leaf
            return quantised.quantise(leaf, settings.compute_dtype)

        geometry, base = hf_io.load_hf(
            path,
            param_dtype=settings.param_dtype,
            shardings=self.base_shardings,
            convert=held,
        )
        self.check_rows(role, geometry)
        model = self.build(role, geometry, lora=self.lora_of(role))
        lora: dict[str, Any] = {}
        if role == "student":
            if adapter is not None:
                lora, found = peft_io.load_adapter(adapter, geometry)
                if (found.rank, found.alpha, set(found.targets)) != (
                    self.config.lora.rank,
                    self.config.lora.alpha,
                    set(self.config.lora.targets),
                ):
                    raise CheckpointError(
                        f"adapter {adapter} has {found}",
                        wanted=f"{self.config.lora}",
                        fix="set lora.rank, lora.alpha and lora.targets to what it was made with",
                    )
                lora = jax.device_get(lora)
            else:
                make = jax.jit(lambda key: model.init(key)["lora"])
                key = rng.stream_key(rng.run_key(self.config.seed), "lora")
                lora = jax.device_get(make(key))
            lora = sharding.place(lora, param_shardings({"lora": lora}, self.mesh)["lora"])
        return Loaded(model, {"base": base, "lora": lora})

    def sampler(self, model: QwenModel, tokenizer: Any = None) -> Sampler:
        """A sampler with this run's mesh, and its tokens or those of another tokenizer."""
        tok = tokenizer or self.tokenizer
        eos, pad = tokenizers.eos_id(tok), tokenizers.pad_id(tok)
        return Sampler(model, self.mesh, eos_id=eos, pad_id=pad, vocab=len(tok))

    def text(self, tokens: Any) -> str:
        """Decoded text without special tokens."""
        return chat.decode(self.tokenizer, tokens)


def write_json(path: Path, value: Any) -> None:
    """`files.write_json` on process 0 alone."""
    if jax.process_index() == 0:
        files.write_json(path, value)
