"""How many tokens a teacher scores in calls of fixed shapes, counted on rows as long as GSM8K's."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs import presets
from distill_jax.rewards.length_buckets import BucketedTeacher, BucketSettings
from distill_jax.rewards.packed_teacher import PackedTeacher
from distill_jax.rewards.teacher import PackedScores, TeacherScores
from tests import tiny
from tests.data.gsm8k_like import lengths

pytestmark = pytest.mark.mesh

CONFIG = presets.qwen_1_5b()
RL: Any = CONFIG.plan["rl"]
ROWS = lengths(7473)
# What the preset's system prompt adds to each prompt.
ASKED = 21
LONGEST = CONFIG.data.max_prompt_tokens + CONFIG.sampling.response_tokens
BATCHES = 60


class Counted:
    """Scores nothing, and notes the shapes of its calls."""

    model = SimpleNamespace(attends=lambda *_, **__: "xla")
    vocab, kind, alphas = 1, "scores", (1.0,)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def score(self, batch: dict[str, Any]) -> TeacherScores:
        zeros = self._zeros(batch)
        return TeacherScores(zeros, zeros, zeros[:, 0])

    def score_packed(self, batch: dict[str, Any]) -> PackedScores:
        return PackedScores(*[self._zeros(batch)] * 2)

    def _zeros(self, batch: dict[str, Any]) -> Any:
        self.shapes.append(batch["tokens_BT"].shape)
        return np.zeros(batch["targets_BR"].shape, np.float32)


def batch(random: np.random.Generator, rows: int, longer: float) -> dict[str, np.ndarray]:
    """Prompts of GSM8K, each four times; responses `longer` times as long, 2% cut off."""
    most = CONFIG.sampling.response_tokens
    total_P, response_P = random.choice(ROWS, rows // 4).T
    prompt_B = np.repeat(total_P - response_P + ASKED, 4).astype(np.int32)
    drawn_B = (random.choice(ROWS[:, 1], rows) * longer).astype(np.int32)
    response_B = np.where(random.random(rows) < 0.02, most, np.minimum(drawn_B, most))
    tokens_BT = np.zeros((rows, (prompt_B + response_B).max()), np.int32)
    tokens_BT[:, 0] = np.arange(rows) // 4  # other prompts begin otherwise
    return {
        "tokens_BT": tokens_BT,
        "prompt_len_B": prompt_B,
        "response_len_B": response_B.astype(np.int32),
        "targets_BR": np.zeros((rows, response_B.max()), np.int32),
    }


def counted(
    settings: BucketSettings, rows: int, longer: float = 1.0, devices: int = 1
) -> tuple[list[float], set[tuple[int, int]]]:
    """Tokens that each batch scores over its rows' own; shapes of all calls."""
    random, found, shapes = np.random.default_rng(0), [], set()
    teacher: Any = Counted()
    mesh, sizes = tiny.mesh(1, devices, 1), settings.sizes(LONGEST, RL.batch_multiple)
    made: Any = PackedTeacher(teacher, mesh, sizes=sizes)
    if not settings.packed:
        response = CONFIG.sampling.response_tokens
        made = BucketedTeacher(teacher, mesh, sizes=sizes, rows=settings.rows, response=response)
    for _ in range(BATCHES):
        one = batch(random, rows, longer)
        teacher.shapes.clear()
        made.score(one)
        own = int((one["prompt_len_B"] + one["response_len_B"]).sum())
        found.append(sum(B * T for B, T in teacher.shapes) / own)
        shapes |= set(teacher.shapes)
    calls = settings.calls(LONGEST, CONFIG.sampling.response_tokens, RL.batch_multiple, devices)
    assert shapes <= {(call.rows, call.T) for call in calls}
    return found, shapes


def test_all_presets_of_large_models_pack_in_six_programs() -> None:
    for preset in (presets.qwen_0_5b(), CONFIG, presets.qwen_7b()):
        settings: Any = preset.plan["rl"]
        assert settings.buckets == BucketSettings(lengths=6, packed=True)
        assert settings.prompts_per_step * settings.samples_per_prompt == 128
    assert len(RL.buckets.sizes(LONGEST, RL.batch_multiple)) == 6


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("longer", [0.7, 1.0, 1.5, 2.5])
def test_no_step_of_the_presets_scores_more_than_its_rows(longer: float, devices: int) -> None:
    """Responses of a prompt have it once; 2.5 times as long, few of them fit into a packed row."""
    found, _ = counted(RL.buckets, 128, longer, devices)
    assert max(found) <= (1.05 if longer == 2.5 else 0.95)


@pytest.mark.parametrize(
    ("rows", "devices", "mean", "most"),
    [
        (8, 1, 0.76, 0.95),
        (16, 1, 0.77, 0.9),
        (16, 8, 1.11, 1.55),
        (32, 8, 0.88, 1.05),
        (64, 8, 0.81, 0.9),
    ],
)
def test_what_few_rows_cost(rows: int, devices: int, mean: float, most: float) -> None:
    found, shapes = counted(RL.buckets, rows, devices=devices)
    assert np.mean(found) == pytest.approx(mean, abs=0.02) and np.mean(found) <= 1.25
    assert max(found) <= most
    assert len(shapes) <= 6


def test_a_row_a_device_costs_the_longest_for_each() -> None:
    """No packing helps: a call is not shorter than its longest row, 1.5 times the mean."""
    found, _ = counted(RL.buckets, 8, devices=8)
    assert 1.5 < np.mean(found) < 2.1


def test_rows_apart_score_many_times_as_many() -> None:
    apart = BucketSettings(lengths=4, rows=32)
    assert np.mean(counted(apart, 128)[0]) > 2.2
    assert np.mean(counted(apart, 16)[0]) > 6
