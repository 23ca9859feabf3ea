"""The data of a run: its tokenizer."""

from pathlib import Path

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.run import run as runs
from tests.stages.small import small


def test_another_tokenizer_is_not_written_over_that_of_a_run(tmp_path: Path) -> None:
    assert len(runs.Run(small(), tmp_path).data.tokenizer) == 300
    stage = tmp_path / "sft" / "settings.json"
    held = (tmp_path / "tokenizer" / "tokenizer.json").read_bytes()
    stage.parent.mkdir()
    stage.write_text("{}")
    with pytest.raises(ConfigError, match=r"was made from .*'size': 300.*, now from .*280"):
        _ = runs.Run(small(tokenizer_size=280), tmp_path).data.tokenizer
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == held
    stage.unlink()  # nothing was made with it: it may go
    assert len(runs.Run(small(tokenizer_size=280), tmp_path).data.tokenizer) == 280
