"""How many tokens a teacher in length buckets scores, counted on rows as long as GSM8K's."""

from typing import Any

import numpy as np
import pytest

from configs import presets
from distill_jax.rewards.length_buckets import BucketedTeacher, BucketSettings
from distill_jax.rewards.teacher import TeacherScores
from tests import tiny
from tests.data.gsm8k_like import lengths

CONFIG = presets.qwen_1_5b()
RL: Any = CONFIG.plan["rl"]
ROWS = lengths(7473)
# What the preset's system prompt adds to each prompt.
ASKED = 21
LONGEST = CONFIG.data.max_prompt_tokens + CONFIG.sampling.response_tokens
BATCHES = 60


class Counted:
    """Scores nothing, and notes the shapes of its calls."""

    model, vocab, kind, alphas = None, 1, "scores", (1.0,)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def score(self, batch: dict[str, Any]) -> TeacherScores:
        self.shapes.append(batch["tokens_BT"].shape)
        zeros = np.zeros(batch["targets_BR"].shape, np.float32)
        return TeacherScores(zeros, zeros, zeros[:, 0])  # type: ignore[arg-type]


def batch(random: np.random.Generator, rows: int, longer: float) -> dict[str, np.ndarray]:
    """Prompts of GSM8K, each four times; responses `longer` times as long, 2% cut off."""
    most = CONFIG.sampling.response_tokens
    total_P, response_P = random.choice(ROWS, rows // 4).T
    prompt_B = np.repeat(total_P - response_P + ASKED, 4).astype(np.int32)
    drawn_B = (random.choice(ROWS[:, 1], rows) * longer).astype(np.int32)
    response_B = np.where(random.random(rows) < 0.02, most, np.minimum(drawn_B, most))
    return {
        "tokens_BT": np.zeros((rows, (prompt_B + response_B).max()), np.int32),
        "prompt_len_B": prompt_B,
        "response_len_B": response_B.astype(np.int32),
        "targets_BR": np.zeros((rows, response_B.max()), np.int32),
    }


def counted(settings: BucketSettings, rows: int, longer: float = 1.0) -> tuple[list[float], int]:
    """Tokens that each batch scores over its rows' own; programs of all."""
    random, teacher, found = np.random.default_rng(0), Counted(), []
    shapes = set()
    made = BucketedTeacher(
        teacher,
        tiny.mesh(),
        sizes=settings.sizes(LONGEST, RL.batch_multiple),
        rows=settings.rows,
        response=CONFIG.sampling.response_tokens,
        tokens=settings.tokens,
    )
    for _ in range(BATCHES):
        one = batch(random, rows, longer)
        teacher.shapes.clear()
        made.score(one)
        own = int((one["prompt_len_B"] + one["response_len_B"]).sum())
        found.append(sum(B * T for B, T in teacher.shapes) / own)
        shapes |= set(teacher.shapes)
    return found, len(shapes)


@pytest.mark.parametrize("longer", [0.7, 1.0, 1.5, 2.5])
def test_a_step_of_the_preset_scores_a_quarter_more_at_most(longer: float) -> None:
    rows = RL.prompts_per_step * RL.samples_per_prompt
    assert rows == 128
    found, programs = counted(RL.buckets, rows, longer)
    assert max(found) <= 1.25 and programs <= 8


def test_what_few_rows_cost() -> None:
    """The last call of each length: as many tokens for 16 rows as for 128."""
    found, _ = counted(RL.buckets, 16)
    assert np.mean(found) == pytest.approx(1.22, abs=0.03)
    before, programs = counted(BucketSettings(lengths=4, rows=32), 16)
    assert np.mean(before) > 6 and programs <= 4


def test_the_settings_before_scored_twice_as_many() -> None:
    found, _ = counted(BucketSettings(lengths=4, rows=32), 128)
    assert np.mean(found) > 2.2
