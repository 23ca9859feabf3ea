"""Parts of checkpoints read beside the run that writes them."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError
from distill_jax.training import checkpoint_reader
from distill_jax.training.checkpoint import Checkpointer, CheckpointSettings


def state(step):
    lora = {"a": jnp.full((2, 3), step, jnp.bfloat16), "b": {"c": jnp.arange(3) + step}}
    return {
        "trainable": {"lora": lora, "lora2": {"a": jnp.ones(1)}, "value_head": jnp.ones(2)},
        "step": jnp.int32(step),
    }


@pytest.fixture
def directory(tmp_path):
    with Checkpointer(tmp_path / "checkpoints", CheckpointSettings(keep=2)) as checkpoints:
        for step in (1, 2, 30):
            checkpoints.save(step, state(step))
    return tmp_path / "checkpoints"


def test_reads_what_lies_below_a_path(directory):
    assert checkpoint_reader.steps(directory) == [2, 30]
    got = checkpoint_reader.read(directory, 30, "trainable.lora")
    assert got.keys() == {"a", "b"} and got["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(got["a"].astype(float), np.full((2, 3), 30.0))
    np.testing.assert_array_equal(got["b"]["c"], [30, 31, 32])
    assert got["b"]["c"].dtype == np.int32


def test_what_is_not_there_is_told(directory, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 1 .*wanted: 2, 30"):
        checkpoint_reader.read(directory, 1, "trainable.lora")
    with pytest.raises(CheckpointError, match="nothing below trainable.base"):
        checkpoint_reader.read(directory, 2, "trainable.base")
    assert checkpoint_reader.steps(tmp_path / "nowhere") == []


def test_half_written_steps_are_neither_read_nor_removed(directory):
    # As orbax leaves them while another process writes.
    halves = [directory / "40.orbax-checkpoint-tmp-0", directory / "damaged-7"]
    for half in halves:
        shutil.copytree(directory / "30", half)
    assert checkpoint_reader.steps(directory) == [2, 30]
    assert all(half.exists() for half in halves)


@pytest.mark.parametrize("file", ["meta/metadata", "state/manifest.ocdbt"])
def test_damage_is_told(directory, file):
    path = directory / "2" / file
    path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(CheckpointError, match=r"checkpoint .*2 is damaged: .*take another step"):
        checkpoint_reader.read(directory, 2, "trainable.lora")
