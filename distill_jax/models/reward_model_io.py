"""Directories of process reward models: a trunk, a head and `prm_config.json`, in and out.

Written as transformers' token classification (`linear`) or in the form of Qwen2.5-Math-PRM
(`mlp`). Read too: those of others, and a causal model whose two tokens, e.g. "+" and "-", are the
scores (`two_token`, the form of Math-Shepherd).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import CheckpointError
from distill_jax.core.sharding import fetch
from distill_jax.kernels.process_reward import AGGREGATIONS
from distill_jax.models import hf_io, hf_layout, process_head
from distill_jax.models import safetensor_files as files
from distill_jax.models.qwen_config import FAMILIES, QwenConfig

PRM_CONFIG = "prm_config.json"
TWO_TOKEN, IMPLICIT = "two_token", "implicit"
_LM_HEAD = "lm_head.weight"
_CLASS_OF = {
    head: {name: f"{family.prefix}For{suffix}" for name, family in FAMILIES.items()}
    for head, suffix in {
        TWO_TOKEN: "CausalLM",
        "linear": "TokenClassification",
        # transformers has this form of no family, and Qwen published it of Qwen2 alone.
        "mlp": "ProcessRewardModel",
    }.items()
}
_TRAINED = [name for head in process_head.HEADS for name in _CLASS_OF[head].values()]
_HEAD_OF = {name: head for head, names in _CLASS_OF.items() for name in names.values()}
_LABELS = ("LABEL_0", "LABEL_1")


@dataclass(frozen=True)
class PRMConfig:
    """How a process reward model reads steps and what it was trained on: `prm_config.json`.

    Attributes:
        head: linear, mlp, two_token or implicit.
        step_split: where steps end, a name of `reasoning.steps.SPLITS`.
        step_separator: text between the steps of a solution, of split text.
        step_token, step_token_id: the token after each step, whose state is scored; id None: that
            of the tokenizer.
        aggregation: one score of a solution's; see kernels.process_reward.
        labels: how the labels came about: given, hard, soft, relative; outcome of implicit.
        system_prompt: before the question, in training; None: none.
        max_length: most tokens of a row; later steps get no score. None: the trunk's positions.
        right_token_id, wrong_token_id: of two_token.
        beta: β of implicit.
        reference: of implicit: digests of the student that it started from, `student` of the model
            below the adapters and `adapter` of the start's adapter, where it had one.
        trained_on: figures of the rows, for people and for checks of overlap.
    """

    head: str = "linear"
    step_split: str = "text"
    step_separator: str = "\n"
    step_token: str = "\n"
    step_token_id: int | None = None
    aggregation: str = "min"
    labels: str = "given"
    system_prompt: str | None = None
    max_length: int | None = None
    right_token_id: int | None = None
    wrong_token_id: int | None = None
    beta: float | None = None
    reference: Mapping[str, str] | None = None
    trained_on: Mapping[str, Any] = field(default_factory=dict)


# What the released models' documentation says of their input; the labels are of a judge.
_RELEASED = PRMConfig(
    head="mlp",
    step_separator="\n\n",
    step_token="<extra_0>",
    system_prompt="Please reason step by step, and put your final answer within \\boxed{}.",
)
_TYPES = {
    **dict.fromkeys(
        ("head", "step_split", "step_separator", "step_token", "aggregation", "labels"), (str,)
    ),
    **dict.fromkeys(
        ("step_token_id", "max_length", "right_token_id", "wrong_token_id"), (int, type(None))
    ),
    "system_prompt": (str, type(None)),
    "beta": (float, type(None)),
    "reference": (dict, type(None)),
    "trained_on": (dict,),
}


@dataclass(frozen=True)
class RewardModel:
    """A reward model read from files.

    Attributes:
        geometry: of the trunk, which has no language-model head (its embedding counts as tied).
        base: tree of the trunk.
        score: parameters of the head on the host, float32, for `process_head.apply`.
        about: its prm_config.json, or what its form implies.
    """

    geometry: QwenConfig
    base: dict[str, Any]
    score: dict[str, np.ndarray]
    about: PRMConfig


def trunk(geometry: QwenConfig, base: Mapping[str, Any]) -> tuple[QwenConfig, dict[str, Any]]:
    """A causal model without its language-model head."""
    kept = {name: part for name, part in base.items() if name != "lm_head"}
    return dataclasses.replace(geometry, tie_embeddings=True), kept


def load(
    directory: str | Path,
    *,
    param_dtype: Any = jnp.float32,
    shardings: Callable[[QwenConfig], Any] | None = None,
) -> RewardModel:
    """Reads a reward model; param_dtype and shardings are the trunk's, as in `hf_io.load_hf`.

    Raises:
        CheckpointError: missing or damaged files, another architecture, a head of another shape.
    """
    directory = Path(directory)
    geometry, about = load_config(directory)
    leaves = hf_layout.leaves(geometry)
    wanted = {name: leaf.shape for leaf in leaves for name in leaf.names}
    with files.TensorReader(files.model_files(directory)) as reader:
        unread = [n for n in reader.where if n == _LM_HEAD or n.endswith(".inv_freq")]
        head = _head_shapes(directory, about, geometry, reader)
        reader.check(wanted | head | {name: reader.shape(name) for name in unread}, directory)
        targets = shardings(geometry) if shardings is not None else None
        base = hf_io.read_base(reader, leaves, param_dtype, targets)
        score = _read_head(reader, about, head)
    return RewardModel(geometry, base, score, about)


def load_config(directory: Path) -> tuple[QwenConfig, PRMConfig]:
    """(geometry of the trunk, how steps are read), of config.json and prm_config.json.

    Raises:
        CheckpointError: not a reward model, or a setting that is unknown or impossible.
    """
    path, given = directory / "config.json", directory / PRM_CONFIG
    if is_implicit(directory):
        raise CheckpointError(
            f"{directory} has head={IMPLICIT}: two adapters of a language model",
            wanted=" or ".join(_TRAINED),
            fix="transformers has no such head; for an export train head=linear or head=mlp",
        )
    values = files.read_json(path)
    names = values.get("architectures") or ["none"]
    head = _HEAD_OF.get(names[0])
    if head is None or (head == TWO_TOKEN and not given.is_file()):
        raise CheckpointError(
            f"{path} has architectures={names}" + (f" and no {PRM_CONFIG}" if head else ""),
            wanted=" or ".join(_TRAINED),
            fix=f"for a causal model that scores by two tokens, add {PRM_CONFIG} with head, "
            "step_separator, step_token, right_token_id and wrong_token_id",
        )
    usual = _RELEASED if head == "mlp" else PRMConfig()
    about = read_about(given) if given.is_file() else usual
    if about.head != head:
        raise CheckpointError(f"{given} has head={about.head!r}", wanted=f"{head}, as {path} says")
    causal = {"architectures": None, "tie_word_embeddings": True}
    return hf_io.parse_config(path, {**values, **causal}), about


def save(
    directory: str | Path,
    geometry: QwenConfig,
    base: Any,
    score: Mapping[str, Any],
    about: PRMConfig,
    *,
    tokenizer: Any,
) -> None:
    """Writes a directory that `load` reads, atomically; every process must call this.

    Args:
        directory: target.
        geometry, base: of the trunk, the adapter merged; see `trunk`.
        score: parameters of the head.
        about: becomes prm_config.json.
        tokenizer: saved with the model.

    Raises:
        CheckpointError: a target that holds something else; a head that transformers does not have.
    """
    if about.head not in process_head.HEADS:
        wanted = f"one of {', '.join(process_head.HEADS)}: transformers has no such head"
        raise CheckpointError(f"head={about.head!r}", wanted=wanted)
    labels = dict(enumerate(_LABELS))
    hf_io.save_hf(
        directory,
        geometry,
        base,
        tokenizer=tokenizer,
        head={f"score.{name}": np.asarray(x) for name, x in fetch(dict(score)).items()},
        about={
            "architectures": [_CLASS_OF[about.head][geometry.model_type]],
            "num_labels": len(labels),
            "id2label": {str(i): name for i, name in labels.items()},
            "label2id": {name: i for i, name in labels.items()},
            "classifier_dropout": 0.0,
        },
        texts={PRM_CONFIG: dataclasses.asdict(about)},
    )


def is_implicit(directory: Path) -> bool:
    """Whether a directory holds an implicit reward model: see `implicit_io`."""
    given = directory / PRM_CONFIG
    return given.is_file() and files.read_json(given).get("head") == IMPLICIT


def read_about(path: Path) -> PRMConfig:
    """The prm_config.json at `path`.

    Raises:
        CheckpointError: missing, or a setting that is unknown or impossible.
    """
    values = files.read_json(path)
    for name, value in values.items():
        if name not in _TYPES:
            raise CheckpointError(f"{path} has {name!r}", wanted=f"one of {', '.join(_TYPES)}")
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            kinds = " or ".join(kind.__name__ for kind in _TYPES[name])
            raise CheckpointError(f"{path} has {name}={json.dumps(value)}", wanted=kinds)
    about = PRMConfig(**values)
    if about.aggregation not in AGGREGATIONS:
        wanted = f"one of {', '.join(AGGREGATIONS)}"
        raise CheckpointError(f"{path} has aggregation={about.aggregation!r}", wanted=wanted)
    if not about.step_separator or not about.step_token:
        raise CheckpointError(f"{path} has an empty step_separator or step_token", wanted="a text")
    if about.head == TWO_TOKEN and None in (about.right_token_id, about.wrong_token_id):
        wanted = "right_token_id and wrong_token_id"
        raise CheckpointError(f"{path} has head={TWO_TOKEN} without its tokens", wanted=wanted)
    own = (about.beta, about.reference)
    if (None in own) if about.head == IMPLICIT else own != (None, None):
        raise CheckpointError(
            f"{path} has head={about.head}, beta={about.beta}, reference={about.reference}",
            wanted=f"beta and reference with head={IMPLICIT}, and with no other",
        )
    return about


def _head_shapes(
    directory: Path, about: PRMConfig, geometry: QwenConfig, reader: files.TensorReader
) -> dict[str, tuple[int, ...]]:
    """{tensor: shape} of the head; transformers may write a linear one without bias."""
    if about.head == TWO_TOKEN:
        tied = hf_io.load_config(directory).tie_embeddings
        return {} if tied else {_LM_HEAD: (geometry.vocab_size, geometry.hidden_size)}
    shapes = process_head.shapes(about.head, geometry.hidden_size)
    named = {f"score.{name}": shape for name, shape in shapes.items()}
    if about.head == "linear" and "score.bias" not in reader.where:
        del named["score.bias"]
    return named


def _read_head(
    reader: files.TensorReader, about: PRMConfig, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    if about.head == TWO_TOKEN:
        rows_VD = reader.read(_LM_HEAD if _LM_HEAD in shapes else "model.embed_tokens.weight")
        ids = [i for i in (about.wrong_token_id, about.right_token_id) if i is not None]
        if bad := [i for i in ids if not 0 <= i < len(rows_VD)]:
            wanted = f"0..{len(rows_VD) - 1}"
            raise CheckpointError(f"{PRM_CONFIG} names the token {bad[0]}", wanted=wanted)
        found = {"weight": rows_VD[ids]}
    else:
        found = {name.removeprefix("score."): reader.read(name) for name in shapes}
    if "weight" in found and "bias" not in found:
        found["bias"] = np.zeros(process_head.CLASSES)
    return {name: np.asarray(x, np.float32) for name, x in found.items()}
