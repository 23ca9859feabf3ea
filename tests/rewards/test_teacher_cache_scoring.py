import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill_jax.core import sharding
from distill_jax.rewards.cached_teacher import CachedTeacher
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.rewards.teacher_cache import CacheSettings
from tests import tiny
from tests.tiny import VOCAB

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent.parent
B, T, R = 8, 16, 8


def make(seed=0, rows=B):
    random = np.random.default_rng(seed)
    prompt = random.integers(1, T - R, rows).astype(np.int32)
    length = random.integers(1, R, rows).astype(np.int32)
    length[0] = R
    batch = {
        "tokens_BT": np.zeros((rows, T), np.int32),
        "prompt_len_B": prompt,
        "response_len_B": length,
        "targets_BR": np.zeros((rows, R), np.int32),
        "advantage_BR": np.zeros((rows, R), np.float32),  # the batch holds more
    }
    for i, (p, n) in enumerate(zip(prompt, length, strict=True)):
        tokens = random.integers(6, VOCAB, p + n)
        batch["tokens_BT"][i, : p + n], batch["targets_BR"][i, :n] = tokens, tokens[p:]
    return batch


def take(batch, rows):
    return {name: x[np.asarray(rows)] for name, x in batch.items()}


@pytest.fixture(scope="module")
def model():
    return tiny.build(lora=False, seed=3)


@pytest.fixture(scope="module")
def plain(model):
    return TeacherScorer(*model, tiny.mesh(), alpha=0.7, vocab=VOCAB)


class Spy:
    """A teacher that notes how many rows each call has."""

    def __init__(self, teacher):
        self.teacher, self.model = teacher, teacher.model
        self.alphas, self.kind, self.vocab = teacher.alphas, teacher.kind, teacher.vocab
        self.calls = []

    def score(self, batch):
        self.calls.append(len(batch["tokens_BT"]))
        return self.teacher.score(batch)


def cached(teacher, mesh=None, *, model="weights", megabytes=1.0, **settings):
    return CachedTeacher(
        Spy(teacher),
        mesh or tiny.mesh(),
        CacheSettings(megabytes=megabytes, **settings),
        model=model,
        tokenizer="tokenizer",
    )


def cut(scores, batch):
    """The bits that mean something."""
    q, value, end = map(np.asarray, scores)
    lengths = batch["response_len_B"]
    return [
        (q[i, :n].tobytes(), value[i, :n].tobytes(), end[i].tobytes())
        for i, n in enumerate(lengths)
    ]


def close(scores, others, batch, atol=1e-6):
    mask = np.arange(R) < batch["response_len_B"][:, None]
    for one, other in zip(scores, others, strict=True):
        keep = mask if one.ndim == 2 else ...
        np.testing.assert_allclose(np.asarray(one)[keep], np.asarray(other)[keep], atol=atol)


# --- the bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, B, 1000])
def test_cold_and_warm_are_the_teachers_bits(plain, rows, tmp_path):
    batch, teacher = make(), cached(plain, rows=rows, directory=str(tmp_path))
    want = cut(plain.score(batch), batch)
    cold = teacher.score(batch)
    warm = teacher.score(batch)
    other = cached(plain, rows=rows, directory=str(tmp_path))
    assert cut(cold, batch) == cut(warm, batch) == cut(other.score(batch), batch) == want
    assert (teacher.teacher.calls, other.teacher.calls) == ([B], [])
    for scores in (cold, warm):
        beyond = np.arange(R) >= batch["response_len_B"][:, None]
        assert not np.asarray(scores.q_BR)[beyond].any()
        assert scores.q_BR.sharding.is_equivalent_to(plain.score(batch).q_BR.sharding, 2)
    assert teacher.metrics()["teacher_cache/hit_rate"] == 1.0


def test_a_batch_on_the_mesh_scores_as_one_on_the_host(plain):
    batch = make()
    placed = sharding.place(batch, sharding.batch_sharding(tiny.mesh()))
    teacher = cached(plain)
    assert cut(teacher.score(placed), batch) == cut(teacher.score(batch), batch)
    assert teacher.teacher.calls == [B]


@pytest.mark.parametrize("rows", [1, 2, 3, B])
def test_bits_do_not_depend_on_what_was_cached(plain, rows):
    """What makes a resumed run the same: evicted, lost or found, a score has the same bits."""
    batch, want = make(), None
    for seed in range(6):
        random = np.random.default_rng(seed)
        teacher = cached(plain, rows=rows)
        # Others beside them, in another order, some of them already known.
        for _ in range(seed):
            beside = make(seed + 10)
            some = random.permutation(B)[: random.integers(1, B)]
            mixed = {n: np.concatenate([x[some], beside[n]])[:B] for n, x in batch.items()}
            teacher.score(take(mixed, random.permutation(B)))
        got = cut(teacher.score(batch), batch)
        want = want or got
        assert got == want
        assert set(teacher.teacher.calls) == {min(rows, B)}
    close(teacher.score(batch), plain.score(batch), batch)


def test_a_cache_that_forgets_gives_the_same_bits(plain):
    batch, whole, small = make(), cached(plain, rows=2), cached(plain, rows=2, megabytes=0.0005)
    for seed in (0, 1, 0, 0):
        batch = make(seed)
        assert cut(whole.score(batch), batch) == cut(small.score(batch), batch)
    assert small.metrics()["teacher_cache/evictions"] > 0
    assert len(small.teacher.calls) > len(whole.teacher.calls)


def test_missing_rows_go_by_powers_of_two(plain):
    teacher, batch = cached(plain, rows=0), make()
    for known, calls in ((5, [8, 4]), (7, [8, 1]), (6, [8, 2]), (2, [8, 8])):
        other = make(100 + known)
        mixed = {n: np.concatenate([x[:known], other[n][known:]]) for n, x in batch.items()}
        teacher = cached(plain, rows=0)
        teacher.score(batch)
        close(teacher.score(mixed), plain.score(mixed), mixed)
        assert teacher.teacher.calls == calls
        assert teacher.metrics()["teacher_cache/hit_rate"] == known / B


def test_another_padded_shape_is_another_program(plain):
    batch, exact, loose = make(), cached(plain, rows=2), cached(plain, rows=0)
    longer = {**batch, "tokens_BT": np.pad(batch["tokens_BT"], ((0, 0), (0, 8)))}
    wider = {**batch, "targets_BR": np.pad(batch["targets_BR"], ((0, 0), (0, 4)))}
    for teacher, rate in ((exact, 0.0), (loose, 1.0)):
        teacher.score(batch)
        for other in (longer, wider):
            teacher.score(other)
            assert teacher.metrics()["teacher_cache/hit_rate"] == rate


@pytest.mark.parametrize("rows", [0, 2, B])
def test_a_row_that_stands_there_twice_is_scored_once(plain, rows):
    batch = take(make(), [0, 1, 0, 2, 2, 2, 1, 0])
    teacher = cached(plain, rows=rows)
    for calls in ({0: [4], 2: [2, 2], B: [B]}[rows],) * 2:
        bits = cut(teacher.score(batch), batch)
        assert bits[0] == bits[2] == bits[7] and bits[1] == bits[6] and bits[3] == bits[4]
        assert len(set(bits)) == 3 and teacher.teacher.calls == calls
    close(teacher.score(batch), plain.score(batch), batch)


def test_split_over_a_mesh(model, plain):
    mesh = tiny.mesh(2, 1, 1)
    split = TeacherScorer(
        model[0], tiny.placed(model[1], mesh), mesh, alpha=plain.alpha, vocab=VOCAB
    )
    batch = make()
    for rows, calls in ((1, [2, 2]), (3, [4]), (0, [4])):
        teacher = cached(split, mesh, rows=rows)
        teacher.score(take(batch, [0, 1, 2, 3, 0, 1, 2, 3]))
        teacher.teacher.calls.clear()
        scores = teacher.score(take(batch, [0, 1, 2, 3, 4, 5, 6, 6]))
        assert teacher.teacher.calls == calls
        close(scores, plain.score(take(batch, [0, 1, 2, 3, 4, 5, 6, 6])), make(), 2e-6)
        assert scores.q_BR.sharding.is_equivalent_to(sharding.batch_sharding(mesh), 2)


# --- what is kept apart ---------------------------------------------------------------------------


def test_teachers_do_not_mix(model, plain, tmp_path):
    batch, where = make(), str(tmp_path)
    half = tiny.build(lora=False, seed=3, compute_dtype="bfloat16")[0]
    others = {
        "the same": (cached(plain, directory=where), 1.0),
        "weights": (cached(plain, directory=where, model="other"), 0.0),
        "alpha": (cached(scorer(model, alpha=0.5), directory=where), 0.0),
        "vocab": (cached(scorer(model, vocab=VOCAB - 1), directory=where), 0.0),
        "dtype": (cached(scorer((half, model[1])), directory=where), 0.0),
        "mesh": (cached(plain, tiny.mesh(2), directory=where), 0.0),
    }
    cached(plain, directory=where).score(batch)
    for name, (teacher, rate) in others.items():
        teacher.cache.store = lambda *a: None
        # Whatever it says: only the key is looked at.
        teacher.teacher.score = lambda placed: plain.score(sharding.fetch(placed))
        teacher.score(batch)
        assert teacher.metrics()["teacher_cache/hit_rate"] == rate, name


def scorer(model, alpha=0.7, vocab=VOCAB):
    return TeacherScorer(*model, tiny.mesh(), alpha=alpha, vocab=vocab)


def test_what_is_not_finite_is_not_kept(plain):
    batch, teacher = make(), cached(plain, rows=B)
    sound = teacher.teacher.score

    def odd(batch):
        scores = sharding.fetch(sound(batch))
        q, end = scores.q_BR.copy(), scores.end_value_B.copy()
        q[1, 0], end[2] = np.nan, np.inf
        return scores._replace(q_BR=q, end_value_B=end)

    teacher.teacher.score = odd
    scores = teacher.score(batch)
    assert np.isnan(scores.q_BR[1, 0]) and np.isinf(scores.end_value_B[2])
    teacher.teacher.score = sound
    assert cut(teacher.score(batch), batch) == cut(plain.score(batch), batch)
    assert teacher.metrics()["teacher_cache/hits"] == B - 2


# --- several processes ----------------------------------------------------------------------------

PROCESS = """
import sys
import jax
import numpy as np
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
from distill_jax.core import sharding
from tests import tiny
from tests.rewards import test_teacher_cache_scoring as t
mesh = sharding.make_mesh(sharding.MeshSettings(2, 1, 1))
model, params = tiny.build(lora=False, seed=3)
plain = t.TeacherScorer(model, tiny.placed(params, mesh), mesh, alpha=0.7, vocab=t.VOCAB)
# Only process 0 may look into the directory.
where = sys.argv[3] if sys.argv[2] == "0" else "/dev/null/nowhere"
for rows in (0, 2):
    teacher = t.cached(plain, mesh, rows=rows, directory=where)
    for batch in (t.take(t.make(), [0, 1, 2, 2]), t.make(), t.make()):
        placed = sharding.place(batch, sharding.batch_sharding(mesh))
        scores = sharding.fetch(teacher.score(placed))
    np.savez(f"{sys.argv[3]}/{sys.argv[2]}-{rows}.npz", *scores)
    print(rows, teacher.teacher.calls)
"""


def test_two_processes_score_as_one(plain, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(port), str(index), str(tmp_path)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        for process in pair:
            out, error = process.communicate(timeout=120)
            assert process.returncode == 0, error
            # 3 distinct rows of 4, then 5 of 8, then none.
            assert out.splitlines()[-2:] == ["0 [4, 8]", "2 [2, 2, 2, 2, 2]"]
            assert "teacher cache" not in error
    finally:
        for process in pair:
            process.kill()
    batch = make()
    for rows in (0, 2):
        one, two = (list(np.load(tmp_path / f"{i}-{rows}.npz").values()) for i in range(2))
        for x, y in zip(one, two, strict=True):
            np.testing.assert_array_equal(x, y)
        close(one, plain.score(batch), batch, 2e-6)


def test_settings_default_to_no_cache():
    assert CacheSettings().megabytes == 0
    assert {f.name for f in dataclasses.fields(CacheSettings) if not f.metadata["doc"]} == set()
