"""A model of an embedding with an adapter: to test what is around a model without compiling one."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from tests import tiny

PLACES = 32


@dataclass(frozen=True)
class Shallow:
    """What losses and scorers ask of a model; a state depends on its token and on its place."""

    hidden_size: int
    tied: bool
    shards: int = 1

    @property
    def config(self):
        return self

    def hidden(self, params, tokens_BT, *, dropout_key=None):
        place_TD = np.random.default_rng(3).standard_normal((PLACES, self.hidden_size))
        table_VD = params["base"]["embed_tokens"]["embedding"]
        x_BTD = jnp.take(table_VD, tokens_BT, axis=0)
        x_BTD += 0.3 * place_TD[: tokens_BT.shape[1]].astype(np.float32)
        if not params["lora"]:
            return x_BTD
        lora = params["lora"]["layers"]["self_attn"]["q_proj"]
        return x_BTD + (x_BTD @ lora["lora_A"][0]) @ lora["lora_B"][0]

    def head_VD(self, params):
        base = params["base"]
        return base["embed_tokens"]["embedding"] if self.tied else base["lm_head"]["kernel"]

    def whole_head_VD(self, params):
        return self.head_VD(params)


def build(*, width=16, rows=tiny.ROWS, tied=True, lora=True, seed=0):
    """A model and its weights, under the names that a Qwen's have."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return 0.4 * rng.standard_normal(shape).astype(np.float32)

    base = {"embed_tokens": {"embedding": draw(rows, width)}}
    if not tied:
        base["lm_head"] = {"kernel": draw(rows, width)}
    adapter = {"lora_A": draw(1, width, 2), "lora_B": draw(1, 2, width)}
    added = {"layers": {"self_attn": {"q_proj": adapter}}} if lora else {}
    return Shallow(width, tied), {"base": base, "lora": added}
