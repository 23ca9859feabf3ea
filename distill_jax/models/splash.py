"""Attention by jax's kernel for TPU ("splash"): scores [T, T] never reach the memory."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

_LANES = 128
# Shorter rows are XLA's: their scores are small, and the kernel's blocks few.
LEAST_TIME = 1024


def takes(time: int, head_dim: int) -> bool:
    """Whether rows of so many tokens, with heads of this size, are for the kernel."""
    return time >= LEAST_TIME and head_dim % _LANES == 0


@dataclass(frozen=True)
class Splash:
    """Causal attention with its gradients, as `attention.attention` has it, without windows.

    Attributes:
        mesh: rows are split over data and fsdp, heads over tensor, where these divide them: XLA
            splits no kernel by itself.
        interpret: compute what the kernel says without compiling it, on any platform: for tests.
    """

    mesh: Mesh
    interpret: bool = False

    def __call__(
        self,
        q_BTHh: jax.Array,
        k_BTKh: jax.Array,
        v_BTKh: jax.Array,
        segment_BT: jax.Array | None,
    ) -> jax.Array:
        """[B, T, H, h]; see `attention.attention`."""
        batch, time, heads, size = q_BTHh.shape
        kv_heads = k_BTKh.shape[2]
        short = -time % _LANES  # padding at the right is hidden by causality
        shards = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        rows = ("data", "fsdp") if batch % shards == 0 else None
        split = "tensor" if kv_heads % self.mesh.shape["tensor"] == 0 else None
        of_heads = PartitionSpec(rows, split)
        q = (q_BTHh * size**-0.5).reshape(batch, time, kv_heads, heads // kv_heads, size)
        q_BKGTh, k_BKTh, v_BKTh = (
            jnp.pad(jnp.moveaxis(x, 1, -2), [(0, 0)] * (x.ndim - 2) + [(0, short), (0, 0)])
            for x in (q, k_BTKh, v_BTKh)
        )
        arrays, specs = [q_BKGTh, k_BKTh, v_BKTh], [of_heads] * 3
        if segment_BT is not None:
            arrays.append(jnp.pad(segment_BT, ((0, 0), (0, short))))
            specs.append(PartitionSpec(rows))
        run = jax.shard_map(
            self._of_device,
            mesh=self.mesh,
            in_specs=tuple(specs),
            out_specs=of_heads,
            check_vma=False,
        )
        out = jnp.moveaxis(run(*arrays)[..., :time, :], -2, 1)
        return out.reshape(batch, time, heads, size)

    def _of_device(
        self, q_BKGTh: jax.Array, k_BKTh: jax.Array, v_BKTh: jax.Array, *segments: jax.Array
    ) -> jax.Array:
        # Imported here: it takes a second, and TPUs alone want it.
        from jax.experimental.pallas.ops.tpu.splash_attention import (
            splash_attention_kernel as kernels,
        )
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        group, time = q_BKGTh.shape[2:4]
        block = next(n for n in (512, 384, 256, 128) if time % n == 0)
        kernel = kernels.make_splash_mqa_single_device(
            masks.MultiHeadMask([masks.CausalMask((time, time))] * group),
            block_sizes=kernels.BlockSizes(*(block,) * 3, *(block,) * 3, use_fused_bwd_kernel=True),
            interpret=self.interpret,
        )

        def of_row(q, k, v, *segment):
            ids = kernels.SegmentIds(*segment * 2) if segment else None
            return jax.vmap(lambda *heads: kernel(*heads, segment_ids=ids))(q, k, v)

        return jax.vmap(of_row)(q_BKGTh, k_BKTh, v_BKTh, *segments)
