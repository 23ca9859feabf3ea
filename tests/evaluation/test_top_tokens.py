"""Top tokens of responses against the plain softmax of each position's logits."""

import numpy as np
import pytest

from distill_jax.evaluation.export_rows import TopTokens
from distill_jax.rewards.top_k import TopKScorer
from distill_jax.rollout.sampler import Rollout
from tests import tiny

pytestmark = pytest.mark.mesh

PROMPTS = [[7, 8, 9], [3], [4, 4, 11, 2, 6]]
LENGTHS = [4, 1, 6]
K = 3


def rollout(rng):
    tokens = np.full((len(PROMPTS), 6), tiny.PAD, np.int32)
    for row, n in enumerate(LENGTHS):
        tokens[row, :n] = rng.integers(1, tiny.VOCAB, n)
    zeros = np.zeros(tokens.shape, np.float32)
    return Rollout(tokens, np.array(LENGTHS, np.int32), np.ones(len(PROMPTS), bool), zeros)


def test_each_position_is_read_before_its_token():
    model, params = tiny.build()
    mesh = tiny.mesh(data=2)
    scorer = TopKScorer(model, tiny.placed(params, mesh), mesh, k=K, vocab=tiny.VOCAB)
    reader = TopTokens(scorer, pad_id=tiny.PAD, multiple=8)
    reader._batch_rows = 2  # two batches, the second filled up
    out = rollout(np.random.default_rng(0))
    found = reader.read(PROMPTS, out)
    assert [np.shape(ids) for ids in found["top_ids"]] == [(n, K) for n in LENGTHS]
    columns = found["top_ids"], found["top_probs"]
    for prompt, row, n, ids, probs in zip(PROMPTS, out.tokens_BR, LENGTHS, *columns, strict=True):
        whole = [*prompt, *row[:n]]
        for t in range(n):
            # What stands before token t, nothing of it or behind it.
            logits = tiny.naive_logits(model, params, whole[: len(prompt) + t])[-1]
            logp = tiny.log_softmax(logits)
            order = np.argsort(-logp)[:K]
            assert ids[t] == order.tolist()
            np.testing.assert_allclose(probs[t], np.exp(logp[order]), rtol=2e-5)
            assert probs[t] == [float(f"{p:.6g}") for p in probs[t]]
    assert max(np.max(ids) for ids in found["top_ids"]) < tiny.VOCAB
