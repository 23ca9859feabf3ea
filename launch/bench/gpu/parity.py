"""Are the device's results right? Attention and dtypes against float32; greedy tokens."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core import rng, sharding
from distill_jax.models.prompt_groups import Groups, rows_of
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.rollout.sampler import Sampler, SamplingSettings
from launch.bench.gpu.lines import note
from launch.bench.steps import BenchSettings

GEOMETRY = QwenConfig(
    model_type="qwen2", vocab_size=1024, hidden_size=256, intermediate_size=512, num_layers=3,
    num_heads=4, num_kv_heads=2, head_dim=64, rope_theta=10_000.0,
)  # fmt: skip
ROWS, LENGTH, DRAWN = 4, 96, 16
# bfloat16 has three digits; a wrong kernel is off by far more.
ENOUGH = 0.05


def parity(settings: BenchSettings, arm: str) -> None:
    """Notes relative errors of hidden states and gradients, and equal greedy tokens.

    Raises:
        SystemExit: one is off.
    """
    del settings
    ways = [("float32", "xla"), ("bfloat16", "xla")]
    if jax.default_backend() == "gpu":
        ways.append(("bfloat16", "cudnn"))
    right = computed("float32", "xla", "highest")
    agree = []
    for dtype, attention in ways:
        found = computed(dtype, attention, "default")
        off = {n: relative(x, right[n]) for n, x in found.items()}
        off["groups"] = relative(grouped(dtype, attention), right["hidden"][:, LENGTH // 2 :])
        agree.append(max(off.values()) < ENOUGH)
        note(arm=arm, dtype=dtype, attention=attention, relative_error=off, agrees=agree[-1])
    equal = greedy_equal()
    agree.append(equal > 0.9)
    note(arm=arm, greedy_tokens_equal=equal, agrees=agree[-1])
    if not all(agree):
        raise SystemExit("the device's results are off")


def relative(x: np.ndarray, right: np.ndarray) -> float:
    """Norm of the difference over that of what is right."""
    return float(np.linalg.norm(x - right) / np.linalg.norm(right))


def _tokens() -> jax.Array:
    """Rows of which two each begin with the same half."""
    drawn = np.random.default_rng(0).integers(0, GEOMETRY.vocab_size, (ROWS, LENGTH))
    drawn[1::2, : LENGTH // 2] = drawn[::2, : LENGTH // 2]
    return jnp.asarray(drawn, jnp.int32)


def grouped(dtype: str, attention: Any) -> np.ndarray:
    """The states of the rows' second halves, where each first half is computed once for two."""
    model = QwenModel(GEOMETRY, compute_dtype=dtype, attention_impl=attention)
    base, half = model.init(jax.random.key(0))["base"], LENGTH // 2
    rows = rows_of(_tokens()[::2, :half], _tokens()[:, half:])
    groups = Groups(jnp.full(ROWS // 2, half), half, 2)
    hidden = jax.jit(lambda base: model.hidden({"base": base, "lora": {}}, rows, groups=groups))
    return np.asarray(groups.split(hidden(base))[1], np.float64)


def computed(dtype: str, attention: Any, precision: str) -> dict[str, np.ndarray]:
    """Hidden states of random weights on random tokens, and the gradient of a sum over them."""
    model = QwenModel(GEOMETRY, compute_dtype=dtype, attention_impl=attention)
    params = model.init(jax.random.key(0))

    def loss(base: Any) -> tuple[jax.Array, jax.Array]:
        hidden_BTD = model.hidden({"base": base, "lora": {}}, _tokens()).astype(jnp.float32)
        return jnp.sum(jnp.sin(hidden_BTD)), hidden_BTD

    with jax.default_matmul_precision(precision):
        gradient, hidden_BTD = jax.jit(jax.grad(loss, has_aux=True))(params["base"])
    leaves = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(gradient)]
    return {"hidden": np.asarray(hidden_BTD, np.float64), "gradient": np.concatenate(leaves)}


def greedy_equal() -> float:
    """Share of the sampler's greedy tokens that a pass over all tokens finds, too."""
    mesh = sharding.make_mesh(sharding.MeshSettings())
    model = QwenModel(GEOMETRY, attention_impl="xla")
    params, vocab = model.init(jax.random.key(0)), GEOMETRY.vocab_size
    sampler = Sampler(model, mesh, eos_id=vocab, pad_id=0, vocab=vocab)
    greedy = SamplingSettings(
        temperature=0.0, max_new_tokens=DRAWN, segment=DRAWN // 2, prompt_multiple=LENGTH
    )
    prompts = np.asarray(_tokens())
    with jax.default_matmul_precision("highest"):
        drawn_BR = sampler.generate(
            sampler.weights(params, greedy), list(prompts), greedy,
            key=rng.run_key(0), prompt_ids=range(ROWS),
        ).tokens_BR  # fmt: skip
        hidden_BTD = jax.jit(model.hidden)(params, np.concatenate([prompts, drawn_BR], axis=1))
        logits_BRV = hidden_BTD[:, LENGTH - 1 : -1] @ model.head_VD(params).T
    return float(np.mean(np.asarray(logits_BRV.argmax(-1)) == drawn_BR))
