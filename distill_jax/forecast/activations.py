"""Bytes of activations on one device, by formula: of scoring, of an update, of decoding.

Counted are the arrays that XLA was seen to hold at a program's fullest moment (memory_analysis of
float32 programs on CPU, which tests compare: within 15% of arguments, outputs and temporaries
together). Elements per token and layer are listed in the order in which a block makes them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from distill_jax.models.attention_choice import splash_takes
from distill_jax.models.head.chunks import cut_of
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.response import parts_of

_F32 = 4


class Rows(NamedTuple):
    """One device's rows of a call.

    Attributes:
        rows: how many.
        T: tokens of a row.
        R: tokens of responses in it.
        most_keys: that a token attends to; 0: T. Rows of groups are longer.
    """

    rows: int
    T: int
    R: int
    most_keys: int = 0

    @property
    def keys(self) -> int:
        """That a token attends to, at most."""
        return self.most_keys or self.T


@dataclass(frozen=True)
class Program:
    """What decides how large a model's activations are.

    Attributes:
        geometry: of the model.
        compute_dtype: of activations.
        fsdp: over how many devices weights are split that a layer must gather.
        tensor: over how many devices heads, feed-forward and vocabulary are split.
        unroll: layers one after another, not scanned.
        remat: a block's activations are recomputed in the backward pass.
        rank: of the adapters, 0 for none.
        dropout: whether adapters drop entries of their inputs.
        platform: "cpu", "gpu" or "tpu", whose compiler it is. XLA:CPU drops the recomputing of
            unrolled layers, and gathers the kernels of all unrolled layers ahead in scoring, too.
        attention: as the model's settings ask for; None: as `attention_choice` picks.
    """

    geometry: QwenConfig
    compute_dtype: str = "float32"
    fsdp: int = 1
    tensor: int = 1
    unroll: bool = True
    remat: bool = False
    rank: int = 0
    dropout: bool = False
    platform: str = "gpu"
    attention: str | None = None

    @property
    def cpu(self) -> bool:
        """Whether XLA:CPU compiles it."""
        return self.platform == "cpu"

    @property
    def tpu(self) -> bool:
        """Whether the TPU's compiler does."""
        return self.platform == "tpu"

    @property
    def itemsize(self) -> int:
        """Bytes of an activation."""
        return jnp.dtype(self.compute_dtype).itemsize

    def split(self, extent: int) -> int:
        """An extent's part on one device, where the tensor axis divides it."""
        return extent // self.tensor if extent % self.tensor == 0 else extent

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """D, queries, keys and values together, F: elements of a token on one device."""
        g = self.geometry
        keys = 2 * self.split(g.num_kv_heads) * g.head_dim
        return (
            g.hidden_size,
            self.split(g.num_heads) * g.head_dim,
            keys,
            self.split(g.intermediate_size),
        )

    @property
    def layer_kernels(self) -> int:
        """Elements of one layer's kernels, gathered over fsdp."""
        D, q, keys, F = self.widths
        return D * (2 * q + keys + 3 * F)

    @property
    def vocab(self) -> int:
        """Head rows on one device."""
        return self.split(self.geometry.vocab_size)

    def scores(self, T: int) -> int:
        """A token's attention weights over T keys, where they are in memory: else 0.

        jax's kernel for TPU holds none. cuDNN's attention is counted as XLA's.
        """
        kernel = self.tpu and self.attention is None
        if kernel and splash_takes(self.geometry, self.compute_dtype, T):
            return 0
        return self.split(self.geometry.num_heads) * T


def _kept(program: Program, T: int) -> int:
    """Elements a token that one block keeps for its backward pass; T: keys that it attends to."""
    D, q, keys, F = program.widths
    weights = program.scores(T)  # unnormalised attention weights
    inputs = 4 * D  # two residual sums, two normed
    heads = 2 * (q + keys) + 2 * q  # before and after rope; attended, in both layouts
    kept = inputs + heads + weights + 3 * F
    if program.rank and program.dropout:
        kept += 5 * D + q + F  # each adapter's own copy of its input
    return kept


def _logits(program: Program, tokens: int, *, shards: int = 1) -> int:
    """float32 elements of one chunk's logits."""
    cut = cut_of(tokens * shards, program.geometry.vocab_size, None, shards)
    return -(-tokens // cut.chunks) * program.vocab


def gathered_head(program: Program) -> tuple[int, int]:
    """Bytes of the head, gathered over fsdp: those held all the time, and those with logits only.

    The TPU compiler gathers it while the layers run, and so holds it all the time.
    """
    if program.fsdp == 1:
        return 0, 0
    whole = program.itemsize * program.vocab * program.geometry.hidden_size
    return (0, whole) if program.cpu else (whole, 0)


def _weights_at_once(program: Program) -> int:
    """Elements of kernels that are not arguments: layers cut out ahead, and joined ones."""
    D, q, keys, F = program.widths
    joined = D * max(2 * F, q + keys) if program.tensor == 1 else 0
    layers = program.geometry.num_layers - 1 if program.unroll and program.cpu else 1
    return layers * program.layer_kernels + joined


def _in_pieces(program: Program, tokens: int) -> int:
    """Bytes of a layer whose kernels the TPU compiler gathers over fsdp in pieces; else 0.

    It then holds the sum of the products so far, the next product and the new sum, each as wide as
    gate and up together, besides three states. Seen for v5e and v6e (docs/benchmarks.md).
    """
    D, _, _, F = program.widths
    return program.itemsize * tokens * (3 * D + 3 * 2 * F) if program.fsdp > 1 else 0


def scoring(program: Program, rows: Rows, *, shards: int = 1) -> int:
    """Bytes of a forward pass with its head, on one device's rows of a call split over `shards`.

    The program's remat does not matter.
    """
    D, q, _, F = program.widths
    N, size = rows.rows * rows.T, program.itemsize
    weights = program.scores(rows.keys)
    attention = size * N * (D + q + weights) + _F32 * N * weights
    mlp = size * N * (2 * D + 3 * F)
    if program.rank and size < _F32 and not program.tpu:
        # Below float32 an adapter's product is added to its kernel's, and both are 2F wide
        # (lora.project). Found for H100: two such, their half, and the sum before.
        mlp = size * N * (D + 5 * F)
    layer = max(attention, mlp) + size * _weights_at_once(program)
    if program.tpu:
        layer = max(layer, _in_pieces(program, N))
    early, late = gathered_head(program)
    head = _F32 * _logits(program, rows.rows * rows.R, shards=shards) + late
    return early + max(layer, head + size * rows.rows * rows.R * D)


def scoring_in_parts(program: Program, rows: Rows, *, shards: int = 1) -> int:
    """As `scoring`, where the call cuts its rows as `models.response.in_parts` does."""
    parts = parts_of(rows.rows, rows.T).chunks
    return scoring(program, rows._replace(rows=-(-rows.rows // parts)), shards=shards)


def update(program: Program, rows: Rows, *, shards: int = 1) -> int:
    """Bytes of a loss and its gradient in the adapters, on one device's rows of a microbatch.

    The rows of a microbatch are split over `shards` devices.
    """
    D, _, _, F = program.widths
    L, N, size = program.geometry.num_layers, rows.rows * rows.T, program.itemsize
    kernels = size * program.layer_kernels
    # In float32 an adapter is added to its kernel, and the sum is kept (lora.project).
    merged = kernels if size == _F32 and 2 * N >= D and not program.dropout else 0
    block = size * N * _kept(program, rows.keys) + merged
    # Unrolled layers' kernels are cut out of their stack ahead and kept for the backward pass.
    cut = (kernels if program.cpu else kernels // program.fsdp) if program.unroll else 0
    recomputed = program.remat and not (program.unroll and program.cpu)
    backward = 3 * F + (2 * D if program.tensor > 1 else 0)  # tensor: partial sums to be added up
    if recomputed:
        backward = max(backward, program.scores(rows.keys) * 5 // 4)
    backward *= size * N
    chunk = _logits(program, rows.rows * rows.R, shards=shards)
    early, late = gathered_head(program)
    head = 2 * _F32 * chunk + size * rows.rows * rows.R * D + late
    if recomputed:
        saved = L * (size * N * D + cut)
        if program.tpu:
            return saved + _fullest_on_tpu(program, rows, block + kernels, head, early)
        return early + saved + max(block + backward + kernels, head)
    if program.unroll:
        return early + L * (block + cut + size * N * D) + max(backward, head) + kernels
    return early + L * block + max(block + size * N * D + kernels, head)


def _fullest_on_tpu(program: Program, rows: Rows, block: int, head: int, gathered: int) -> int:
    """Bytes of a recomputed update on a TPU, besides what the layers have saved.

    The largest of three moments: the forward pass, while the gathered head waits; the head, which
    is copied into another layout before its logits; the backward pass of a block, where the head is
    gone, and the gradients of gate and up are made with that of their product.

    Args:
        block: what a block keeps, and its kernels.
        head: logits of a chunk and states.
        gathered: the head, where it is gathered; else 0.
    """
    D, _, _, F = program.widths
    tokens = rows.rows * rows.T
    back = max(2 * F + (2 * D if program.tensor > 1 else 0), program.scores(rows.keys) * 5 // 4)
    back *= program.itemsize * tokens
    return max(gathered + _in_pieces(program, tokens), gathered + max(gathered, head), block + back)


def decoding(program: Program, rows: int) -> int:
    """Bytes of a decode segment without its weights and cache: logits twice."""
    return 2 * _F32 * rows * program.vocab
