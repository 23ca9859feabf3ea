"""Prefill and single-token decoding on per-layer weights.

Decode weights are the trained tree laid out for many small steps: one dict a layer, kernels of
projections that share an input joined, the compute dtype, LoRA merged (or kept separate).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from distill_jax.models import attention_choice
from distill_jax.models.attention import Implementation, attention
from distill_jax.models.cache import KVCache, SharedPrompts, write
from distill_jax.models.cache_attention import attend_own, attend_shared
from distill_jax.models.layers import apply_rope, rms_norm, rope_table, silu_gate
from distill_jax.models.lora import LoraConfig, join_adapters
from distill_jax.models.quantised import join, product
from distill_jax.models.qwen_config import QwenConfig

Weights = dict[str, Any]
_GROUPS = {
    "qkv": ("self_attn", ("q_proj", "k_proj", "v_proj")),
    "o": ("self_attn", ("o_proj",)),
    "gate_up": ("mlp", ("gate_proj", "up_proj")),
    "down": ("mlp", ("down_proj",)),
}


class Decoding:
    """Decoding of `QwenModel`, which has these attributes."""

    config: QwenConfig
    lora: LoraConfig | None
    compute_dtype: Any
    fuse: bool
    attention_impl: Implementation | None
    rows: NamedSharding | None

    def decode_params(self, params: dict[str, Any], merge_lora: bool = True) -> Weights:
        """Weights as `prefill` and `decode` want them; the params tree itself stays as it is.

        Args:
            params: {"base", "lora"}.
            merge_lora: add the adapters to the kernels; False keeps them separate, as in training.

        Returns:
            {"embedding": [V, D], "norm": [D], "layers": one dict a layer of joined projections},
            in the compute dtype; the merged sum is formed in float32 and rounded once.
        """
        base, dtype = params["base"], self.compute_dtype
        scale = self.lora.scale if self.lora else 1.0
        layers = []
        for index in range(self.config.num_layers):
            one = jax.tree.map(lambda leaf, i=index: leaf[i], base["layers"])
            adapters = jax.tree.map(lambda leaf, i=index: leaf[i], params["lora"].get("layers", {}))
            layer: Weights = {
                "input_norm": one["input_layernorm"]["scale"].astype(dtype),
                "post_norm": one["post_attention_layernorm"]["scale"].astype(dtype),
            }
            for name in ("q_norm", "k_norm"):
                if name in one["self_attn"]:
                    layer[name] = one["self_attn"][name]["scale"].astype(dtype)
            for group, (part, names) in _GROUPS.items():
                pairs = [(one[part][n], adapters.get(part, {}).get(n)) for n in names]
                joined = [pairs] if self.fuse else [[pair] for pair in pairs]
                layer[group] = [_projection(some, scale, merge_lora, dtype) for some in joined]
            layers.append(layer)
        return {
            "embedding": base["embed_tokens"]["embedding"].astype(dtype),
            "norm": base["norm"]["scale"].astype(dtype),
            "layers": layers,
        }

    def prefill(
        self, weights: Weights, tokens_PT: jax.Array, lengths_P: jax.Array
    ) -> tuple[jax.Array, KVCache]:
        """Prompts into a cache.

        Args:
            weights: from `decode_params`.
            tokens_PT: int32 [P, T], right padded.
            lengths_P: int32 [P], at least 1.

        Returns:
            hidden_PD after the final norm at each row's last real token, and a cache of P rows
            and T slots. Slots of padding hold arbitrary finite values: give them position −1.
        """
        x_PTD, cache = self._prompts(weights, tokens_PT)
        last_PD = x_PTD[jnp.arange(len(tokens_PT)), lengths_P - 1]
        return rms_norm(last_PD, weights["norm"], self.config.rms_norm_eps), cache

    def states(self, weights: Weights, tokens_PT: jax.Array) -> jax.Array:
        """hidden_PTD after the final norm at every position: what predicts the token after it.

        Args: as those of `prefill`; arbitrary finite values at padding.
        """
        x_PTD, _ = self._prompts(weights, tokens_PT)
        return rms_norm(x_PTD, weights["norm"], self.config.rms_norm_eps)

    def _prompts(self, weights: Weights, tokens_PT: jax.Array) -> tuple[jax.Array, KVCache]:
        """Before the final norm: x_PTD, and the cache."""
        config, (rows, time) = self.config, tokens_PT.shape
        x = self._by_rows(jnp.take(weights["embedding"], tokens_PT.reshape(-1), axis=0))
        rope = rope_table(config, jnp.arange(time))
        keys, values = [], []
        implementation = self.attends(time)
        for layer, window in zip(weights["layers"], config.windows, strict=True):
            normed = rms_norm(x, layer["input_norm"], config.rms_norm_eps).reshape(rows, time, -1)
            q, k, v = _heads(config, layer, normed, rope)
            out = attention(q, k, v, window=window, implementation=implementation)
            keys.append(k.transpose(0, 2, 3, 1))
            values.append(v.transpose(0, 2, 1, 3))
            x = self._by_rows(_finish_block(config, layer, x, out.reshape(rows * time, -1)))
        return x.reshape(rows, time, -1), KVCache(tuple(keys), tuple(values))

    def decode(
        self,
        weights: Weights,
        token_B: jax.Array,
        position_B: jax.Array,
        cache: KVCache,
        slot: jax.Array,
        slot_position_BS: jax.Array,
        shared: SharedPrompts | None = None,
    ) -> tuple[jax.Array, KVCache]:
        """One token a row.

        Args:
            weights: from `decode_params`.
            token_B: int32 [B].
            position_B: int32 [B], the tokens' positions.
            cache: B rows, S slots.
            slot: int32, the slot that all rows write to, or [B], each row's.
            slot_position_BS: int32 [B, S], position held by each slot, −1 for none; already with
                position_B at `slot`.
            shared: prompts of groups of rows, which `cache` then does not hold.

        Returns:
            hidden_BD after the final norm, and the cache with the new token in it.
        """
        config, windows = self.config, self.config.windows
        x_BD = jnp.take(weights["embedding"], token_B, axis=0)
        rope = rope_table(config, position_B)
        distance_BS = position_B[:, None] - slot_position_BS
        causal_BS = (slot_position_BS >= 0) & (distance_BS >= 0)
        seen = {w: causal_BS if w is None else causal_BS & (distance_BS < w) for w in windows}
        prompt_seen = {} if shared is None else _prompts_seen(shared, position_B, set(windows))
        keys, values = list(cache.k), list(cache.v)
        for index, (layer, window) in enumerate(zip(weights["layers"], windows, strict=True)):
            normed = rms_norm(x_BD, layer["input_norm"], config.rms_norm_eps)
            q, k, v = _heads(config, layer, normed, rope)
            k, v = k[..., None].astype(keys[index].dtype), v[:, :, None]
            keys[index] = write(keys[index], k, slot, axis=3)
            values[index] = write(values[index], v, slot, axis=2)
            own = keys[index], values[index], seen[window]
            if shared is None:
                out = attend_own(q, *own)
            else:
                prompt = shared.cache.k[index], shared.cache.v[index], prompt_seen[window]
                out = attend_shared(q, own, prompt)
            x_BD = _finish_block(config, layer, x_BD, out)
        hidden_BD = rms_norm(x_BD, weights["norm"], config.rms_norm_eps)
        return hidden_BD, KVCache(tuple(keys), tuple(values))

    def attends(
        self, time: int, *, segments: bool = False, scanned: bool = False
    ) -> Implementation:
        """The implementation of attention: asked for, or as `attention_choice.chosen` says."""
        if self.attention_impl is not None:
            return self.attention_impl
        mesh = None if self.rows is None else self.rows.mesh
        return attention_choice.chosen(
            self.config, self.compute_dtype, mesh, time, segments=segments, scanned=scanned
        )

    def _by_rows(self, x_ND: jax.Array) -> jax.Array:
        if self.rows is None or x_ND.shape[0] % self.rows.mesh.size:
            return x_ND
        return jax.lax.with_sharding_constraint(x_ND, self.rows)


def _projection(pairs, scale: float, merge_lora: bool, dtype: jnp.dtype) -> Weights:
    kernel = join([linear["kernel"] for linear, _ in pairs])
    out: Weights = {}
    if "bias" in pairs[0][0]:
        out["bias"] = jnp.concatenate([linear["bias"] for linear, _ in pairs]).astype(dtype)
    if any(adapter for _, adapter in pairs):
        a, b = join_adapters(
            [(p["lora_A"], p["lora_B"] * scale) if p else None for _, p in pairs],
            [linear["kernel"].shape[1] for linear, _ in pairs],
        )
        if merge_lora:
            kernel = kernel.astype(jnp.float32) + a @ b
        else:
            out |= {"lora_A": a.astype(dtype), "lora_B": b.astype(dtype)}
    return {"kernel": kernel.astype(dtype), **out}


def _apply(x_BD: jax.Array, projections: list[Weights], sizes: tuple[int, ...]) -> list[jax.Array]:
    """Outputs of the given sizes, whether the kernels are joined or not."""
    outputs = []
    for one in projections:
        y = product(x_BD, one["kernel"])
        if "lora_A" in one:
            y = y + (x_BD @ one["lora_A"]) @ one["lora_B"]
        outputs.append(y + one["bias"] if "bias" in one else y)
    if len(outputs) == len(sizes):
        return outputs
    starts = [sum(sizes[:i]) for i in range(1, len(sizes))]
    return jnp.split(outputs[0], starts, axis=-1)


def _heads(config: QwenConfig, layer: Weights, x: jax.Array, rope) -> list[jax.Array]:
    """q [..., H, h], k and v [..., K, h] of normed inputs [..., D], rope applied."""
    sizes = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    size, eps = config.head_dim, config.rms_norm_eps
    flat = x.reshape(-1, x.shape[-1])
    parts = _apply(flat, layer["qkv"], tuple(n * size for n in sizes))
    q, k, v = (y.reshape(*x.shape[:-1], -1, size) for y in parts)
    if "q_norm" in layer:
        q, k = rms_norm(q, layer["q_norm"], eps), rms_norm(k, layer["k_norm"], eps)
    return [apply_rope(q, rope), apply_rope(k, rope), v]


def _finish_block(config: QwenConfig, layer: Weights, x_ND, attended_NE) -> jax.Array:
    x_ND = x_ND + _apply(attended_NE, layer["o"], (config.hidden_size,))[0]
    normed = rms_norm(x_ND, layer["post_norm"], config.rms_norm_eps)
    gate, up = _apply(normed, layer["gate_up"], (config.intermediate_size,) * 2)
    return x_ND + _apply(silu_gate(gate, up), layer["down"], (config.hidden_size,))[0]


def _prompts_seen(
    shared: SharedPrompts, position_B: jax.Array, windows: set[int | None]
) -> dict[int | None, jax.Array]:
    """By window, bool [P, G, T]: which tokens of its prompt a row at this position reads."""
    at_T = jnp.arange(shared.cache.num_slots)
    real_P1T = (at_T < shared.length_P[:, None])[:, None]
    distance_PGT = position_B.reshape(len(shared.length_P), -1, 1) - at_T
    return {w: real_P1T if w is None else real_P1T & (distance_PGT < w) for w in windows}
