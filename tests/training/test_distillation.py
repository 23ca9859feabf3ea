"""The loss of distillation, through models and heads, against the plain formula on whole rows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.kernels.divergence import divergence
from distill_jax.models.head.listed import TopK
from distill_jax.rewards.top_k import TopKScorer
from distill_jax.training import distillation, own_tokens
from distill_jax.training import state as states
from distill_jax.training.distillation import DistillLossSettings
from tests import shallow, tiny
from tests.tiny import VOCAB

pytestmark = pytest.mark.slow

PROMPT = np.array([3, 1, 4, 2], np.int32)
ANSWER = np.array([4, 5, 2, 3], np.int32)
R, T = 5, 9
MIX = {"kd_weight": 0.6, "ce_weight": 0.5}
CASES = [
    DistillLossSettings("forward", temperature=3.0, **MIX),
    DistillLossSettings("reverse", temperature=0.7, **MIX),
    DistillLossSettings("jsd", beta=0.3, temperature=2.0, **MIX),
    DistillLossSettings("jsd", beta=1.0, temperature=1.0, kd_weight=1.0, ce_weight=0.0),
]


@pytest.fixture(scope="module")
def pair():
    """(student, its params), (teacher, its params): of other widths and numbers of logit rows."""
    teacher = shallow.build(width=24, rows=tiny.ROWS + 8, lora=False, seed=1)
    return shallow.build(tied=False), teacher


@pytest.fixture(scope="module")
def real():
    """The same of a whole model."""
    wide = dataclasses.replace(tiny.ONE_LAYER, hidden_size=24, vocab_size=tiny.ROWS + 8)
    untied = dataclasses.replace(tiny.ONE_LAYER, tie_embeddings=False)
    return tiny.build(untied, noise=0.3), tiny.build(wide, lora=False, seed=1, noise=0.3)


def made(seed=0):
    rng = np.random.default_rng(seed)
    tokens_BT = rng.integers(1, VOCAB, (4, T)).astype(np.int32)
    targets_BR = np.zeros((4, R), np.int32)
    for row, (p, n) in enumerate(zip(PROMPT, ANSWER, strict=True)):
        tokens_BT[row, p + n :] = 0
        targets_BR[row, :n] = tokens_BT[row, p : p + n]
    mask_BR = (np.arange(R)[None] < ANSWER[:, None]).astype(np.float32)
    return {
        "tokens_BT": tokens_BT,
        "prompt_len_B": PROMPT,
        "targets_BR": targets_BR,
        "loss_mask_BR": mask_BR,
    }


def plain(pair, settings, mode, batch):
    """The same loss with all logits at once, a loop over rows, and nothing masked."""
    (student, params), (teacher, teacher_params) = pair
    how = {"kind": settings.divergence, "beta": settings.beta, "temperature": settings.temperature}
    frozen = states.split(params, mode)[1]

    def loss(trainable):
        both = states.join(trainable, frozen)
        logits = [
            model.hidden(p, batch["tokens_BT"]) @ model.head_VD(p).T
            for model, p in ((student, both), (teacher, teacher_params))
        ]
        q, p = (x[..., :VOCAB] for x in logits)
        kd, ce = 0.0, 0.0
        for row, (first, n) in enumerate(zip(PROMPT, ANSWER, strict=True)):
            at = slice(first - 1, first + n - 1)
            kd += divergence(p[row, at], q[row, at], **how).sum()
            tokens = batch["tokens_BT"][row, first : first + n]
            ce -= jax.nn.log_softmax(q[row, at])[np.arange(n), tokens].sum()
        return (settings.kd_weight * kd + settings.ce_weight * ce) / ANSWER.sum()

    return jax.jit(jax.value_and_grad(loss))(states.split(params, mode)[0])


def chunked(pair, settings, mode, batch, *, given=True, student=None):
    (model, params), (teacher, teacher_params) = pair
    trainable, frozen = states.split(params, mode)
    if settings.top_k:
        where = tiny.mesh()
        how = {"k": settings.top_k, "vocab": VOCAB, "temperature": settings.temperature}
        scores = TopKScorer(teacher, tiny.placed(teacher_params, where), where, **how).score(
            {**batch, "response_len_B": ANSWER}
        )
        batch = {**batch, **{f"teacher_{name}": x for name, x in scores._asdict().items()}}
        batch = jax.tree.map(np.asarray, batch)
    else:
        frozen = {**frozen, "teacher": teacher_params}

    run = program(student or model, teacher, settings, given)
    (value, metrics), grads = run(trainable, frozen, batch)
    return value, grads, metrics


@functools.cache
def program(student, teacher, settings, given, **how):
    loss, totals = distillation.distill(student, teacher, settings, VOCAB, given=given, **how)

    @jax.jit
    def run(trainable, frozen, batch):
        one = jax.value_and_grad(loss, has_aux=True)
        return one(trainable, frozen, batch, totals(batch), jax.random.key(0))

    return run


def same(got, want, tolerance=5e-5):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-3, atol=tolerance), got, want
    )


@pytest.mark.parametrize(
    ("settings", "mode", "models"),
    zip(CASES, ("lora", "full", "full", "lora"), ("pair", "real", "pair", "pair"), strict=True),
)
def test_value_and_gradients_are_those_of_the_plain_formula(request, settings, mode, models):
    pair = request.getfixturevalue(models)
    value, grads, metrics = chunked(pair, settings, mode, made())
    want, want_grads = plain(pair, settings, mode, made())
    np.testing.assert_allclose(value, want, rtol=1e-5)
    same(grads, want_grads)
    # LoRA's A and B, or every weight with the head among them, get a gradient.
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    silent = [jax.tree_util.keystr(path) for path, x in leaves if not np.any(np.asarray(x))]
    # Where heads draw their keys from cannot matter: softmax does not see a shift.
    assert all("k_proj" in name and "bias" in name for name in silent), silent
    if mode == "full":
        assert np.any(np.asarray(grads["base"]["lm_head"]["kernel"]))
    parts = settings.kd_weight * settings.temperature**2 * metrics[settings.measure]
    parts += settings.ce_weight * metrics.get("ce", 0.0)
    np.testing.assert_allclose(value, parts, rtol=1e-5)


def test_rows_find_their_place(pair):
    """Row means that weigh to the batch's, each where place_BB says, as microbatches need it."""
    settings, rows = CASES[0], len(ANSWER)
    batch = made()
    _, _, metrics = chunked(pair, settings, "lora", {**batch, "place_BB": np.eye(rows)[::-1]})
    rows_B = np.asarray(metrics["rows_B"])[::-1]
    np.testing.assert_allclose(rows_B @ ANSWER / ANSWER.sum(), metrics[settings.measure], rtol=1e-5)
    first = np.zeros_like(batch["loss_mask_BR"])
    first[0] = batch["loss_mask_BR"][0]
    _, _, alone = chunked(pair, settings, "lora", {**batch, "loss_mask_BR": first})
    np.testing.assert_allclose(rows_B[0], alone[settings.measure], rtol=1e-5)
    assert "rows_B" not in alone


def test_all_tokens_listed_equals_exact(pair):
    settings = CASES[2]  # the other divergences: models/head/test_top_k_term.py
    exact = chunked(pair, settings, "full", made())
    listed = chunked(pair, dataclasses.replace(settings, top_k=VOCAB), "full", made())
    np.testing.assert_allclose(listed[0], exact[0], rtol=1e-4)
    same(listed[1], exact[1], 5e-5)
    few = chunked(pair, dataclasses.replace(settings, top_k=3), "full", made())
    assert few[2][settings.measure] < 0.99 * exact[2][settings.measure]


class Disturbed:
    """A student whose states at places that score no response token are moved far away."""

    def __init__(self, model):
        self.model, self.shards, self.whole_head_VD = model, model.shards, model.whole_head_VD

    def hidden(self, params, tokens_BT, **how):
        place_T = jnp.arange(tokens_BT.shape[1])
        scores_BT = place_T >= PROMPT[:, None] - 1
        scores_BT &= place_T < (PROMPT + ANSWER)[:, None] - 1
        found = self.model.hidden(params, tokens_BT, **how)
        return jnp.where(scores_BT[..., None], found, 5.0 - found)


@pytest.mark.parametrize("top_k", [0, 4])
def test_prompts_and_padding_are_not_in_the_loss(pair, top_k):
    settings = dataclasses.replace(CASES[0], top_k=top_k)
    want = chunked(pair, settings, "lora", made())
    got = chunked(pair, settings, "lora", made(), student=Disturbed(pair[0][0]))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    same(got[1], want[1], 1e-6)
    batch = made()
    batch["targets_BR"][batch["loss_mask_BR"] == 0] = 7
    np.testing.assert_array_equal(chunked(pair, settings, "lora", batch)[0], want[0])


def test_the_last_token_of_a_response_is_in_the_loss(pair):
    last = made()
    last["loss_mask_BR"] = (np.arange(R)[None] == ANSWER[:, None] - 1).astype(np.float32)
    value, grads, _ = chunked(pair, CASES[0], "lora", last)
    assert value > 0 and all(np.any(np.asarray(x)) for x in jax.tree.leaves(grads))


def test_cross_entropy_is_for_given_tokens_alone(pair):
    settings = CASES[0]
    own, grads, metrics = chunked(pair, settings, "lora", made(), given=False)
    alone = dataclasses.replace(settings, ce_weight=0.0)
    want = chunked(pair, alone, "lora", made())
    np.testing.assert_allclose(own, want[0], rtol=1e-6)
    same(grads, want[1], 1e-7)
    assert set(metrics) == {"kl", "teacher/mass"}


def scored(pair, batch):
    """Logits of (student, teacher) that each response token is drawn from, a list of rows each."""
    return [
        [
            np.asarray(model.hidden(p, batch["tokens_BT"])[row, first - 1 : first + n - 1])
            @ np.asarray(model.head_VD(p)).T[:, :VOCAB]
            for row, (first, n) in enumerate(zip(PROMPT, ANSWER, strict=True))
        ]
        for model, p in pair
    ]


@pytest.mark.parametrize("top_k", [0, VOCAB, 3])
def test_what_the_teacher_says_of_the_students_tokens(pair, top_k):
    """Its mass on each, on each row's last one, and the overlap of both top k, by hand."""
    how = {"temperature": 2.0 if not top_k else 1.0, "kd_weight": 1.0, "ce_weight": 0.0}
    settings, batch = DistillLossSettings("reverse", top_k=top_k, **how), made()
    more = {"place_BB": np.eye(4)[::-1], "response_len_B": ANSWER}
    _, _, metrics = chunked(pair, settings, "lora", {**batch, **more}, given=False)
    ours, theirs = scored(pair, batch)
    masses, shared = [], []
    for row, n in enumerate(ANSWER):
        p = np.asarray(jax.nn.softmax(theirs[row]))
        target = batch["targets_BR"][row, :n]
        mass = p[np.arange(n), target]
        if top_k:
            best = np.argsort(-p, axis=1)[:, :top_k]
            mine = np.argsort(-ours[row], axis=1)[:, :top_k]
            mass = np.where((best == target[:, None]).any(axis=1), mass, 0.0)
            shared += [len({*a} & {*b}) / top_k for a, b in zip(best, mine, strict=True)]
        masses.append(mass)
    np.testing.assert_allclose(metrics["teacher/mass"], np.concatenate(masses).mean(), rtol=1e-4)
    last = [mass[-1] for mass in masses]
    np.testing.assert_allclose(metrics["last_mass_B"][::-1], last, rtol=1e-4, atol=1e-7)
    if top_k:
        assert metrics["overlap_tokens"] == ANSWER.sum()
        np.testing.assert_allclose(metrics["overlap_sum"], np.sum(shared), rtol=1e-5)
        assert (np.mean(shared) == 1.0) == (top_k == VOCAB)


def test_the_teachers_listed_mass_is_recorded_at_temperature_1_alone(pair):
    settings = DistillLossSettings("reverse", top_k=3, temperature=2.0, ce_weight=0.0)
    _, _, metrics = chunked(pair, settings, "lora", made(), given=False)
    assert set(metrics) == {"kl", "overlap_sum", "overlap_tokens"}


def test_the_overlap_is_read_at_some_tokens_of_many():
    """1,600 states: every fifth; the student's two best are the teacher's at even places alone."""
    many, rng = 1600, np.random.default_rng(0)
    hidden_ND = jnp.asarray(rng.normal(size=(many, 6)), jnp.float32)
    best_NK = np.argsort(-np.asarray(hidden_ND), axis=1)[:, :2]
    other = np.arange(many) % 2 == 1
    theirs_NK = np.where(other[:, None], np.argsort(np.asarray(hidden_ND), axis=1)[:, :2], best_NK)
    top = TopK(jnp.asarray(theirs_NK), jnp.zeros((many, 2)), jnp.zeros(many))
    mask_N = jnp.asarray(np.arange(many) < 800, jnp.float32)
    total, tokens = own_tokens.overlap(hidden_ND, jnp.eye(6), top, mask_N, 6)
    assert (float(total), float(tokens)) == (80.0, 160.0)


def test_without_the_divergence_no_teacher_is_read(pair):
    """Hard sequence distillation is cross-entropy; its rows are the curriculum's gaps."""
    settings = DistillLossSettings(kd_weight=0.0, ce_weight=0.5)
    (student, params), (teacher, _) = pair
    trainable, frozen = states.split(params, "lora")
    batch = {**made(), "place_BB": np.eye(len(ANSWER))}
    run = program(student, teacher, settings, True)
    (value, metrics), grads = run(trainable, frozen, batch)  # frozen holds no teacher
    want, want_grads = plain(pair, settings, "lora", made())
    np.testing.assert_allclose(value, want, rtol=1e-5)
    same(grads, want_grads)
    assert set(metrics) == {"ce", "rows_B"}
    np.testing.assert_allclose(metrics["rows_B"] @ ANSWER / ANSWER.sum(), metrics["ce"], rtol=1e-5)


def test_a_loss_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="kd_weight=0 with ce_weight=0"):
        DistillLossSettings(kd_weight=0.0, ce_weight=0.0)


# --- the future term ------------------------------------------------------------------------------

FUTURE = DistillLossSettings(
    "reverse", temperature=1.5, kd_weight=0.6, ce_weight=0.0, future=0.7, future_discount=0.8
)


def drawn(pair, settings, batch, rows=slice(None), tokens=None):
    """Value, metrics, gradient of two samples of each of two prompts, drawn at temperature 0.9."""
    (student, params), (teacher, teacher_params) = pair
    trainable, frozen = states.split(params, "full")
    frozen = {**frozen, "teacher": teacher_params}
    loss, totals = distillation.distill(
        student, teacher, settings, VOCAB, given=False, samples=2, drawn_at=0.9
    )
    batch = {name: leaf[rows] for name, leaf in batch.items()}
    tokens = totals(batch) if tokens is None else tokens
    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, metrics), grads = run(trainable, frozen, batch, tokens, jax.random.key(0))
    return value, metrics, grads


def plain_future(pair, settings, batch):
    """Gradient of the term alone and the mean cost to go, by loops over whole logits."""
    (student, params), (teacher, teacher_params) = pair
    trainable, frozen = states.split(params, "full")
    how = {"kind": settings.divergence, "beta": settings.beta, "temperature": settings.temperature}

    def logits(trainable):
        both = states.join(trainable, frozen)
        return (student.hidden(both, batch["tokens_BT"]) @ student.head_VD(both).T)[..., :VOCAB]

    p = teacher.hidden(teacher_params, batch["tokens_BT"]) @ teacher.head_VD(teacher_params).T
    cost = np.asarray(divergence(p[..., :VOCAB], logits(trainable), **how))
    to_go = np.zeros((4, R))
    for row, (first, n) in enumerate(zip(PROMPT, ANSWER, strict=True)):
        for t in range(n):
            later = range(t + 1, n)
            to_go[row, t] = sum(
                settings.future_discount ** (i - t) * cost[row, first - 1 + i] for i in later
            )

    def term(trainable):
        logp = jax.nn.log_softmax(logits(trainable) / 0.9)
        total = 0.0
        for row, (first, n) in enumerate(zip(PROMPT, ANSWER, strict=True)):
            other = (row + 2) % 4  # rows are the first sample of both prompts, then the second
            for t in range(n):
                token = batch["tokens_BT"][row, first + t]
                total += (to_go[row, t] - to_go[other, t]) * logp[row, first - 1 + t, token]
        return settings.kd_weight * settings.future * total / ANSWER.sum()

    mean = sum(to_go[row, :n].sum() for row, n in enumerate(ANSWER)) / ANSWER.sum()
    return jax.jit(jax.grad(term))(trainable), mean / settings.temperature**2


def test_the_future_term_is_that_of_loops(pair):
    myopic = drawn(pair, dataclasses.replace(FUTURE, future=0.0, future_discount=1.0), made())
    value, metrics, grads = drawn(pair, FUTURE, made())
    want, to_go = plain_future(pair, FUTURE, made())
    same(jax.tree.map(jnp.subtract, grads, myopic[2]), want, 2e-6)
    assert max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(want)) > 1e-2
    np.testing.assert_allclose(metrics["kl_to_go"], to_go, rtol=1e-4)
    # The value stays the divergence's: curves with and without the term can be compared.
    np.testing.assert_allclose(value, myopic[0], rtol=1e-6)


def test_microbatches_of_whole_groups_add_up_and_padding_counts_for_nothing(pair):
    batch = made()
    value, _, grads = drawn(pair, FUTURE, batch)
    parts = [drawn(pair, FUTURE, batch, slice(i, None, 2), float(ANSWER.sum())) for i in (0, 1)]
    np.testing.assert_allclose(parts[0][0] + parts[1][0], value, rtol=1e-5)
    same(jax.tree.map(jnp.add, parts[0][2], parts[1][2]), grads, 2e-6)
    batch["targets_BR"][batch["loss_mask_BR"] == 0] = 7
    moved = (Disturbed(pair[0][0]), pair[0][1]), pair[1]
    same(drawn(moved, FUTURE, batch)[2], grads, 2e-6)


def test_beta_is_for_jsd():
    with pytest.raises(ConfigError, match="beta=0.2 with divergence=reverse"):
        DistillLossSettings("reverse", beta=0.2)
