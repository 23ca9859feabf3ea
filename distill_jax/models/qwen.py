"""The model: modules, and `QwenModel`, the one interface that the rest of the code uses."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding

from distill_jax.core import sharding
from distill_jax.core.errors import ConfigError
from distill_jax.models import prompt_groups
from distill_jax.models.attention import Attention, Implementation, PromptSegments, attention
from distill_jax.models.decode import Decoding
from distill_jax.models.layers import MLP, RMSNorm, rms_norm, rope_table, segment_positions
from distill_jax.models.lora import LoraConfig
from distill_jax.models.prompt_groups import Groups
from distill_jax.models.qwen_config import QwenConfig

Params = dict[str, Any]


class Block(nnx.Module):
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(
        self, config: QwenConfig, lora: LoraConfig | None, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        size, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(size, eps, dtype=dtype)
        self.self_attn = Attention(config, lora, dtype=dtype, rngs=rngs)
        self.post_attention_layernorm = RMSNorm(size, eps, dtype=dtype)
        self.mlp = MLP(config, lora, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x_ND: jax.Array,
        rope: tuple[jax.Array, jax.Array],
        shape: tuple[int, int],
        *,
        fuse: bool,
        dropout_key: jax.Array | None,
        **attention: Any,
    ) -> jax.Array:
        """x_ND: [B·T, D] with (B, T) = shape; returns the same shape and dtype."""
        how: dict[str, Any] = {"fuse": fuse, "dropout_key": dropout_key}
        x_ND = x_ND + self.self_attn(self.input_layernorm(x_ND), rope, shape, **how, **attention)
        return x_ND + self.mlp(self.post_attention_layernorm(x_ND), **how)


class Table(nnx.Module):
    """One vector a token: the embedding, or an untied head (rows [V, D] in both)."""

    def __init__(self, name: str, config: QwenConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        shape = (config.vocab_size, config.hidden_size)
        drawn = config.initializer_range * jax.random.normal(rngs.params(), shape, dtype)
        setattr(self, name, nnx.Param(drawn))


class Qwen(nnx.Module):
    """All parameters of a model; layers are stacked, leaves [L, ...]."""

    def __init__(
        self, config: QwenConfig, lora: LoraConfig | None, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.embed_tokens = Table("embedding", config, dtype=dtype, rngs=rngs)
        stack = nnx.vmap(
            lambda keys: Block(config, lora, dtype=dtype, rngs=keys),
            transform_metadata={nnx.PARTITION_NAME: None},
        )
        self.layers = stack(rngs.split(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)
        if not config.tie_embeddings:
            self.lm_head = Table("kernel", config, dtype=dtype, rngs=rngs)


def _split(module: nnx.Module) -> tuple[Any, Params, Params]:
    # LoRAParam is a Param: it must be named first.
    graph, *states = nnx.split(module, nnx.LoRAParam, nnx.Param)
    lora, base = states
    return graph, dict(nnx.to_pure_dict(base)), dict(nnx.to_pure_dict(lora))


@functools.lru_cache(maxsize=32)
def _block_graph(config: QwenConfig, lora: LoraConfig | None, dtype: jnp.dtype) -> Any:
    return _split(nnx.eval_shape(lambda: Block(config, lora, dtype=dtype, rngs=nnx.Rngs(0))))[0]


@functools.lru_cache(maxsize=32)
def _shapes(model: "QwenModel", widest: Any) -> Params:
    del widest  # float32 or, under jax_enable_x64, float64
    return jax.eval_shape(model.init, jax.random.key(0))


@jax.custom_vjp
def _unstack(leaf: jax.Array) -> tuple[jax.Array, ...]:
    """Slices [...] of a leaf [L, ...]; their gradients are stacked once, not padded and summed."""
    return tuple(leaf[i] for i in range(leaf.shape[0]))


_unstack.defvjp(lambda leaf: (_unstack(leaf), None), lambda _, slices: (jnp.stack(slices),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gathered(split: NamedSharding, whole: NamedSharding, leaf: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(leaf, whole)


def _gathered_backward(split: NamedSharding, whole: NamedSharding, _: Any, grad: jax.Array) -> Any:
    return (jax.lax.with_sharding_constraint(grad, split),)


_gathered.defvjp(
    lambda split, whole, leaf: (_gathered(split, whole, leaf), None), _gathered_backward
)


@dataclass(frozen=True)
class QwenModel(Decoding):
    """A model's static part: hashable, so that jitted functions may close over it.

    Parameters live outside, in a plain dict {"base": ..., "lora": ...}; base mirrors the names of
    Hugging Face with layers stacked on the first axis.

    Attributes:
        config: geometry.
        lora: adapter, or None.
        compute_dtype: of activations and of kernels when used; norms and softmax are float32.
        param_dtype: of freshly drawn base weights; adapters are float32.
        unroll: layers one after another in the program (fast), or one scan (small program).
        remat: recompute each block in the backward pass, saving its activations' memory.
        attention_impl: see `attention.attention`; None chooses: see `attention_choice.chosen`.
        fuse: join kernels that share an input; turn off when the mesh splits tensors.
        rows: where activations [rows, ...] lie, or None to leave it to XLA. Needed under fsdp: in
            scanned layers and in updates XLA would split the states' width as it finds the
            embedding's, and hold and compute all rows everywhere.
        graph: nnx graph definition of one block; made here.

    Raises:
        ConfigError: an attention implementation that is unknown or cannot run in this dtype.
    """

    config: QwenConfig
    lora: LoraConfig | None = None
    compute_dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    unroll: bool = True
    remat: bool = False
    attention_impl: Implementation | None = None
    fuse: bool = True
    rows: NamedSharding | None = None
    graph: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        compute, stored = jnp.dtype(self.compute_dtype), jnp.dtype(self.param_dtype)
        if self.attention_impl not in (None, "products", "xla", "cudnn"):
            got = f"attention_impl={self.attention_impl!r}"
            raise ConfigError(got, wanted="None, 'products', 'xla' or 'cudnn'")
        if self.attention_impl == "cudnn" and compute == jnp.float32:
            got = "attention_impl='cudnn' with compute_dtype float32"
            raise ConfigError(got, wanted="bfloat16 or float16", fix="set attention_impl='xla'")
        graph = _block_graph(self.config, self.lora, stored)
        known = {"compute_dtype": compute, "param_dtype": stored, "graph": graph}
        for name, value in known.items():
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> "QwenModel":
        """The same model with other settings, e.g. `replace(lora=None)`."""
        return dataclasses.replace(self, **changes)

    def init(self, key: jax.Array) -> Params:
        """Freshly drawn {"base": ..., "lora": ... or {}}; the typed key may be traced."""
        module = Qwen(self.config, self.lora, dtype=self.param_dtype, rngs=nnx.Rngs(key))
        _, base, lora = _split(module)
        return {"base": base, "lora": lora}

    def shapes(self) -> Params:
        """What `init` would return, as ShapeDtypeStructs."""
        widest = jax.dtypes.canonicalize_dtype(jnp.float64)
        return jax.tree.map(lambda leaf: leaf, _shapes(self, widest))

    def hidden(
        self,
        params: Params,
        tokens_BT: jax.Array,
        *,
        segment_BT: jax.Array | None = None,
        prompts: PromptSegments | None = None,
        groups: Groups | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states after the final norm; logits are hidden_BTD @ head_VD(params).T.

        Args:
            params: {"base", "lora"}; gradients by "lora" alone cost none for the base.
            tokens_BT: int32 [B, T], padded at the right, where causality hides it.
            segment_BT: int32, of rows that hold several sequences: one number a sequence, in one
                run. Positions start again at 0 in each, and none sees another.
            prompts: of segments that share prompts.
            groups: of rows that hold a prompt and responses to it, without segments: see
                `prompt_groups`. Without this and segments a row is one sequence.
            dropout_key: typed key that switches LoRA dropout on.

        Returns:
            compute dtype [B, T, D]; arbitrary but finite at padding.
        """
        batch, time = tokens_BT.shape
        base, lora = params["base"], params["lora"]
        attend: Callable[..., jax.Array]
        if groups is not None:
            positions, longest = groups.positions(time), groups.longest(time)
            attend = functools.partial(prompt_groups.attend, groups=groups)
        else:
            longest = time
            positions = jnp.arange(time) if segment_BT is None else segment_positions(segment_BT)
            positions = positions if prompts is None else prompts.position_BT
            attend = functools.partial(attention, segment_BT=segment_BT, prompts=prompts)
        implementation = self.attends(
            longest, segments=segment_BT is not None, scanned=not self.unroll
        )
        attend = functools.partial(attend, implementation=implementation)
        rope = rope_table(self.config, positions)
        x_ND = jnp.take(base["embed_tokens"]["embedding"], tokens_BT.reshape(-1), axis=0)
        x_ND = self._by_rows(x_ND.astype(self.compute_dtype))

        def block(weights, x_ND, window, key):
            x_ND = nnx.merge(self.graph, *weights)(
                x_ND,
                rope,
                (batch, time),
                attend=attend,
                window=window,
                fuse=self.fuse,
                dropout_key=key,
            )
            return self._by_rows(x_ND)

        if self.lora is None or self.lora.dropout == 0:
            dropout_key = None
        stacked = (base["layers"], lora.get("layers", {}))
        x_ND = self._run_layers(block, stacked, x_ND, dropout_key)
        x_ND = rms_norm(x_ND, base["norm"]["scale"], self.config.rms_norm_eps)
        return x_ND.reshape(batch, time, -1)

    def _run_layers(self, block, stacked, x_ND, dropout_key) -> jax.Array:
        config = self.config
        layer_keys = None
        if dropout_key is not None:
            layer_keys = jax.vmap(lambda i: jax.random.fold_in(dropout_key, i))(
                jnp.arange(config.num_layers)
            )
        if self.unroll:
            run = jax.checkpoint(block, static_argnums=(2,)) if self.remat else block
            leaves, tree = jax.tree.flatten(stacked)
            for i, slices in enumerate(zip(*map(_unstack, leaves), strict=True)):
                key = None if layer_keys is None else layer_keys[i]
                x_ND = run(jax.tree.unflatten(tree, slices), x_ND, config.windows[i], key)
            return x_ND
        # One traced window serves layers of both kinds; a window beyond any length hides nothing.
        mixed = len(set(config.windows)) > 1
        window_L = jnp.asarray([w or 2**30 for w in config.windows]) if mixed else None

        def body(x_ND, layer):
            weights, window, key = layer
            return block(weights, x_ND, window if mixed else config.windows[0], key), None

        body = jax.checkpoint(body) if self.remat else body
        return jax.lax.scan(body, x_ND, (stacked, window_L, layer_keys))[0]

    def head_VD(self, params: Params) -> jax.Array:
        """The head's rows [V, D], in the stored dtype: the embedding when tied."""
        base = params["base"]
        if self.config.tie_embeddings:
            return base["embed_tokens"]["embedding"]
        return base["lm_head"]["kernel"]

    def whole_head_VD(self, params: Params) -> jax.Array:
        """`head_VD`, gathered over fsdp, for what applies it to many chunks of tokens.

        XLA would gather it for each chunk. Its gradient is split as the head is.
        """
        head_VD = self.head_VD(params)
        if self.rows is None or self.rows.mesh.shape["fsdp"] == 1:
            return head_VD
        split, whole = (
            NamedSharding(
                self.rows.mesh,
                sharding.partition_spec(("vocab", width), head_VD.shape, self.rows.mesh),
            )
            for width in ("embed", None)
        )
        return _gathered(split, whole, head_VD)

    @property
    def shards(self) -> int:
        """Devices that rows of activations are split over."""
        return 1 if self.rows is None else sharding.batch_shards(self.rows.mesh)


_AXES: Mapping[str, tuple[str | None, str | None]] = {
    "q_proj": ("embed", "heads"),
    "k_proj": ("embed", "kv_heads"),
    "v_proj": ("embed", "kv_heads"),
    "o_proj": ("heads", "embed"),
    "gate_proj": ("embed", "mlp"),
    "up_proj": ("embed", "mlp"),
    "down_proj": ("mlp", "embed"),
    "embed_tokens": ("vocab", "embed"),
    "lm_head": ("vocab", "embed"),
}


def logical_axes(params: Params) -> Params:
    """Logical axis names of every leaf, for `core.sharding.shardings`: one name (or None) an axis.

    params is {"base", "lora"}, or any subtree that still holds the modules' names, of arrays or
    ShapeDtypeStructs.
    """

    def axes(path, leaf) -> tuple[str | None, ...]:
        # Below a quantised kernel stand its values and scales: their axes are the kernel's.
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        stacked: tuple[str | None, ...] = ("layers",) if "layers" in names else ()
        module, kind = names[-2], names[-1]
        if kind == "scale":
            return (*stacked, None)
        into, out = _AXES[module]
        return stacked + {
            "bias": (out,),
            "lora_A": (into, "lora_rank"),
            "lora_B": ("lora_rank", out),
        }.get(kind, (into, out))

    return jax.tree_util.tree_map_with_path(axes, params)
