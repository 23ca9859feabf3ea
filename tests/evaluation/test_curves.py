from pathlib import Path

from distill_jax.evaluation.curves import draw_curves


def test_a_torn_last_line_is_left_out(tmp_path: Path):
    """The process was killed while it wrote its records; evaluate.checkpoints=all reads them."""
    (tmp_path / "rl").mkdir()
    text = '{"step": 1, "reward": 0.5, "loss": 1.0}\n{"step": 2, "rew'
    (tmp_path / "rl" / "metrics.jsonl").write_text(text)
    assert draw_curves(tmp_path, tmp_path / "report") == [tmp_path / "report" / "rl.png"]
