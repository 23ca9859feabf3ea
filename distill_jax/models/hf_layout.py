"""Which Hugging Face tensor each leaf of the parameter tree is, and of which shape."""

from dataclasses import dataclass
from typing import Any

from flax.traverse_util import flatten_dict

from distill_jax.core.errors import CheckpointError
from distill_jax.models.qwen_config import QwenConfig


@dataclass(frozen=True)
class Leaf:
    """One leaf of the base tree.

    Attributes:
        path: keys from the root of the base tree to the leaf.
        name: tensor name in the checkpoint; "{}" stands for the layer.
        shape: shape of one tensor as the checkpoint stores it, [out, in] for projections.
        transpose: the tree holds [in, out].
        layers: L when the leaf stacks one tensor a layer, else 0.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transpose: bool = False
    layers: int = 0

    @property
    def names(self) -> list[str]:
        """Names of the tensors that make up the leaf, in layer order."""
        return [self.name.format(i) for i in range(self.layers)] if self.layers else [self.name]

    @property
    def tree_shape(self) -> tuple[int, ...]:
        """Shape of the leaf in the tree."""
        shape = self.shape[::-1] if self.transpose else self.shape
        return (self.layers, *shape) if self.layers else shape


def projections(config: QwenConfig) -> dict[str, tuple[str, int, int]]:
    """The seven projections: name -> (parent module, inputs, outputs)."""
    d, f = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return {
        "q_proj": ("self_attn", d, q),
        "k_proj": ("self_attn", d, kv),
        "v_proj": ("self_attn", d, kv),
        "o_proj": ("self_attn", q, d),
        "gate_proj": ("mlp", d, f),
        "up_proj": ("mlp", d, f),
        "down_proj": ("mlp", f, d),
    }


def leaves(config: QwenConfig) -> list[Leaf]:
    """Every leaf of the base tree, in the order in which checkpoints are written."""
    d, v, n = config.hidden_size, config.vocab_size, config.num_layers
    out = [Leaf(("embed_tokens", "embedding"), "model.embed_tokens.weight", (v, d))]
    for norm in ("input_layernorm", "post_attention_layernorm"):
        name = f"model.layers.{{}}.{norm}.weight"
        out.append(Leaf(("layers", norm, "scale"), name, (d,), layers=n))
    for name, (parent, inputs, outputs) in projections(config).items():
        prefix, path = f"model.layers.{{}}.{parent}.{name}", ("layers", parent, name)
        kernel = (outputs, inputs)
        out.append(Leaf((*path, "kernel"), f"{prefix}.weight", kernel, transpose=True, layers=n))
        if config.qkv_bias and name in ("q_proj", "k_proj", "v_proj"):
            out.append(Leaf((*path, "bias"), f"{prefix}.bias", (outputs,), layers=n))
    if config.qk_norm:
        for norm in ("q_norm", "k_norm"):
            name = f"model.layers.{{}}.self_attn.{norm}.weight"
            where = ("layers", "self_attn", norm, "scale")
            out.append(Leaf(where, name, (config.head_dim,), layers=n))
    out.append(Leaf(("norm", "scale"), "model.norm.weight", (d,)))
    if not config.tie_embeddings:
        out.append(Leaf(("lm_head", "kernel"), "lm_head.weight", (v, d)))
    return out


def flat(tree: Any, leaves: list[Leaf], name: str) -> dict[tuple[str, ...], Any]:
    """The tree's leaves by path; CheckpointError, with the tree's name, if others than `leaves`."""
    found = flatten_dict(tree)
    if odd := found.keys() ^ {leaf.path for leaf in leaves}:
        names = ", ".join(sorted("/".join(path) for path in odd))
        fix = "pass the parameters and the configuration of one model"
        raise CheckpointError(f"{name} and its configuration differ in {names}", fix=fix)
    for leaf in leaves:
        shape = tuple(found[leaf.path].shape)
        if shape != leaf.tree_shape:
            got = f"{'/'.join(leaf.path)} has shape {list(shape)}"
            raise CheckpointError(got, wanted=str(list(leaf.tree_shape)))
    return found
