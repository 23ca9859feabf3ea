import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from distill_jax.training import optimizer
from distill_jax.training import state as states
from tests import tiny

pytestmark = pytest.mark.mesh

TX = optimizer.make(optimizer.OptimizerSettings(), 10)


def test_split_and_join():
    _, params = tiny.build()
    trainable, frozen = states.split(params, "lora")
    assert set(trainable) == {"lora"} and set(frozen) == {"base"}
    with_head = states.with_value_head(trainable, 16)
    joined = states.join(with_head, frozen)
    assert set(joined) == {"base", "lora"} and joined["base"] is params["base"]
    trainable, frozen = states.split(params, "full")
    assert set(trainable) == {"base"} and states.join(trainable, frozen)["lora"] is params["lora"]
    with pytest.raises(ValueError, match="'both'"):
        states.split(params, "both")


def test_moments_are_kept_for_trainable_parameters_alone():
    _, params = tiny.build()
    trainable, _ = states.split(params, "lora")
    trainable = states.with_value_head(trainable, 16)
    state, _ = states.create(trainable, TX, 0, tiny.mesh())
    sizes = sum(x.size for x in jax.tree.leaves(trainable))
    kept = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    counts = [x for x in jax.tree.leaves(state.opt_state) if not x.ndim and x.dtype == np.int32]
    # Two moments a parameter (the head's bias is a scalar of two moments too), and counters.
    assert sum(x.size for x in kept) + 2 == 2 * sizes and counts
    assert int(state.step) == int(state.skipped) == 0
    assert np.all(np.asarray(state.trainable["value_head"]["kernel_D"]) == 0)


def test_a_fresh_state_does_not_share_its_buffers():
    # The state is donated by updates; the tree that it was made from is the KL's reference.
    _, params = tiny.build()
    trainable, _ = states.split(tiny.placed(params, tiny.mesh()), "lora")
    state, _ = states.create(trainable, TX, 0, tiny.mesh())
    jax.jit(lambda s: jax.tree.map(lambda x: x, s), donate_argnums=0)(state.trainable)
    jax.tree.map(lambda x: x.delete() if not x.is_deleted() else None, state.trainable)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(trainable))


def test_moments_lie_where_their_parameters_do():
    mesh = tiny.mesh(1, 2, 2)
    _, params = tiny.build()
    trainable, _ = states.split(tiny.placed(params, mesh), "lora")
    trainable = states.with_value_head(trainable, 16)
    state, shardings = states.create(trainable, TX, 0, mesh)
    adam = state.opt_state[1].inner_state[0]
    for moment in (adam.mu, adam.nu):
        jax.tree.map(lambda m, p: m.sharding == p.sharding or 1 / 0, moment, state.trainable)
    a = state.trainable["lora"]["layers"]["self_attn"]["q_proj"]["lora_A"]
    b = state.trainable["lora"]["layers"]["self_attn"]["q_proj"]["lora_B"]
    assert a.sharding.spec == PartitionSpec(None, "fsdp", None)
    assert b.sharding.spec == PartitionSpec(None, None, "tensor")
    assert adam.mu["lora"]["layers"]["self_attn"]["q_proj"]["lora_A"].sharding == a.sharding
    for leaf in (state.step, state.trainable["value_head"]["kernel_D"], adam.count):
        assert leaf.sharding.is_fully_replicated
    assert shardings.trainable["lora"]["layers"]["mlp"]["down_proj"]["lora_A"].spec[1] == "tensor"
