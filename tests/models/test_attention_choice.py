"""Which attention a model takes where none is asked for."""

import dataclasses
import functools
import logging
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from distill_jax.core import sharding
from distill_jax.models import attention_choice
from distill_jax.models.attention import attention
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.splash import Splash
from tests import tiny

# Two layers, of which one sees a window.
MIXED = QwenConfig(
    "qwen3", 24, 16, 24, 2, 4, 2, 8, sliding_window=4,
    layer_types=("full_attention", "sliding_attention"),
)  # fmt: skip


WHOLE = dataclasses.replace(MIXED, layer_types=("full_attention",) * 2, head_dim=128)


def chosen(platform: str, config: QwenConfig = WHOLE, dtype: str = "bfloat16", time: int = 2048,
           segments: bool = False, scanned: bool = False) -> Any:  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "first_device", lambda mesh: SimpleNamespace(platform=platform))
        return attention_choice.chosen(
            config, dtype, tiny.mesh(), time, segments=segments, scanned=scanned
        )


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What cuDNN is asked to compile, all of which it does."""
    asked: list[Any] = []
    monkeypatch.setattr(
        attention_choice, "cudnn_compiles", lambda *about: asked.append(about[1:]) or True
    )
    return asked


@pytest.mark.parametrize(
    ("platform", "how", "wanted"),
    [
        ("cpu", {}, "products"),
        ("cpu", {"dtype": "float32", "segments": True}, "products"),
        ("gpu", {}, "cudnn"),
        ("gpu", {"dtype": "float16"}, "cudnn"),
        ("gpu", {"dtype": "float32"}, "xla"),
        ("gpu", {"segments": True}, "xla"),
        ("gpu", {"config": MIXED}, "cudnn"),
        ("gpu", {"config": MIXED, "scanned": True}, "xla"),
        ("tpu", {}, "splash"),
        ("tpu", {"segments": True, "scanned": True}, "splash"),
        ("tpu", {"time": 1008}, "xla"),
        ("tpu", {"dtype": "float32"}, "xla"),
        ("tpu", {"config": MIXED}, "xla"),
        ("tpu", {"config": dataclasses.replace(WHOLE, head_dim=64)}, "xla"),
    ],
)
def test_choice(compiles: list[Any], platform: str, how: dict[str, Any], wanted: str) -> None:
    found = chosen(platform, **how)
    assert found == (Splash(tiny.mesh()) if wanted == "splash" else wanted)
    size = how.get("config", WHOLE).head_dim
    about = ((4, 2), size, jnp.dtype(how.get("dtype", "bfloat16")))
    assert compiles == [about] * (wanted == "cudnn")


def test_without_cudnn_or_devices_it_is_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_choice, "cudnn_compiles", lambda *about: False)
    assert chosen("gpu") == "xla"
    mesh = AbstractMesh((1, 8, 1), sharding.AXES)
    how = {"segments": False, "scanned": False}
    assert attention_choice.chosen(WHOLE, "bfloat16", mesh, 2048, **how) == "xla"


def test_it_is_asked_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    ask = (jax.devices()[0], (4, 2), 16, jnp.dtype("bfloat16"))
    with caplog.at_level(logging.INFO, attention_choice.__name__):
        assert [attention_choice.cudnn_compiles(*ask) for _ in range(2)] == [False, False]
    (said,) = caplog.messages
    assert said.startswith("attention: XLA's; cuDNN's does not compile on ")


@pytest.mark.parametrize(("unroll", "segments"), [(True, False), (False, True)])
def test_a_model_says_what_it_will_mask(
    monkeypatch: pytest.MonkeyPatch, unroll: bool, segments: bool
) -> None:
    asked = []

    def attends(self: QwenModel, time: int, **how: bool) -> str:
        asked.append((time, how))
        return "products"

    monkeypatch.setattr(QwenModel, "attends", attends)
    model = QwenModel(MIXED, unroll=unroll)
    tokens_BT = np.ones((1, 6), np.int32)
    segment_BT = np.ones((1, 6), np.int32) if segments else None
    params = tiny.weights(model)
    jax.eval_shape(lambda p: model.hidden(p, tokens_BT, segment_BT=segment_BT), params)
    assert asked == [(6, {"segments": segments, "scanned": not unroll})]


@pytest.mark.slow
def test_the_kernel_equals_xla_on_packed_rows_of_any_length() -> None:
    # Interpreted: what it computes, not that a TPU runs it. 150 tokens are padded to 256.
    rng = np.random.default_rng(0)
    q, k, v, weight = (
        jnp.asarray(rng.standard_normal((2, 150, heads, 128)), jnp.float32)
        for heads in (4, 2, 2, 4)
    )
    segment_BT = np.stack([np.arange(150) // 60 + 1, np.arange(150) < 90]).astype(np.int32)

    @functools.partial(jax.jit, static_argnums=0)
    def of(implementation, q, k, v, segments):
        def total(q, k, v):
            out = attention(q, k, v, segment_BT=segments, implementation=implementation)
            return jnp.sum(out * weight.reshape(2, 150, -1)), out

        return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(q, k, v)

    for segments in (None, segment_BT):
        found = (of(one, q, k, v, segments) for one in (Splash(tiny.mesh(), interpret=True), "xla"))
        for got, want in zip(*map(jax.tree.leaves, found), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
