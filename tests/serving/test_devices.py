"""On several devices, whose number need not divide the rows, requests get what one device gives."""

import numpy as np
import pytest

from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.serving import served as models
from distill_jax.serving.scoring import Reader
from distill_jax.serving.slots import Decoding, Slots
from tests import tiny
from tests.rollout.test_sampler import make
from tests.serving.endpoint import ask, running
from tests.stages.hf import write_model

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

PROMPTS = [[3, 9, 4, 11, 2], [7], [12, 3, 3, 8]]
HOWS = [Decoding(temperature=0.0), Decoding(seed=5), Decoding(temperature=0.7, top_p=0.8, seed=6)]
NEW = 8


def drawn_and_read(extents):
    """What three rows draw, twice as long as a segment; scores of one prompt and of all."""
    model, params = tiny.build()
    mesh = tiny.mesh(*extents)
    # As `run.models.build` says of a model over a tensor axis.
    sampler = make(model.replace(fuse=extents[2] == 1), mesh, eos=-1)
    weights = sampler.weights(tiny.placed(params, mesh), SamplingSettings())
    how = {"rows": 3, "prompt": 16, "new": NEW, "steps": NEW // 2}
    slots = Slots(sampler.programs.model, weights, **how)
    for row, prompt in enumerate(PROMPTS):
        slots.begin([row], prompt, [HOWS[row]])
    tokens, logp = zip(slots.segment(), slots.segment(), strict=True)
    reader = Reader(sampler.programs.model, weights, longest=64, top=3)
    scores = reader.read(PROMPTS[:1], HOWS[:1], tops=True) + reader.read(PROMPTS, HOWS, tops=True)
    return np.concatenate(tokens, axis=1), np.concatenate(logp, axis=1), scores


@pytest.fixture(scope="module")
def one():
    return drawn_and_read((1, 1, 1))


@pytest.mark.parametrize("extents", [(8, 1, 1), (2, 2, 2)])
def test_rows_are_those_of_one_device(one, extents):
    tokens, logp, scores = drawn_and_read(extents)
    np.testing.assert_array_equal(tokens, one[0])
    np.testing.assert_allclose(logp, one[1], atol=1e-5)
    for got, want in zip(scores, one[2], strict=True):
        np.testing.assert_allclose(got.logp, want.logp, atol=1e-5)
        assert got.top_ids == want.top_ids and got.next_token == want.next_token


def test_a_directory_is_served_on_all_devices(tmp_path):
    write_model(tmp_path / "little", rows=320, noise=0.3)
    limits = models.Limits(prompt=100, new=16)
    served = models.of_directory(str(tmp_path / "little"), "", limits, "float32")
    assert served.weights["head_RWD"].sharding.mesh.size == 8
    with running(served, rows=3) as server:
        body = {"model": "little", "prompt": [[5, 6, 7], [8, 9]], "max_tokens": 12, "n": 2}
        reply = ask(server, "/v1/completions", body)
    assert reply.status == 200 and len(reply.body["choices"]) == 4
