"""The head of a process reward model: logits (wrong, right) of a step, from its end's state.

`linear` is that of transformers' token classification, `mlp` that of Qwen2.5-Math-PRM. Parameters
have the names and the orientation [out, in] that Hugging Face checkpoints store below `score`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core.errors import ConfigError

HEADS = ("linear", "mlp")
# Wrong and right: LABEL_0 and LABEL_1 of the checkpoint.
CLASSES = 2


def shapes(kind: str, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """{tensor name: shape} below `score`.

    Raises:
        ConfigError: unknown kind.
    """
    H = hidden_size
    if kind == "linear":
        return {"weight": (CLASSES, H), "bias": (CLASSES,)}
    if kind == "mlp":
        return {
            "0.weight": (H, H), "0.bias": (H,), "2.weight": (CLASSES, H), "2.bias": (CLASSES,),
        }  # fmt: skip
    raise ConfigError(f"head={kind!r}", wanted=f"one of {', '.join(HEADS)}")


def init(kind: str, hidden_size: int, key: jax.Array) -> dict[str, jax.Array]:
    """A fresh float32 head; its last layer is zeros, so that the first scores are exactly 1/2.

    The first layer of `mlp` is uniform within ±1/√H, as torch draws it.
    """
    out = {name: jnp.zeros(shape) for name, shape in shapes(kind, hidden_size).items()}
    bound = hidden_size**-0.5
    for number, name in enumerate(name for name in out if name.startswith("0.")):
        drawn = jax.random.fold_in(key, number)
        out[name] = jax.random.uniform(drawn, out[name].shape, minval=-bound, maxval=bound)
    return out


def apply(params: dict[str, Any], hidden: jax.Array) -> jax.Array:
    """Logits f32 [..., 2] (wrong, right) of hidden states [..., H] of any float dtype."""
    x = hidden.astype(jnp.float32)
    if "weight" in params:
        return x @ params["weight"].T + params["bias"]
    x = jax.nn.relu(x @ params["0.weight"].T + params["0.bias"])
    return x @ params["2.weight"].T + params["2.bias"]
