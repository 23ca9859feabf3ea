"""Log-probabilities of given tokens are the model's, whatever else is read with them."""

import numpy as np
import pytest

from distill_jax.core.errors import DataError
from distill_jax.rollout.sampler import SamplingSettings
from distill_jax.serving.scoring import Reader
from distill_jax.serving.slots import Decoding
from tests import tiny
from tests.rollout.test_sampler import make

pytestmark = pytest.mark.slow

ROWS = [[3, 9, 4, 11, 2], [7], [12, 3, 3, 8, 1, 0, 19], [6, 14]]
GREEDY = Decoding(temperature=0.0)


@pytest.fixture(scope="module")
def built():
    model, params = tiny.build()
    sampler = make(model)
    weights = sampler.weights(params, SamplingSettings())
    return model, params, Reader(sampler.programs.model, weights, longest=64, top=3)


def test_scores_are_the_models(built):
    model, params, reader = built
    for tops in (False, True):
        found = reader.read(ROWS, [GREEDY] * len(ROWS), tops=tops)
        for row, one in zip(ROWS, found, strict=True):
            logp_TV = tiny.log_softmax(tiny.naive_logits(model, params, row))
            wanted = [logp_TV[place, token] for place, token in enumerate(row[1:])]
            np.testing.assert_allclose(one.logp, wanted, atol=1e-5)
            assert one.next_token == int(np.argmax(logp_TV[-1]))
            assert abs(one.next_logp - logp_TV[-1].max()) < 1e-5
            assert len(one.top_ids) == (len(row) if tops else 0)
            for place, ids in enumerate(one.top_ids):
                assert ids == np.argsort(-logp_TV[place], kind="stable")[:3].tolist()
                np.testing.assert_allclose(one.top_logp[place], logp_TV[place][ids], atol=1e-5)


def test_a_row_alone_and_among_others(built):
    reader = built[2]
    (alone,) = reader.read(ROWS[:1], [GREEDY], tops=False)
    among = reader.read(ROWS, [GREEDY] * len(ROWS), tops=False)[0]
    np.testing.assert_allclose(alone.logp, among.logp, atol=1e-6)


def test_a_row_that_is_too_long(built):
    with pytest.raises(DataError, match="65 tokens in one row"):
        built[2].read([[1] * 65], [GREEDY], tops=False)
