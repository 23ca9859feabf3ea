"""Two small random Hugging Face models of one tokenizer, and problems in a JSONL file."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.data import synthetic
from distill_jax.data.tokenizer import train_tokenizer
from distill_jax.models import hf_io
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig

PROBLEMS = synthetic.ProblemSettings(levels=2, max_operand=3)


# Models of one shape are drawn by one program.
_init = jax.jit(lambda model, key: model.init(key), static_argnums=0)


def tokenizer(seed: int = 0):
    return train_tokenizer(synthetic.texts(PROBLEMS, seed, 200), 300)


def write_model(
    directory: Path,
    *,
    rows: int,
    tok=None,
    seed: int = 0,
    noise: float = 0.0,
    padding: float = 0.0,
    **changes,
) -> Path:
    """A model whose embedding has this many rows, more than there are tokens.

    With noise on its weights it says more than one token over and over; with noise `padding` on
    the head's rows of no token, whoever reads them gets large logits.
    """
    fields = {
        "model_type": "qwen2",
        "vocab_size": rows,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        **changes,
    }
    config = QwenConfig(**fields)
    model = QwenModel(config)
    params = _init(model, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    base = jax.tree.map(
        lambda x: np.array(x + noise * rng.standard_normal(x.shape), x.dtype), params["base"]
    )
    tok = tok or tokenizer()
    if padding:
        unread_VD = model.head_VD({"base": base})[len(tok) :]
        unread_VD += padding * rng.standard_normal(unread_VD.shape)
    hf_io.save_hf(directory, config, base, tokenizer=tok)
    return directory


def write_problems(directory: Path, *, count: int = 24) -> Path:
    """train.jsonl and test.jsonl in GSM8K's form, validation carved out of train."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, number in (("train", count), ("validation", 4), ("test", 6)):
        problems = synthetic.problems(split, number, PROBLEMS, 7)
        lines = [json.dumps({"question": p.question, "answer": p.solution}) for p in problems]
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def random_pair(root: Path) -> dict[str, Any]:
    """Settings of a plan with random models of one tokenizer and problems from a file."""
    tok = tokenizer()
    return {
        "teacher__path": str(write_model(root / "teacher", rows=320, tok=tok, seed=1, noise=0.1)),
        "student__path": str(write_model(root / "student", rows=320, tok=tok, noise=0.1)),
        "data__source": str(write_problems(root / "data")),
        "stages": ("rl",),
        "rl__start": "base",
    }
