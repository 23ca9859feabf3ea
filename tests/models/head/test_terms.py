"""Chunked divergence of two heads against the plain formula, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from distill_jax.core.errors import ConfigError
from distill_jax.core.sharding import MeshSettings, batch_sharding, make_mesh
from distill_jax.kernels.divergence import divergence
from distill_jax.models.head.loss import head_loss
from distill_jax.models.head.terms import cross_entropy
from distill_jax.models.head.terms import divergence as divergence_term
from tests.models.head.gathers import gathered

pytestmark = [pytest.mark.mesh, pytest.mark.slow]

N, VALID = 13, 17
CASES = [
    ("forward", 0.5, 1.0),
    ("reverse", 0.5, 0.7),
    ("jsd", 0.3, 2.0),
    ("jsd", 0.0, 1.5),
    ("jsd", 1.0, 1.5),
]


def arrays():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape, np.float32)

    # Student and teacher differ in width and in padding rows, as Qwen's sizes do.
    return (draw(N, 8), draw(20, 8) / 2), (draw(N, 6), draw(18, 6) / 2), draw(N)


def naive(student, teacher, kind, beta, temperature):
    p = (teacher[0] @ teacher[1].T)[:, :VALID]
    q = (student[0] @ student[1].T)[:, :VALID]
    return divergence(p, q, kind=kind, beta=beta, temperature=temperature)


def ours(student, teacher, weights, kind, beta, temperature, chunk):
    how = {"kind": kind, "beta": beta, "temperature": temperature}
    term = divergence_term(*teacher, weights, **how)
    total, (value,) = head_loss(*student, [term], valid_vocab=VALID, chunk_tokens=chunk)
    return total, value


# JSD at the ends of β is another divergence; chunks do not know of β.
@pytest.mark.parametrize(
    "kind,beta,temperature,chunk",
    [(*case, chunk) for chunk, cases in ((4, CASES[:3]), (None, CASES[2:])) for case in cases],
)
def test_value_and_gradients(kind, beta, temperature, chunk):
    student, teacher, weights = arrays()
    case = (kind, beta, temperature)

    def total(hidden, head, weights):
        return ours((hidden, head), teacher, weights, *case, chunk)

    def plain(hidden, head, weights):
        value = naive((hidden, head), teacher, *case)
        return (value * weights).sum(), value

    def run(of, each):
        def grads(*given):
            return [jax.grad(lambda *a: 3.0 * of(*a)[0], wrt)(*given) for wrt in each]

        return jax.jit(lambda *given: (of(*given), grads(*given)))(*student, weights)

    # Alone and together: what nobody asks a gradient of is not computed, by other paths.
    each = [(0,), (1,), (2,), (0, 1), (0, 1, 2)]
    got, grads = run(total, each)
    want, (every,) = run(plain, each[-1:])
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, atol=1e-5), got, want)
    for wrt, some in zip(each, grads, strict=True):
        for one, i in zip(some, wrt, strict=True):
            np.testing.assert_allclose(one, every[i], atol=3e-5, rtol=1e-5, err_msg=str(wrt))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_token_without_weight_may_be_anything(value):
    (hidden, head), teacher, weights = arrays()
    weights[3] = 0.0
    other = hidden.copy()
    other[3] = value

    @jax.jit
    def run(hidden, head, weights):
        def total(hidden, head, weights):
            return ours((hidden, head), teacher, weights, *CASES[0], 4)[0]

        return jax.value_and_grad(total, (0, 1, 2))(hidden, head, weights)

    got, want = (jax.tree.map(np.array, run(h, head, weights)) for h in (other, hidden))
    want[1][2][3] = 0.0
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-6), got, want)


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_mixed_dtypes(dtypes, chunk):
    """Products in the hidden states' dtype; gradients in their own, the head's summed in f32."""
    (hidden, head), teacher, weights = arrays()
    given = hidden.astype(dtypes[0]), head.astype(dtypes[1])
    case = ("forward", 0.5, 1.0)

    def total(hidden, head, scale):
        return ours((hidden, head), teacher, np.ones(N), *case, chunk)[0] * scale

    got = jax.jit(jax.grad(total, (0, 1)))(*given, np.float32(0.7))
    assert tuple(g.dtype for g in got) == dtypes
    exact = tuple(x.astype(dtypes[0]).astype(np.float32) for x in given)
    want = jax.jit(jax.grad(lambda h, w: 0.7 * naive((h, w), teacher, *case).sum(), (0, 1)))(*exact)
    for g, w in zip(got, want, strict=True):
        # A sum over 13 tokens in bfloat16 is off by several percent of the largest part.
        np.testing.assert_allclose(np.asarray(g, np.float32), w, rtol=0.02, atol=0.006)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_on_a_mesh_equals_one_device(shape):
    mesh = make_mesh(MeshSettings(*shape))
    rows, split = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    rng, shapes = np.random.default_rng(1), ((64, 16), (328, 16), (64, 8), (328, 8))
    arrays_ = [rng.standard_normal(s, np.float32) for s in shapes]
    weights = np.linspace(0.1, 1.0, 64, dtype=np.float32)

    def run(hidden, head, teacher, teacher_head, weights):
        def total(hidden, head):
            terms = [
                divergence_term(teacher, teacher_head, weights, kind="jsd"),
                cross_entropy(np.arange(64), weights),
            ]
            return head_loss(hidden, head, terms, valid_vocab=320, chunk_tokens=16)

        return jax.value_and_grad(total, (0, 1), has_aux=True)(hidden, head)

    placed = [
        jax.device_put(x, where)
        for x, where in zip((*arrays_, weights), (rows, split, rows, split, rows), strict=True)
    ]
    compiled = jax.jit(run).lower(*placed).compile()
    got, want = compiled(*placed), jax.jit(run)(*arrays_, weights)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=2e-5), got, want)
    assert not gathered(compiled.as_text(), vocab=328, tokens=16)


def test_teacher_and_single_values_give_no_gradient():
    student, teacher, weights = arrays()
    case = ("jsd", 0.5, 1.0, 4)
    grads = jax.jit(jax.grad(lambda t: ours(student, t, weights, *case)[0]))(teacher)
    assert not any(np.any(np.asarray(g)) for g in grads)
    grads = jax.jit(jax.grad(lambda s: ours(s, teacher, weights, *case)[1].sum()))(student)
    assert not any(np.any(np.asarray(g)) for g in grads)


def test_a_teacher_to_itself_is_zero():
    student, _, _ = arrays()
    loss = lambda s: ours(s, student, np.ones(N), "reverse", 0.5, 2.0, None)[0]  # noqa: E731
    value, grad = jax.jit(jax.value_and_grad(loss))(student)
    np.testing.assert_allclose(value, 0.0, atol=1e-5)
    jax.tree.map(lambda g: np.testing.assert_allclose(g, 0.0, atol=1e-5), grad)


def test_no_vocabulary_axis_for_the_batch():
    def temp_bytes(chunk):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1024, 16), (4096, 16))]

        def loss(h, w):
            term = divergence_term(h, w, np.ones(1024), kind="jsd")
            return head_loss(h, w, [term], chunk_tokens=chunk)[0]

        run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes).compile()
        return run.memory_analysis().temp_size_in_bytes

    assert temp_bytes(1024) >= 4 * 1024 * 4096 > 2 * temp_bytes(64)


@pytest.mark.parametrize("chunk", [None, 4])
def test_two_terms_are_their_sum(chunk):
    (hidden, head), teacher, weights = arrays()
    targets = np.arange(N) % VALID
    case = ("reverse", 0.5, 2.0)

    def total(hidden, head, weights, ce_weights):
        terms = [
            divergence_term(*teacher, weights, kind=case[0], temperature=case[2]),
            cross_entropy(targets, ce_weights),
        ]
        return head_loss(hidden, head, terms, valid_vocab=VALID, chunk_tokens=chunk)

    def plain(hidden, head, weights, ce_weights):
        logp = jax.nn.log_softmax((hidden @ head.T)[:, :VALID])
        ce = -jnp.take_along_axis(logp, targets[:, None], axis=1)[:, 0]
        kd = naive((hidden, head), teacher, *case)
        return (kd * weights + ce * ce_weights).sum(), (kd, ce)

    given = (hidden, head, weights, weights[::-1])
    got, want = (
        jax.jit(jax.value_and_grad(f, (0, 1, 2, 3), has_aux=True))(*given) for f in (total, plain)
    )
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=2e-5, rtol=1e-5), got, want)


def test_logits_are_made_once():
    def products(wrt, ce=False):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 16), (512, 16))]

        def loss(h, w):
            terms = [divergence_term(h, w, np.ones(64))]
            terms += [cross_entropy(np.arange(64), np.ones(64))] * ce
            return head_loss(h, w, terms, chunk_tokens=8)[0]

        text = str(jax.make_jaxpr(jax.value_and_grad(loss, wrt))(*shapes))
        return text.count("dot_general[")

    # Logits of both sides, then one product for each gradient.
    assert products(0) == products(0, ce=True) == 3
    assert products((0, 1)) == products((0, 1), ce=True) == 4


@pytest.mark.parametrize("bad", [dict(), dict(valid_vocab=19), dict(valid_vocab=0)])
def test_impossible_vocabularies(bad):
    student, teacher, weights = arrays()
    with pytest.raises(ConfigError):
        head_loss(*student, [divergence_term(*teacher, weights)], **bad)


@pytest.mark.parametrize("bad", [dict(temperature=0.0), dict(kind="jsd", beta=2.0)])
def test_impossible_settings(bad):
    _, teacher, weights = arrays()
    with pytest.raises(ConfigError):
        divergence_term(*teacher, weights, **bad)
